# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Ids, ports and ranks by hand-counted examples."""

from __future__ import annotations

import doctest

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import handshakes, topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.model import Parallel
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.ports import reserved


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(topology).failed == 0
    assert doctest.testmod(handshakes).failed == 0


@pytest.mark.parametrize(
    ("parallel", "node", "nodes", "first", "last"),
    [
        (Parallel(tensor=16, prefill_context=2), 0, 2, 30000, 30015),
        (Parallel(tensor=16, prefill_context=2), 1, 2, 30016, 30031),
        (Parallel(tensor=8, data=2), 0, 1, 30000, 30015),
        (Parallel(tensor=4, data=8), 1, 2, 30016, 30031),
        (Parallel(tensor=4, pipeline=2), 0, 1, 30000, 30007),
    ],
)
def test_handshake_ports(parallel: Parallel, node: int, nodes: int, first: int, last: int) -> None:
    ports = handshakes.handshake_ports(30000, parallel, node, nodes)
    assert (ports[0], ports[-1]) == (first, last)


def test_decode_context_adds_no_chips() -> None:
    assert Parallel(tensor=16, prefill_context=2, decode_context=8).world_size == 32


def test_ports_to_reserve_are_joined() -> None:
    rows = [
        {"first": 8005, "last": 8005, "bound": True, "purpose": "proxy"},
        {"first": 8004, "last": 8004, "bound": True, "purpose": "API"},
        {"first": 15000, "last": 17000, "bound": False, "purpose": "Mooncake RPC (random)"},
        {"first": 60000, "last": 60031, "bound": False, "purpose": "HCCL"},
    ]
    assert reserved(rows) == "8004-8005,60000-60031"
