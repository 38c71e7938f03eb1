#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_targets
short_description: Choose the ports that each server tests on the others
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(host_check).
  - An action that runs on the controller. One task with C(run_once) serves all servers. From the plan and the
    results of M(ascend.pd_rollout.host_check) it computes every server's targets for
    M(ascend.pd_rollout.host_reach).
  - A server tests the ports that it will use when the deployment runs. The proxy tests the APIs, the nodes of
    an instance test its head's master and RPC ports, decoders test the prefillers' handshake ports (or the
    reverse), and peers test both ends of the ranges from which HCCL and Mooncake pick ports.
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
- name: Choose the ports to test
  ascend.pd_rollout.host_targets:
    plan: "{{ pd_plan }}"
    servers: "{{ ansible_play_hosts_all }}"
    result: result
  run_once: true
  register: reach
"""

RETURN = r"""
targets:
  description: The ports that each server tests.
  type: dict
  returned: always
  sample: {decode1: [{server: prefill1, address: 10.0.0.11, port: 36100}]}
count:
  description: The number of connections.
  type: int
  returned: always
  sample: 58
"""
