#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: revision_plan
short_description: Return the plan of a revision
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the playbook C(rollback.yml).
  - An action that runs on the controller. One task with C(run_once) handles all servers.
  - The result is used as that of M(ascend.pd_rollout.plan). Servers of the inventory for which the plan has
    nothing get an empty part of it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
options:
  choice:
    description: The result of M(ascend.pd_rollout.revision_choice).
    type: dict
    required: true
  result:
    description: Name of the variable in which the server that has the plan has registered it, if the
      controller does not have it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Take the plan of the chosen revision
  ascend.pd_rollout.revision_plan:
    choice: "{{ rollback_choice }}"
    result: rollback_read
  run_once: true
  register: pd_plan
"""

RETURN = r"""
hash:
  description: SHA-256 of the plan's content. All other keys of the plan are there as well.
  returned: success
  type: str
revision:
  description: The number of the revision.
  returned: success
  type: int
  sample: 4
findings:
  description: Why the plan cannot be used, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""
