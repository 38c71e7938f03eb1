#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_info
short_description: Compare a deployment on a server with the plan
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Lists the containers on this server that carry the deployment's label, by the Docker Engine's word, and
    says which of them the plan does not know and which planned instances are not running as planned.
  - Compares the files of the planned containers as well, in the same call.
  - A node of an instance that has been started since its group formed is not as planned, nor is a proxy whose
    list of backends has been changed, although both run.
  - Changes nothing.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
options:
  deployment:
    description: Value of the label C(pd_rollout.deployment).
    type: str
    required: true
  roles:
    description: Values of the label C(pd_rollout.role) that count. Other containers of the deployment are
      not listed.
    type: list
    elements: str
    required: true
  planned:
    description: The slices of the plan for this server. Of each C(container), C(image), C(labels), C(script),
      C(script_path), C(secret_path), C(ready), C(health_url) and C(expected) are read, and in place of the
      script C(script_digest), its SHA-256.
    type: list
    elements: dict
    default: []
  directory:
    description:
      - The deployment's directory on the server. It must be a name below a directory that is not the
        operating system's, no link, and nobody but root may write on the way to it. The files of O(planned)
        must be right in it. Otherwise the module fails, so that a role that looks here first changes nothing.
    type: str
  secret_digest:
    description: SHA-256 of what the files at C(secret_path) must hold.
    type: str
    default: ""
  require_engine:
    description: Whether it is an error when no Docker Engine answers. In check mode it never is.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Look at what is deployed on this server
  ascend.pd_rollout.deployment_info:
    deployment: pd
    roles: [prefiller, decoder]
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
  register: deployed
"""

RETURN = r"""
strays:
  description: Containers of the deployment that are not planned here.
  returned: always
  type: list
  elements: dict
  sample: [{name: pd-decode2, image: "sha256:0123", scripts: [/etc/pd_rollout/pd/decode2.sh]}]
running:
  description: Names of the planned containers that are running, or are between two restarts.
  returned: always
  type: list
  elements: str
  sample: [pd-decode1]
broken:
  description: Instances of which the part on this server is missing, stopped, restarting or other than
    planned.
  returned: always
  type: list
  elements: str
  sample: [prefiller]
nodes:
  description: The planned containers, one by one.
  returned: always
  type: list
  elements: dict
  contains:
    container:
      description: Its name.
      type: str
      returned: always
      sample: pd-prefiller
    instance:
      description: The instance that it is a node of.
      type: str
      returned: always
      sample: prefiller
    group:
      description: The servers of the instance by rank, empty where it has only one.
      type: list
      elements: str
      returned: always
      sample: [prefill1, prefill2]
    why:
      description: How it is not as planned, empty where it is.
      type: str
      returned: always
      sample: its container is exited
    started_at:
      description: Its last start as the Docker Engine tells it, where it runs by this plan.
      type: str
      returned: always
    noted:
      description: Whether its last start by a rollout is noted, as M(ascend.pd_rollout.deployment_record)
        does it.
      type: bool
      returned: always
    pending:
      description: Whether it has to be created, started, or given another restart policy.
      type: bool
      returned: always
    generation:
      description: Identity of that rollout. It is the same on all nodes of a group.
      type: str
      returned: always
outdated:
  description: Files of the planned containers, and their directories, that are missing or other than planned.
  returned: always
  type: list
  elements: str
  sample: [/etc/pd_rollout/pd/decode1.sh]
key_ids:
  description: For each C(secret_path) the name that its content has, by chance, in the label
    C(pd_rollout.key) and in a file beside it. It stays until the content changes.
  returned: always
  type: dict
  sample: {/etc/pd_rollout/pd/api_key: 8f14e45fceea167a}
reachable:
  description: Whether a Docker Engine answered.
  returned: always
  type: bool
"""

from ..module_utils._module import run
from ..module_utils._serving import entry


def main() -> None:
    run(entry.ARGUMENTS, entry.state)


if __name__ == "__main__":
    main()
