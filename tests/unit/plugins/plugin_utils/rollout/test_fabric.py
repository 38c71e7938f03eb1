# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Product and environment decide which network carries the traffic between servers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import many, small

A2 = {"pd_server": "atlas-a2", "pd_image": "registry.example/vllm-ascend:v0.13.0"}


def planned(**changes: Any) -> str:
    fabric: str = planner.make(small(**changes)).to_dict()["fabric"]
    return fabric


@pytest.mark.parametrize(
    ("environment", "fabric"),
    [
        ({}, "hccs"),
        ({"HCCL_INTER_HCCS_DISABLE": "FALSE", "HCCL_INTRA_ROCE_ENABLE": "0"}, "hccs"),
        ({"HCCL_INTER_HCCS_DISABLE": "TRUE"}, "roce"),
        ({"HCCL_INTER_HCCS_DISABLE": "true"}, "roce"),
        ({"HCCL_INTRA_ROCE_ENABLE": "1"}, "both"),
        ({"HCCL_INTRA_ROCE_ENABLE": 1}, "both"),
        ({"HCCL_INTER_HCCS_DISABLE": "TRUE", "HCCL_INTRA_ROCE_ENABLE": "1"}, "roce"),
        (
            {"ASCEND_GLOBAL_RESOURCE_CONFIG": '{"comm_resource_config.protocol_desc":["roce:device"]}'},
            "both",
        ),
        ({"ASCEND_GLOBAL_RESOURCE_CONFIG": '{"fabric_memory.max_capacity":32}'}, "hccs"),
    ],
)
def test_atlas_a3(environment: dict[str, Any], fabric: str) -> None:
    assert planned(everywhere={"pd_engine_env": environment}) == fabric


def test_without_instances_on_several_nodes_nothing_is_left_for_hccs() -> None:
    two = many(
        {
            "prefiller": [("prefiller", ["p1"], {"pd_parallel": {"tensor": 16}})],
            "decoder": [("decoder", ["d1"], {"pd_parallel": {"tensor": 16}})],
        },
        everywhere={"pd_engine_env": {"HCCL_INTRA_ROCE_ENABLE": "1"}},
    )
    assert planner.make(two).to_dict()["fabric"] == "roce"


def test_one_engine_decides_for_all() -> None:
    assert planned(decoder={"pd_engine_env": {"HCCL_INTRA_ROCE_ENABLE": "1"}}) == "both"


def test_atlas_a2() -> None:
    two = many(
        {
            "prefiller": [("prefiller", ["p1"], {"pd_parallel": {"tensor": 8}})],
            "decoder": [("decoder", ["d1"], {"pd_parallel": {"tensor": 8}})],
        },
        everywhere=A2,
    )
    assert planner.make(two).to_dict()["fabric"] == "roce"


@pytest.mark.parametrize(
    ("environment", "fabric"),
    [
        ({}, "hccs"),
        # Of the way between servers.
        ({"HCCL_INTER_HCCS_DISABLE": "TRUE"}, "hccs"),
        ({"HCCL_INTRA_ROCE_ENABLE": "1"}, "roce"),
        ({"ASCEND_GLOBAL_RESOURCE_CONFIG": '{"comm_resource_config.protocol_desc":["roce:device"]}'}, "roce"),
    ],
)
@pytest.mark.parametrize(("product", "tensor"), [({}, 8), (A2, 4)], ids=["Atlas A3", "Atlas A2"])
def test_inside_one_server(
    environment: dict[str, Any], fabric: str, product: dict[str, Any], tensor: int
) -> None:
    one = many(
        {
            "prefiller": [("prefiller", ["s1"], {"pd_chips": f"0-{tensor - 1}"})],
            "decoder": [("decoder", ["s1"], {"pd_chips": f"{tensor}-{2 * tensor - 1}", "pd_api_port": 8104})],
        },
        everywhere={**product, "pd_engine_env": environment, "pd_parallel": {"tensor": tensor}},
    )
    assert planner.make(one).to_dict()["fabric"] == fabric
