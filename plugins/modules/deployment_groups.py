#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_groups
short_description: Determine which containers must stop before a deployment starts
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(_container).
  - An action that runs on the controller. One task with C(run_once) handles all servers. It reads the results
    of M(ascend.pd_rollout.deployment_info) for each of them.
  - The nodes of an instance form one group when they start, and none can join it later. If one of them is
    missing, differs from the plan, or was started after its group formed, all of them are stopped.
  - Fails if such a group has nodes on servers outside this run, because it could not form.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.looks
"""

EXAMPLES = r"""
- name: Inspect the deployment
  ascend.pd_rollout.deployment_info:
    deployment: pd
    roles: [prefiller, decoder]
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
  register: deployed

- name: Determine which containers must stop
  ascend.pd_rollout.deployment_groups:
    servers: "{{ ansible_play_hosts }}"
    result: deployed
  run_once: true
  register: groups
"""

RETURN = r"""
stop:
  description: The running containers to stop before any is started, by server.
  returned: success
  type: dict
  sample: {prefill1: [pd-prefiller], prefill2: [pd-prefiller]}
settled:
  description: Whether M(ascend.pd_rollout.deployment_info) reports it of all servers, and RV(stop) is empty.
  returned: success
  type: bool
findings:
  description: One for each group that cannot be started, with code, servers, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
reasons:
  description: The reasons, as shown on the screen.
  returned: success
  type: list
  elements: str
  sample: ["All nodes of prefiller are stopped and started together. prefill1: its container is exited."]
"""
