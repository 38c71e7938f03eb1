#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hccn_report
short_description: Evaluate the NPU network of all servers together
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller. One task with C(run_once) serves all servers. It reads the
    results of M(ascend.pd_rollout.hccn_check) and, if given, of M(ascend.pd_rollout.hccn_ping), compares
    the servers with each other, prints one table with all findings, worst first and grouped, and fails if
    there is an error among them.
  - It compares TLS, super pods, Server Indexes, SDIDs, vNIC and RoCE addresses and drivers between servers,
    and evaluates the pings.
  - A server without a result is reported as a finding. It does not hide the findings of others.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
  - ascend.pd_rollout.options.fail
options:
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.hccn_check) is
      registered.
    type: str
    required: true
  mesh:
    description: The mesh that was pinged, as given to M(ascend.pd_rollout.hccn_mesh).
    type: str
    choices: [none, ring, pairs, full]
    default: none
  pings:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.hccn_ping) is
      registered. Needed unless O(mesh=none).
    type: str
  plan:
    description:
      - The plan of M(ascend.pd_rollout.plan). With it, only failed pings between servers that must
        communicate with each other are errors.
      - Without it every failed ping is an error.
    type: dict
  show:
    description: Whether to print the report. V(false) if M(ascend.pd_rollout.check_report) prints it.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Check each server
  ascend.pd_rollout.hccn_check:
    fail: false
  become: true
  register: result

- name: Evaluate all servers together
  ascend.pd_rollout.hccn_report:
    servers: "{{ ansible_play_hosts_all }}"
    result: result
  run_once: true
"""

RETURN = r"""
ok:
  description: Whether there is no finding of severity C(error).
  type: bool
  returned: always
  sample: false
findings:
  description: All findings of all servers and pairs of servers, worst first.
  type: list
  elements: dict
  returned: always
  sample:
    - code: hccn-tls-differs
      severity: error
      host: decode1
      instance: null
      variable: null
      chips: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
      message: "decode1: TLS switch differs from prefill1, prefill2"
      seen: TLS switch 0 on prefill1, prefill2; TLS switch 1 on decode1
      expected: TLS switch 0 everywhere
      cure: for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do hccn_tool -i $i -tls -s enable 0; done
      source: "vllm-ascend v0.13.0, docs: PD disaggregation, Mooncake, multi-node: verify the environment"
fabric:
  description: The fabric that most servers report.
  type: str
  returned: always
  sample: hccs
chips:
  description: The number of chips that were queried.
  type: int
  returned: always
  sample: 48
pings:
  description: The number of pings that were tried.
  type: int
  returned: always
  sample: 96
table:
  description: A table with one line for each server.
  type: list
  elements: str
  returned: always
  sample: ["server  chips  link  vNIC  TLS", "decode1 16     UP    UP    0"]
report:
  description: The text that was printed.
  type: str
  returned: always
  sample: "HCCN check: 3 servers, 48 chips, HCCS: all good"
"""
