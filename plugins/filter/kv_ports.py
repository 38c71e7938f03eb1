# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter kv_ports: a thin wrapper around the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kv_ports
short_description: KV ports of a cluster's instances
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Assigns every instance its C(kv_port), a base plus 100 for every node before it.
  - The base is above the range from which AscendDirectTransport chooses ports at random. The range depends on
    the number of chips of a server.
positional: chips, release
options:
  _input:
    description: Number of nodes of each instance, prefillers first.
    type: list
    elements: int
    required: true
  chips:
    description: Chips of one server.
    type: int
    default: 16
  release:
    description: Release of vllm-ascend.
    type: str
    default: v0.13.0
"""

EXAMPLES = r"""
- name: Show the ports of a prefiller on two nodes and a decoder on one
  ansible.builtin.debug:
    msg: "{{ [2, 1] | ascend.pd_rollout.kv_ports }}"
  # => [36100, 36300]

- name: Show the same on servers with 8 chips
  ansible.builtin.debug:
    msg: "{{ [2, 1] | ascend.pd_rollout.kv_ports(chips=8) }}"
  # => [28100, 28300]
"""

RETURN = r"""
_value:
  description: A port for each instance.
  type: list
  elements: int
"""

from typing import Any

from ..plugin_utils._filters import count, guarded, known_release, node_counts
from ..plugin_utils.rollout import topology
from ..plugin_utils.rollout.variables import DEFAULT_RELEASE, MAX_CHIPS_PER_NODE


class FilterModule:
    """KV ports."""

    def filters(self) -> dict[str, Any]:
        return {"kv_ports": kv_ports}


@guarded
def kv_ports(sizes: Any, chips: Any = 16, release: Any = DEFAULT_RELEASE) -> list[int]:
    data = known_release(release)
    base = data.kv_base(count("chips", chips, MAX_CHIPS_PER_NODE))
    return topology.kv_ports(node_counts(sizes), base, data.hccl_base)
