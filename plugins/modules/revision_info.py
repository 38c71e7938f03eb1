#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: revision_info
short_description: Read the revisions of a deployment on a server, and what runs
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the playbooks C(rollback.yml) and C(history.yml).
  - A revision is what was deployed and has passed its test. The last ten are kept on the servers of the
    routers.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
options:
  deployment:
    description: Name of the deployment.
    type: str
    required: true
  directory:
    description: The deployment's directory on the server.
    type: str
    required: true
  revision:
    description:
      - Number of a revision, of which only the plan is returned; V(0) for all that is known beside the plans.
      - Use C(no_log) with a number, since a plan may hold secrets.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Read the revisions on this server
  ascend.pd_rollout.revision_info:
    deployment: pd
    directory: /etc/pd_rollout/pd
"""

RETURN = r"""
revisions:
  description: The records of the revisions, the newest last, as M(ascend.pd_rollout.revision_record) returns
    them.
  returned: success
  type: list
  elements: dict
plan:
  description: The plan of O(revision) as JSON; empty without one.
  returned: success
  type: str
images:
  description: IDs of the images that the names in the revisions stand for now, as far as they are here.
  returned: without O(revision)
  type: dict
  sample: {"registry.example/ascend/vllm-ascend:v0.13.0-a3": "sha256:1f2e"}
containers:
  description: The deployment's containers that run; none if the Docker Engine does not answer.
  returned: without O(revision)
  type: list
  elements: dict
  sample: [{name: pd-decode1, role: decoder, image: "sha256:1f2e", hash: 3f0c3a9f0e5d2b11}]
front:
  description: SHA-256 of the front's configuration; empty without a front.
  returned: without O(revision)
  type: str
drained:
  description: Whether the server is V(drained), or V(stopped) besides; empty if it is in service.
  returned: without O(revision)
  type: str
"""

from ..module_utils._module import run
from ..module_utils._serving import history


def main() -> None:
    run(history.INFO_ARGUMENTS, history.info)


if __name__ == "__main__":
    main()
