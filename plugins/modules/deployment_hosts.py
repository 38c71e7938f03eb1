#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_hosts
short_description: Record the servers on which a deployment is launched
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the playbooks.
  - An action that runs on the controller. It maintains the file C(deployed.json) beside the plan's files.
  - A server that is removed from the inventory keeps its containers. From this file
    M(ascend.pd_rollout.plan) still knows the server, and the check report lists it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  state:
    description: Whether to add the servers, or remove them because the deployment has nothing left on them.
    type: str
    choices: [present, absent]
    default: present
  plan:
    description: The registered result of M(ascend.pd_rollout.plan). For O(state=present).
    type: dict
  deployment:
    description: >-
      Name of the deployment for servers without C(pd_deployment). For O(state=absent), when there may be no
      valid plan.
    type: str
    default: pd
"""

EXAMPLES = r"""
- name: Record the servers of the deployment
  ascend.pd_rollout.deployment_hosts:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts }}"
  run_once: true
"""

RETURN = r"""
noted:
  description: Whether the file has changed. RV(ignore:changed) stays false, because no server has changed.
  returned: not in check mode
  type: bool
"""
