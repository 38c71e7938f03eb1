# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter handshake_ports: a thin wrapper around the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
name: handshake_ports
short_description: Handshake ports of one node of an instance
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Lists the ports that a producer opens on one of its nodes, one for each chip.
  - With C(MooncakeConnectorV1) only the producer opens them.
positional: parallel, node, nodes
options:
  _input:
    description: The instance's C(kv_port).
    type: int
    required: true
  parallel:
    description: The instance's C(pd_parallel).
    type: dict
    default: {}
  node:
    description: Rank of the node.
    type: int
    default: 0
  nodes:
    description: Number of nodes of the instance.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: Show the ports of the second of two nodes with four chips together
  ansible.builtin.debug:
    msg: "{{ 30000 | ascend.pd_rollout.handshake_ports(parallel, node=1, nodes=2) }}"
  vars:
    parallel: {tensor: 2, prefill_context: 2}
  # => [30002, 30003]

- name: Show the ports of the guide's first prefill node
  ansible.builtin.debug:
    msg: "{{ 30000 | ascend.pd_rollout.handshake_ports(parallel, nodes=2) | max }}"
  vars:
    parallel: {tensor: 16, prefill_context: 2}
  # => 30015

- name: Show the ports of an instance of two chips
  ansible.builtin.debug:
    msg: "{{ 36300 | ascend.pd_rollout.handshake_ports({'tensor': 2}) }}"
  # => [36300, 36301]
"""

RETURN = r"""
_value:
  description: The node's ports.
  type: list
  elements: int
"""

from typing import Any

from ..plugin_utils._filters import count, guarded
from ..plugin_utils.rollout import handshakes
from ..plugin_utils.rollout.values import port, read_parallel


class FilterModule:
    """Handshake ports."""

    def filters(self) -> dict[str, Any]:
        return {"handshake_ports": handshake_ports}


@guarded
def handshake_ports(kv_port: Any, parallel: Any = None, node: Any = 0, nodes: Any = 1) -> list[int]:
    total = count("nodes", nodes)
    rank = count("node", node, total - 1, low=0)
    return list(handshakes.handshake_ports(port(kv_port), read_parallel(parallel or {}), rank, total))
