#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_targets
short_description: Choose who tries which ports of whom
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(host_check).
  - An action that runs on the controller. One task with C(run_once) serves all servers. From the plan and the
    results of M(ascend.pd_rollout.host_check) it makes the targets of M(ascend.pd_rollout.host_reach) for
    every server.
  - A server tries the ports that it will use when the deployment runs. That is, the proxy the APIs, the nodes
    of an instance its head's master and RPC ports, decoders the prefillers' handshake ports (or the other way
    round), and peers both ends of the ranges that HCCL and Mooncake take ports from.
  - Servers without a result are left out.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.plan
  - ascend.pd_rollout.options.servers
options:
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.host_check) is
      registered.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Choose who tries which ports
  ascend.pd_rollout.host_targets:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts_all }}"
    result: result
  run_once: true
  register: reach
"""

RETURN = r"""
targets:
  description: By server, what it tries.
  type: dict
  returned: always
  sample: {decode1: [{server: prefill1, address: 10.0.0.11, port: 36100}]}
count:
  description: How many connections that is.
  type: int
  returned: always
  sample: 58
"""
