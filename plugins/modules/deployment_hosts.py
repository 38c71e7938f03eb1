#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_hosts
short_description: Note which servers a deployment is launched on
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the playbooks.
  - An action that runs on the controller. It keeps the file C(deployed.json) beside the plan's files.
  - A server that is taken out of the inventory keeps its containers. By this file M(ascend.pd_rollout.plan)
    still knows it, and the report of the checks says so.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description: Add the servers, or take them out because nothing of the deployment is on them any longer.
    type: str
    choices: [present, absent]
    default: present
  plan:
    description: The plan, as a task of M(ascend.pd_rollout.plan) has registered it. For O(state=present).
    type: dict
  deployment:
    description: >-
      Name of the deployment of servers that have no C(pd_deployment). For O(state=absent), where there may be
      no valid plan.
    type: str
    default: pd
"""

EXAMPLES = r"""
- name: Note which servers it is launched on
  ascend.pd_rollout.deployment_hosts:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts }}"
  run_once: true
"""

RETURN = r"""
noted:
  description: Whether the file has changed. RV(ignore:changed) stays false, as no server has.
  returned: not in check mode
  type: bool
"""
