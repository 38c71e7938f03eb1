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
  - Lists the containers on this server that have the deployment's label, as reported by the Docker Engine,
    and finds those that are not in the plan and the planned instances that are not running as planned.
  - Compares the files of the planned containers in the same call.
  - A node of an instance that was started after its group formed is not as planned although it runs, nor is
    a proxy whose list of backends has been changed.
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
    description: Values of the label C(pd_rollout.role) to include. Other containers of the deployment are
      not listed.
    type: list
    elements: str
    required: true
  planned:
    description: The slices of the plan for this server. The keys C(container), C(image), C(labels),
      C(script), C(script_path), C(secret_path), C(ready), C(runtime), C(health_url) and C(expected) of each
      are read;
      C(script_digest), the SHA-256 of the script, may replace C(script).
    type: list
    elements: dict
    default: []
  kept:
    description: Names of containers that are neither in O(planned) nor strays, such as those that another
      step of a change is about.
    type: list
    elements: str
    default: []
  directory:
    description:
      - The deployment's directory on the server. It must be below a directory that does not belong to the
        operating system, must not be a link, and only root may write to it and to the directories above it.
        The files of O(planned) must be directly in it. Otherwise the module fails, so that a role that calls
        it first changes nothing.
    type: str
  secret_digest:
    description: SHA-256 of the content that the files at C(secret_path) must have.
    type: str
    default: ""
  front:
    description: The front of this server in the plan, C(front) of what the filter C(front_digests) returns.
      Without one, the result only says whether there is a front of an earlier plan.
    type: dict
  front_digests:
    description: SHA-256 of the front's files by their names, C(digests) of what that filter returns.
    type: dict
    default: {}
  guard:
    description: The guard of this server in the plan as the filter C(guard_digests) returns it, empty if the
      plan has none. If it is omitted, the result only says whether there is one.
    type: dict
  require_engine:
    description: Whether it is an error if no Docker Engine answers. In check mode it never is.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Inspect the deployment on this server
  ascend.pd_rollout.deployment_info:
    deployment: pd
    roles: [prefiller, decoder]
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
  register: deployed
"""

RETURN = r"""
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
strays:
  description: Containers of the deployment that the plan does not have on this server.
  returned: always
  type: list
  elements: dict
  sample: [{name: pd-decode2, image: "sha256:0123", scripts: [/etc/pd_rollout/pd/decode2.sh]}]
running:
  description: Names of the planned containers that are running or restarting.
  returned: always
  type: list
  elements: str
  sample: [pd-decode1]
broken:
  description: Instances whose part on this server is missing, stopped, restarting or different from the
    plan.
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
      description: The instance to which the node belongs.
      type: str
      returned: always
      sample: prefiller
    group:
      description: The servers of the instance by rank; empty if it has only one.
      type: list
      elements: str
      returned: always
      sample: [prefill1, prefill2]
    why:
      description: How it differs from the plan; empty if it does not.
      type: str
      returned: always
      sample: its container is exited
    mend:
      description: What makes it as planned, V(make) it anew or V(restart) it; empty if it is.
      type: str
      returned: always
    started_at:
      description: Its last start according to the Docker Engine, if it runs as in this plan.
      type: str
      returned: always
    noted:
      description: Whether its last start by a rollout is recorded, as
        M(ascend.pd_rollout.deployment_record) does.
      type: bool
      returned: always
    pending:
      description: Whether it must be created, started, or have its restart policy changed.
      type: bool
      returned: always
    generation:
      description: ID of that rollout, the same on all nodes of a group.
      type: str
      returned: always
    answers:
      description: Whether it runs as planned and its health checks answer.
      type: bool
      returned: always
containers:
  description: The deployment's engines on this server, from whichever plan they were made.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: pd-decode1, instance: decode1, role: decoder, state: running, up: true, image: "sha256:1f2e",
       other_image: false, release: v0.13.0, version: 3f0c3a9f0e5d2b11, chips: [0, 1],
       apis: ["198.51.100.13:8004"]}
drained:
  description: Whether the server is V(drained), or V(stopped) besides; empty if it is in service.
  returned: always
  type: str
routers_up:
  description: The routers that run on this server, with the hash of what each was made from.
  returned: always
  type: list
  elements: dict
  sample: [{name: pd-router-blue, hash: 3f0c3a9f0e5d2b11}]
revision:
  description: The record of the newest revision on this server; none if there is none. See
    M(ascend.pd_rollout.revision_record).
  returned: always
  type: dict
weights:
  description: SHA-256 of the file C(SHA256SUMS) beside the weights; empty without one.
  returned: always
  type: str
lists:
  description: The APIs that the router of this server lists; none if no router runs here. With a front, of
    the router that gets the requests.
  returned: always
  type: dict
  sample: {prefillers: ["198.51.100.11:8004"], decoders: ["198.51.100.13:8004"]}
front:
  description: The front, if O(roles) includes V(proxy) and O(directory) is set.
  returned: always
  type: dict
  contains:
    present:
      description: Whether there are files of a front.
      type: bool
      returned: success
    missing:
      description: Packages that it needs and that are not installed.
      type: list
      elements: str
      returned: success
      sample: [haproxy]
    active:
      description: The router that gets the requests.
      type: str
      returned: success
      sample: blue
    closed:
      description: Why the guard has it answer 503; empty if it does not. A rollout opens it.
      type: str
      returned: success
      sample: ""
    outdated:
      description: Its files and its unit where they differ from the plan.
      type: list
      elements: str
      returned: success
      sample: [haproxy.cfg]
    settled:
      description: Whether there is nothing to change.
      type: bool
      returned: always
guard:
  description: The guard, if O(directory) is set.
  returned: always
  type: dict
  contains:
    present:
      description: Whether there are a unit or files of a guard.
      type: bool
      returned: success
    outdated:
      description: Its files and its unit where they differ from the plan.
      type: list
      elements: str
      returned: success
      sample: [pd-guard.pyz]
    active:
      description: Whether it runs.
      type: bool
      returned: success
    settled:
      description: Whether there is nothing to change.
      type: bool
      returned: always
    status:
      description: What it has said of itself last; none if it has not.
      type: dict
      returned: success
    secret_id:
      description: A digest by which the secrets of several servers can be compared; empty without one.
      type: str
      returned: success
routers:
  description: The choice between the two routers behind a front; none without a front. All other results
    are about the one that is to serve.
  returned: always
  type: dict
  contains:
    serve:
      description: The router that is to get the requests.
      type: str
      returned: always
      sample: green
    active:
      description: The router that gets them now; none if nothing does.
      type: str
      returned: always
      sample: blue
    retire:
      description: Containers of routers that are not to serve, and run. They end after the switch.
      type: list
      elements: dict
      returned: always
    leftovers:
      description: Directories that only they use.
      type: list
      elements: str
      returned: always
settled:
  description: Whether there is nothing to change on this server, and its health checks answer.
  type: bool
  returned: always
leftovers:
  description: Directories of routers' modules in O(directory) that are not in the plan, if O(roles) includes
    C(proxy).
  returned: always
  type: list
  elements: str
  sample: [/etc/pd_rollout/pd/vllm-router-0.1.17-11ab482bc9d3]
outdated:
  description: Files and directories of the planned containers that are missing or differ from the plan.
  returned: always
  type: list
  elements: str
  sample: [/etc/pd_rollout/pd/decode1.sh]
key_ids:
  description: For each C(secret_path) a random name for its content, which is also in the label
    C(pd_rollout.key) and in a file beside it. It stays the same until the content changes.
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
