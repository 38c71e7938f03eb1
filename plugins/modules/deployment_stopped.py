#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_stopped
short_description: Report what stands where after a change has stopped
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(rollout).
  - Always fails. Its message has the failure that stopped the change, what serves, what has been changed,
    what has not, and how to go on.
  - An action that runs on the controller. It reads the results of M(ascend.pd_rollout.deployment_info).
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.looks
  - ascend.pd_rollout.options.plan
options:
  step:
    description: The step that has failed.
    type: str
    required: true
  why:
    description: The message of what has failed.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Report what stands where
  ascend.pd_rollout.deployment_stopped:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts_all }}"
    result: container_found
    step: "2 of 3: make anew decode1"
    why: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
findings:
  description: The finding with what stands where, and how to go on.
  returned: always
  type: list
  elements: dict
"""
