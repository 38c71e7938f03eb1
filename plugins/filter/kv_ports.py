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
  - Gives every instance its C(kv_port), the base plus 100 for every chip before its first one, as the plan
    does for instances without C(pd_kv_port). So no port changes when other instances are added or removed.
  - Instances with names of servers have different ports on a server that they share. Where these would meet,
    as with different chips on the servers of one instance, the later in the list has the next free place. The
    plan orders prefillers before decoders, and each by name; it also avoids other ports of the server.
  - The base is above the range from which AscendDirectTransport chooses ports at random. The range depends on
    the number of chips of a server.
positional: chips, release
options:
  _input:
    description:
      - Number of nodes of each instance, by its name. Each is alone on its servers.
      - Or a list of instances, each with C(name), C(nodes), which is a number or a list of the names of its
        servers, and C(chips), which it uses on each of them, as in C(pd_chips); all chips by default.
    type: raw
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
- name: Show the ports of a prefiller on two nodes and a decoder on one, on servers of their own
  ansible.builtin.debug:
    msg: "{{ {'prefiller': 2, 'decoder': 1} | ascend.pd_rollout.kv_ports }}"
  # => {"prefiller": 36100, "decoder": 36100}

- name: Show the same on servers with 8 chips
  ansible.builtin.debug:
    msg: "{{ {'prefiller': 2, 'decoder': 1} | ascend.pd_rollout.kv_ports(chips=8) }}"
  # => {"prefiller": 28100, "decoder": 28100}

- name: Show the ports of a prefiller and a decoder that share a server
  ansible.builtin.debug:
    msg: "{{ shared | ascend.pd_rollout.kv_ports }}"
  vars:
    shared:
      - {name: prefiller, nodes: [server1], chips: 0-7}
      - {name: decoder, nodes: [server1], chips: 8-15}
  # => {"prefiller": 36100, "decoder": 36900}
"""

RETURN = r"""
_value:
  description: The port of each instance, by its name.
  type: dict
"""

from typing import Any

from ..plugin_utils._filters import GivenInstance, count, given_instances, guarded, known_release
from ..plugin_utils.rollout.kv_ports import Wanted, first_ports
from ..plugin_utils.rollout.variables import DEFAULT_RELEASE, MAX_CHIPS_PER_NODE


class FilterModule:
    """KV ports."""

    def filters(self) -> dict[str, Any]:
        return {"kv_ports": kv_ports}


@guarded
def kv_ports(instances: Any, chips: Any = 16, release: Any = DEFAULT_RELEASE) -> dict[str, int]:
    data, number = known_release(release), count("chips", chips, MAX_CHIPS_PER_NODE)
    given = given_instances(instances)
    wanted = [_wanted(one, data.kv_base(number), number) for one in given]
    ports = first_ports(wanted, limit=data.hccl_base)
    return {one.name: port for one, port in zip(given, ports, strict=True)}


def _wanted(one: GivenInstance, base: int, number: int) -> Wanted:
    chips = one.chips or tuple(range(number))
    spans = tuple(
        (server, (rank * len(chips), (rank + 1) * len(chips) - 1)) for rank, server in enumerate(one.servers)
    )
    return Wanted(base, chips[0], spans)
