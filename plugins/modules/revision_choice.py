#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: revision_choice
short_description: Choose the revision of a deployment to go back to
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the playbooks C(rollback.yml) and C(history.yml).
  - An action that runs on the controller. One task with C(run_once) handles all servers. It reads the results
    of M(ascend.pd_rollout.revision_info) for each of them, and the controller's own revisions.
  - Fails with a list of the revisions if there is none with this number, and if the inventory lacks servers
    of the revision.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.revision_info) is
      registered.
    type: str
    required: true
  revision:
    description:
      - Number of the revision.
      - If empty, the newest one that is not what runs. After a change that failed that is the newest, as such
        a change is no revision; else it is the one before.
    type: str
    default: ""
  list_only:
    description: Only list the revisions.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Choose the revision
  ascend.pd_rollout.revision_choice:
    servers: "{{ ansible_play_hosts }}"
    result: rollback_found
    revision: "4"
  run_once: true
  register: rollback_choice
"""

RETURN = r"""
revisions:
  description: The records of all revisions, the newest last.
  returned: success
  type: list
  elements: dict
revision:
  description: The number of the chosen one.
  returned: success, without O(list_only)
  type: int
  sample: 4
at:
  description: The server that has it; empty if the controller does.
  returned: success, without O(list_only)
  type: str
  sample: proxy1
folder:
  description: Its folder on the controller, whether it is there or not.
  returned: success, without O(list_only)
  type: str
  sample: /home/operator/plans/atlas_a3_2p2d/history/0004
directory:
  description: The directory of the plan.
  returned: success, without O(list_only)
  type: str
  sample: /home/operator/plans/atlas_a3_2p2d
findings:
  description: Why there is nothing to go back to, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""
