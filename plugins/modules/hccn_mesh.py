#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hccn_mesh
short_description: Choose which chips ping which
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(hccn_check).
  - An action that runs on the controller. One task with C(run_once) serves all servers. From the results of
    M(ascend.pd_rollout.hccn_check) it computes each server's targets for
    M(ascend.pd_rollout.hccn_ping).
  - Chips without an address, and pairs of servers in different super pods, are left out. They already have
    a finding.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  mesh:
    description:
      - V(full) pings from every chip to every chip of the other servers.
      - V(pairs) pings from every chip to the chip with the same id on every other server.
      - V(ring) pings from every chip to the chip with the same id on two neighbours, so the number of pings
        of a chip does not grow with the number of servers.
      - V(none) pings nothing.
    type: str
    choices: [none, ring, pairs, full]
    default: ring
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.hccn_check) is
      registered.
    type: str
    required: true
  timeout:
    description: Timeout of one ping, in seconds, for RV(pings).
    type: float
    default: 10.0
  hccn_tool:
    description: Path of C(hccn_tool) on the servers, for RV(pings).
    type: str
    default: /usr/local/Ascend/driver/tools/hccn_tool
"""

EXAMPLES = r"""
- name: Choose which chips ping which
  ascend.pd_rollout.hccn_mesh:
    servers: "{{ ansible_play_hosts }}"
    result: result
    mesh: ring
  run_once: true
  register: mesh

- name: Ping the chips of other servers
  ascend.pd_rollout.hccn_ping:
    kind: "{{ mesh.kind }}"
    targets: "{{ mesh.targets[inventory_hostname] | default({}) }}"
  become: true
  register: ping
"""

RETURN = r"""
mesh:
  description: The mesh, as given in O(mesh).
  type: str
  returned: always
  sample: ring
kind:
  description: The kind of ping that the fabric needs, C(hccs_ping) or C(ping).
  type: str
  returned: always
  sample: hccs_ping
targets:
  description: The addresses to ping, by server and chip.
  type: dict
  returned: always
  sample:
    decode1:
      "0": [192.168.2.199]
pings:
  description: By server, the options of M(ascend.pd_rollout.hccn_ping), for M(ascend.pd_rollout.host_reach).
  type: dict
  returned: always
  sample:
    decode1:
      kind: hccs_ping
      targets: {"0": [192.168.2.199]}
      timeout: 10.0
      hccn_tool: /usr/local/Ascend/driver/tools/hccn_tool
count:
  description: The number of pings.
  type: int
  returned: always
  sample: 96
"""
