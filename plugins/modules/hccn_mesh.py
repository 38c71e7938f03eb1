#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hccn_mesh
short_description: Say which chips shall ping which
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(hccn_check).
  - An action that runs on the controller. One task with C(run_once) serves all servers. From the results of
    M(ascend.pd_rollout.hccn_check) it makes the targets that each server gives to
    M(ascend.pd_rollout.hccn_ping).
  - Chips without an address, and pairs of servers in different super pods, are left out. They have a
    finding already.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  mesh:
    description:
      - V(full) is every chip to every chip of the other servers.
      - V(pairs) is every chip to the chip of the same id on every other server.
      - V(ring) is every chip to the chip of the same id on two neighbours, so the pings of a chip do not
        grow with the number of servers.
      - V(none) makes no targets.
    type: str
    choices: [none, ring, pairs, full]
    default: ring
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.hccn_check) is
      registered.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say who pings whom
  ascend.pd_rollout.hccn_mesh:
    servers: "{{ ansible_play_hosts }}"
    result: result
    mesh: ring
  run_once: true
  register: mesh

- name: Ping
  ascend.pd_rollout.hccn_ping:
    kind: "{{ mesh.kind }}"
    targets: "{{ mesh.targets[inventory_hostname] | default({}) }}"
  become: true
  register: ping
"""

RETURN = r"""
mesh:
  description: Who pings whom, as it was asked for.
  type: str
  returned: always
  sample: ring
kind:
  description: What the fabric needs, C(hccs_ping) or C(ping).
  type: str
  returned: always
  sample: hccs_ping
targets:
  description: For each server, for each of its chips, the addresses to ping.
  type: dict
  returned: always
  sample:
    decode1:
      "0": [192.168.2.199]
count:
  description: How many pings that makes.
  type: int
  returned: always
  sample: 96
"""
