# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Computed KV ports: from the chips of an instance, and clear of everything else on its servers."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import inventory, kv_ports, topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.kv_ports import Wanted, first_ports
from planner_inventories import many, small

NEWEST = {"pd_release": "v0.23.0", "pd_image": ...}


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(kv_ports).failed == 0


def wanted(chip: int, host: str = "a", count: int = 8, **more: Any) -> Wanted:
    return Wanted(30000, chip, ((host, (0, count - 1)),), **more)


@pytest.mark.parametrize(
    ("instances", "ports"),
    [
        ([], []),
        ([wanted(0, "a"), wanted(0, "b"), wanted(0, "c")], [30000, 30000, 30000]),
        ([wanted(0), wanted(8)], [30000, 30800]),
        ([wanted(8), wanted(0)], [30800, 30000]),
        # The same first chip, as no valid inventory has: the later moves, and nobody gives way to it.
        ([wanted(0), wanted(0), wanted(1)], [30000, 30200, 30100]),
        # 120 ports reach into the next chip's.
        ([wanted(0, count=120), wanted(1)], [30000, 30200]),
        # A port that is set stays, and is avoided.
        ([wanted(0), wanted(8, pinned=30007)], [30100, 30007]),
        ([wanted(0), wanted(8, pinned=30008)], [30000, 30008]),
    ],
)
def test_each_has_the_port_of_its_chips(instances: list[Wanted], ports: list[int]) -> None:
    assert first_ports(instances) == ports


@pytest.mark.parametrize(
    ("taken", "limit", "port"),
    [
        ([(30008, 30008)], 60000, 30000),
        ([(30007, 30007)], 60000, 30100),
        ([(30000, 30100)], 60000, 30200),
        # No hundred is free below the limit, but other ports are.
        ([(30004, 30010)], 30100, 30011),
        # None is free below it.
        ([(30000, 30099)], 30100, 30100),
        # None is free at all, which a rule reports.
        ([(1, 65535)], 60000, 30000),
    ],
)
def test_other_ports_of_the_server_are_avoided(taken: list[tuple[int, int]], limit: int, port: int) -> None:
    assert first_ports([wanted(0)], {"a": taken}, limit) == [port]


def test_decoders_that_count_keep_their_distance() -> None:
    """The same port as a prefiller on several servers, or at least as many from it as it has ranks."""
    spread = Wanted(30000, 0, (("a", (0, 127)),), spread=128)
    assert first_ports([spread, wanted(0, "b", counts=True)]) == [30000, 30000]
    assert first_ports([spread, wanted(1, "b", counts=True)]) == [30000, 30200]
    assert first_ports([spread, wanted(1, "b", counts=True, pinned=30100)]) == [30100, 30100]


def ports(raw: Any) -> dict[str, int]:
    return {one.name: one.kv_port for one in topology.build(inventory.read(raw)[0]).instances}


@pytest.mark.parametrize(
    ("raw", "prefiller"),
    [
        (small(), 36100),
        (small({"pd_master_port": 36105}), 36200),
        (small({"pd_engine_env": {"VLLM_PORT": "36100"}}), 36200),
        (small({"pd_engine_env": {"HCCL_IF_BASE_PORT": "36090"}}), 36200),
        (small({**NEWEST, "pd_engine_env": {"ASCEND_BASE_PORT": "30000"}}), 46100),
    ],
    ids=["alone", "another listener", "vLLM's own", "HCCL", "a moved range"],
)
def test_what_else_is_on_the_server(raw: Any, prefiller: int) -> None:
    assert ports(raw)["prefiller"] == prefiller


def test_a_decoder_gives_way_to_a_port_that_is_set() -> None:
    assert ports(small(NEWEST, {"pd_kv_port": 36120})) == {"prefiller": 36120, "decoder": 36200}
    assert ports(small({}, {"pd_kv_port": 36120})) == {"prefiller": 36120, "decoder": 36100}


def test_chips_decide_wherever_they_are() -> None:
    own = {"pd_parallel": {"tensor": 4}}
    raw = many(
        {
            "prefiller": [
                ("p1", ["a"], {**own, "pd_chips": "4-7"}),
                ("p2", ["b"], {**own, "pd_chips": "0-3"}),
            ],
            "decoder": [
                ("d1", ["a"], {**own, "pd_chips": "12-15", "pd_api_port": 8104}),
                ("d2", ["b", "c"], {"pd_parallel": {"tensor": 8}, "pd_chips": "8-11", "pd_api_port": 8104}),
            ],
        }
    )
    assert ports(raw) == {"p1": 36500, "p2": 36100, "d1": 37300, "d2": 36900}
