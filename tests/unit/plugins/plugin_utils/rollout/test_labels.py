# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What containers say of themselves: version, chips, APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import many, shipped, small

TP16 = {"pd_parallel": {"tensor": 16}}
OWN = {"pd_image": "registry.example/engine:own"}


def engines(raw: Any) -> Iterator[dict[str, Any]]:
    for share in planner.make(raw).to_dict()["hosts"].values():
        yield from share["engines"]


def versions(raw: Any) -> list[str]:
    return [engine["labels"]["pd_rollout.version"] for engine in engines(raw)]


SMALL = versions(small(OWN))


@pytest.mark.parametrize(
    "everywhere",
    [
        {"pd_release": "v0.18.0"},
        {"pd_image": "registry.example/engine:other"},
        {"pd_image": "registry.example/engine@sha256:" + "0" * 64},
        {"pd_model_path": "/weights/other"},
        {"pd_served_model_name": "other"},
        {"pd_api_key": "another-secret-of-the-deployment"},
        {"pd_kv_extra_config": {"use_ascend_direct": False}},
    ],
)
def test_what_both_roles_must_agree_on_is_the_version(everywhere: dict[str, Any]) -> None:
    changed = versions(small({**OWN, **everywhere}))
    assert len(changed) == 3
    assert not {*changed} & {*SMALL}


@pytest.mark.parametrize(
    "everywhere",
    [
        {"pd_engine_env": {"NEW": "1"}},
        {"pd_engine_args": {"max-model-len": 4096}},
        {"pd_api_port": 9004},
        {"pd_kv_port": 30100},
        {"pd_extra_mounts": ["/data"]},
        {"pd_shm_size": "2g"},
        {"pd_router": "vllm_router"},
    ],
)
def test_what_one_after_the_other_may_change_is_not(everywhere: dict[str, Any]) -> None:
    assert versions(small({**OWN, **everywhere})) == SMALL


def test_instances_of_a_role_have_one_version_whoever_else_is_there() -> None:
    given = [(name, [name], TP16) for name in ("a", "b", "c")]
    everywhere = {"pd_profile": "generic"}
    both = versions(many({"prefiller": given[:2], "decoder": given[2:]}, everywhere=everywhere))
    one = versions(many({"prefiller": given[:1], "decoder": given[2:]}, everywhere=everywhere))
    assert both[0] == both[1]
    assert both[1:] == one


def test_without_a_transfer_there_is_none_to_agree_on() -> None:
    everywhere = {"pd_mode": "colocated", "pd_profile": "generic"}
    alone = many({"decoder": [("d", ["a"], TP16)]}, everywhere=everywhere, proxy=False)
    assert len(versions(alone)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "atlas_a3_1p1d",
        "atlas_a3_1p1d_dp2",
        "atlas_a3_2p1d_external_dp",
        "atlas_a3_2p2d",
        "atlas_a3_single_server",
        "guide_1p1d",
        "simulated_1p1d",
    ],
)
def test_chips_and_apis_are_those_of_the_engine(name: str) -> None:
    plan = planner.make(shipped(name)).to_dict()
    listed: dict[str, list[str]] = {"prefiller": [], "decoder": []}
    for share in plan["hosts"].values():
        for engine in share["engines"]:
            labels = engine["labels"]
            assert labels["pd_rollout.chips"] == ",".join(map(str, engine["chips"]))
            assert labels["pd_rollout.release"] == plan["release"]["name"]
            served = [rank["api"] for rank in engine["ranks"]] or [engine["api"]] * (not engine["headless"])
            apis = [f"{api['host']}:{api['port']}" for api in served]
            assert labels["pd_rollout.apis"] == ",".join(apis)
            listed[engine["role"]] += apis
    # Together they are what the routers list.
    for role, key in (("prefiller", "prefillers"), ("decoder", "decoders")):
        planned = {f"{api['host']}:{api['port']}" for api in plan["proxy"][key]}
        assert planned in ({*listed[role]}, set())
    for share in plan["hosts"].values():
        for router in share["routers"]:
            assert {*router["labels"]["pd_rollout.decoders"].split(",")} == {*listed["decoder"]}
            assert {*router["labels"]["pd_rollout.prefillers"].split(",")} == {*listed["prefiller"]}
