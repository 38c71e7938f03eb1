#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: router_modules_unpack
short_description: Unpack the wheels of a router on its server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to M(ascend.pd_rollout.router_modules), which brings the wheels between the last two stages.
  - The wheels are compared with their hashes and unpacked into a draft beside the directory, which is then
    renamed, so that the directory is complete or absent. It is accessible to root alone.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.server
options:
  path:
    description: The directory for the modules, directly in the directory of a deployment.
    type: str
    required: true
  wheels:
    description: File names of the wheels with their SHA-256, by architecture.
    type: dict
    required: true
  stage:
    description: V(look) tells whether the directory is complete; V(begin) prepares a draft if it is not;
      V(finish) unpacks the wheels that have come into the draft.
    type: str
    choices: [look, begin, finish]
    required: true
"""

EXAMPLES = r"""
- name: Look for the modules of the router
  ascend.pd_rollout.router_modules_unpack:
    path: /etc/pd_rollout/pd/vllm-router-0.1.17-11ab482bc9d3
    wheels: "{{ pd_plan.hosts[inventory_hostname].proxy.runtime.wheels }}"
    stage: look
"""

RETURN = r"""
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
complete:
  description: Whether the directory was made from these wheels.
  returned: success
  type: bool
machine:
  description: The architecture of the server.
  returned: success
  type: str
  sample: aarch64
incoming:
  description: The directory into which the wheels must come; empty if none are needed.
  returned: success
  type: str
"""

from ..module_utils._module import run
from ..module_utils._serving import router_modules


def main() -> None:
    run(router_modules.ARGUMENTS, router_modules.work)


if __name__ == "__main__":
    main()
