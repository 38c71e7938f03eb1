# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Ports at their limits: the last that does, and the first that does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import inventory, topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.ports import HCCL, port_ranges
from planner_inventories import codes, findings, many, small

FIRST, SECOND, LATEST = "v0.13.0", "v0.18.0", "v0.23.0"


def limited(env: Mapping[str, Any], release: str = FIRST, **variables: Any) -> set[str]:
    """The codes about ports of a pair on two servers with eight ranks each."""
    pair = {"pd_parallel": {"tensor": 8}, "pd_chips": "0-7", "pd_profile": "generic"}
    raw = many(
        {"prefiller": [("p", ["a"], pair)], "decoder": [("d", ["b"], pair)]},
        everywhere={
            "pd_release": release,
            "pd_image": f"registry.example/vllm-ascend:{release}-a3",
            "pd_engine_env": dict(env),
            **variables,
        },
    )
    return {code for code in codes(raw) if code.startswith("PD3")} - {"PD304"}


@pytest.mark.parametrize(
    ("env", "broken"),
    [
        ({"HCCL_IF_BASE_PORT": 1023}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": 1024}, set()),
        ({"HCCL_IF_BASE_PORT": "65520"}, set()),
        ({"HCCL_IF_BASE_PORT": "65521"}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": "65530"}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": "99999999999"}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": "auto"}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": ""}, set()),
        ({"HCCL_IF_BASE_PORT": "$BASE", "BASE": "65521"}, {"PD305"}),
        ({"HCCL_IF_BASE_PORT": "$FROM_THE_IMAGE"}, set()),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "auto"}, set()),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "60000,60050-60100, 60150-60160"}, set()),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "60000-65535"}, set()),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "60000-65536"}, {"PD305"}),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "60050-60000"}, {"PD305"}),
        ({"HCCL_NPU_SOCKET_PORT_RANGE": "1"}, set()),
        ({"HCCL_NPU_SOCKET_PORT_RANGE": "0"}, {"PD305"}),
        ({"HCCL_NPU_SOCKET_PORT_RANGE": "16666-16700,16700-16710"}, {"PD305"}),
        ({"HCCL_NPU_SOCKET_PORT_RANGE": "16666:16700"}, {"PD305"}),
        ({"MC_MIN_PRC_PORT": 17000}, set()),
        # Only one of them, and the other is Mooncake's own.
        ({"MC_MIN_PRC_PORT": 17001}, {"PD305"}),
        ({"MC_MAX_PRC_PORT": 14999}, {"PD305"}),
        ({"MC_MIN_PRC_PORT": 18000, "MC_MAX_PRC_PORT": 19000}, set()),
        ({"MC_MIN_PRC_PORT": 19000, "MC_MAX_PRC_PORT": 18000}, {"PD305"}),
        ({"MC_MAX_PRC_PORT": 65535}, {"PD302"}),
        ({"MC_MAX_PRC_PORT": 65536}, {"PD307"}),
        ({"MC_MIN_PRC_PORT": "0"}, {"PD307"}),
        ({"MC_MIN_PRC_PORT": "x"}, {"PD307"}),
        ({"VLLM_PORT": "9000"}, set()),
        ({"VLLM_PORT": "tcp://10.0.0.1:80"}, {"PD305"}),
        ({"VLLM_PORT": "65536"}, {"PD305"}),
        ({"VLLM_PORT": "65535"}, set()),
        ({"VLLM_PORT": "8004"}, {"PD307"}),
        ({"VLLM_PORT": "8003"}, set()),
        ({"VLLM_DP_MASTER_PORT": "tcp://10.0.0.1:80"}, {"PD305"}),
        ({"VLLM_DP_MASTER_PORT": "5000"}, set()),
        # Nobody reads it at this release.
        ({"ASCEND_BASE_PORT": "60000"}, set()),
    ],
)
def test_ports_of_the_environment(env: dict[str, Any], broken: set[str]) -> None:
    assert limited(env) == broken


