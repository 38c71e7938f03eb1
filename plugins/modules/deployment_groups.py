#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_groups
short_description: Decide which containers of a deployment are stopped before it is started
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(container).
  - An action that runs on the controller. One task with C(run_once) serves all servers. It reads what
    M(ascend.pd_rollout.deployment_info) has found on each of them.
  - The nodes of an instance form one group when they start, and none can join it later. Where one of them is
    missing, is not as planned, or has been started since its group formed, all of them are stopped.
  - Fails where such a group has nodes on servers that are not in this run, since it could not form.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.deployment_info)
      is registered.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Look at what is deployed
  ascend.pd_rollout.deployment_info:
    deployment: pd
    roles: [prefiller, decoder]
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
  register: deployed

- name: Decide what is to be stopped
  ascend.pd_rollout.deployment_groups:
    servers: "{{ ansible_play_hosts }}"
    result: deployed
  run_once: true
  register: groups
"""

RETURN = r"""
stop:
  description: By server, the running containers that are to be stopped before any is started.
  returned: success
  type: dict
  sample: {prefill1: [pd-prefiller], prefill2: [pd-prefiller]}
reasons:
  description: Why, as it is shown on the screen.
  returned: success
  type: list
  elements: str
  sample: ["All nodes of prefiller are stopped and started together. prefill1: its container is exited."]
"""