@pytest.mark.parametrize(
    ("release", "env", "broken"),
    [
        # Eight chips of 1000 ports each, both ends included.
        (SECOND, {"ASCEND_BASE_PORT": 57535}, {"PD303"}),
        (SECOND, {"ASCEND_BASE_PORT": 57536}, {"PD303", "PD305"}),
        (SECOND, {"ASCEND_BASE_PORT": 0}, {"PD305"}),
        (SECOND, {"ASCEND_BASE_PORT": 1}, set()),
        (LATEST, {"ASCEND_BASE_PORT": "base"}, {"PD307"}),
        (LATEST, {"MC_MIN_PRC_PORT": 19000, "MC_MAX_PRC_PORT": 18000}, {"PD307"}),
        (LATEST, {"MC_MIN_RPC_PORT": 18000, "MC_MAX_RPC_PORT": 19000}, set()),
        (LATEST, {"MC_MIN_RPC_PORT": 32767, "MC_MAX_RPC_PORT": 32767}, set()),
        (LATEST, {"MC_MIN_RPC_PORT": 18000, "MC_MAX_RPC_PORT": 32768}, {"PD307"}),
        (LATEST, {"MC_MIN_RPC_PORT": 60999, "MC_MAX_RPC_PORT": 62000}, {"PD307"}),
        (LATEST, {"MC_MIN_RPC_PORT": 61000, "MC_MAX_RPC_PORT": 62000}, set()),
        (LATEST, {"MC_MIN_RPC_PORT": 1023}, {"PD307"}),
    ],
)
def test_ports_that_later_releases_read(release: str, env: dict[str, Any], broken: set[str]) -> None:
    assert limited(env, release) - {"PD302", "PD303"} == broken - {"PD303"}


@pytest.mark.parametrize(
    ("variables", "broken"),
    [
        ({"pd_kv_port": 65528}, False),
        ({"pd_kv_port": 65529}, True),
        ({"pd_api_port": 65535}, False),
        ({"pd_api_port": 65534, "pd_dp_mode": "external", "pd_parallel": {"tensor": 4, "data": 2}}, False),
        ({"pd_api_port": 65535, "pd_dp_mode": "external", "pd_parallel": {"tensor": 4, "data": 2}}, True),
    ],
)
def test_planned_ports_and_what_follows_them(variables: dict[str, Any], broken: bool) -> None:
    own = {"pd_parallel": {"tensor": 8}, "pd_chips": "0-7", "pd_profile": "generic", **variables}
    raw = many({"prefiller": [("p", ["a"], own)], "decoder": [("d", ["b"], own)]})
    assert ("PD305" in codes(raw)) is broken


def test_ports_of_all_chips_count() -> None:
    """A server of 32 chips: the last of them has the last port."""
    own = {"pd_parallel": {"tensor": 32}, "pd_chips_per_node": 32, "pd_profile": "generic"}
    for base, broken in ((65504, False), (65505, True)):
        env = {"pd_engine_env": {"HCCL_IF_BASE_PORT": base}}
        raw = many({"prefiller": [("p", ["a"], own)], "decoder": [("d", ["b"], own)]}, everywhere=env)
        found = [f for f in findings(raw) if f.code == "PD305"]
        assert bool(found) is broken
        assert all(f.expected == "at most 65504" for f in found)


def test_hccl_has_the_ports_that_it_is_given() -> None:
    def hccl(**env: str) -> list[tuple[int, int]]:
        plan = planner.make(small({"pd_engine_env": env})).to_dict()
        return [(row["first"], row["last"]) for row in plan["hosts"]["d1"]["ports"] if row["purpose"] == HCCL]

    assert hccl() == [(60000, 60031)]
    assert hccl(HCCL_IF_BASE_PORT="50000") == [(50000, 50031)]
    assert hccl(HCCL_IF_BASE_PORT="65520") == [(65520, 65535)]
    assert hccl(HCCL_IF_BASE_PORT="50000", HCCL_HOST_SOCKET_PORT_RANGE="61000,61050-61060") == [
        (61000, 61000),
        (61050, 61060),
    ]
    assert hccl(HCCL_HOST_SOCKET_PORT_RANGE="auto") == []
    assert hccl(HCCL_HOST_SOCKET_PORT_RANGE="") == [(60000, 60031)]
    # Another's port in them is an error as it is in its own.
    assert "PD303" in codes(small({"pd_engine_env": {"HCCL_HOST_SOCKET_PORT_RANGE": "8000-8010"}}))


@pytest.mark.parametrize("text", ["60000-", "-60000", "1-2-3", "a", "1,,2", ",", "1.5", "1;2"])
def test_what_is_no_range(text: str) -> None:
    assert port_ranges(text) is None


@pytest.mark.parametrize(
    ("release", "base", "kv_port"),
    [
        ("v0.13.0", "30000", 36100),  # which it does not read
        ("v0.18.0", "30000", 46100),
        ("v0.23.0", "30050", 46200),
        ("v0.18.0", "10000", 36100),
        ("v0.18.0", "43900", 36100),  # no room below HCCL's
        ("v0.18.0", "$BASE", 36100),
        ("v0.18.0", "many", 36100),
    ],
)
def test_kv_ports_give_way_to_a_moved_range(release: str, base: str, kv_port: int) -> None:
    raw = small({"pd_release": release, "pd_image": ..., "pd_engine_env": {"ASCEND_BASE_PORT": base}})
    assert topology.build(inventory.read(raw)[0]).instances[0].kv_port == kv_port
