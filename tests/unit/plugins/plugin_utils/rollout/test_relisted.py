# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A router of a plan with another list is what the plan of these instances alone would have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.router_list import relisted
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import release_names
from planner_inventories import many, shipped

TP16 = {"pd_parallel": {"tensor": 16}}
PREFILLERS: list[tuple[str, list[str], dict[str, Any]]] = [(f"p{n}", [f"p{n}"], TP16) for n in range(3)]
DECODERS: list[tuple[str, list[str], dict[str, Any]]] = [(f"d{n}", [f"d{n}"], TP16) for n in range(3)]
EXTERNAL: dict[str, Any] = {
    "pd_dp_mode": "external",
    "pd_api_port": 7100,
    "pd_interface": "eth0",
    "pd_parallel": {"tensor": 4, "data": 4},
}
FRONT = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"a": "k" * 32}}
UPSTREAM, FAST = {"pd_router": "upstream"}, {"pd_router": "vllm_router"}
V1, LAYERWISE = "MooncakeConnectorV1", "MooncakeLayerwiseConnector"
# What a router and its connector allow together.
KINDS: dict[str, dict[str, Any]] = {
    **{
        f"upstream, {connector}, {release}": {
            **UPSTREAM,
            "pd_kv_connector": connector,
            "pd_release": release,
        }
        for connector in (V1, LAYERWISE)
        for release in release_names()
    },
    "vllm-router": FAST,
    "vllm-router with options": {
        **FAST,
        "pd_router_args": {"queue-size": 7, "prefill-policy": "random"},
    },
    "upstream with a front": {**UPSTREAM, **FRONT},
    "vllm-router with a front": {**FAST, **FRONT},
    "upstream with a key": {**UPSTREAM, "pd_api_key": "secret-of-the-deployment"},
}


def cluster(kind: str, prefillers: Any = PREFILLERS, decoders: Any = DECODERS) -> RawInventory:
    given = KINDS[kind]
    release = given.get("pd_release", "v0.13.0")
    everywhere = {
        "pd_profile": "generic",
        "pd_image": f"registry.example/vllm-ascend:{release}-a3",
        **given,
    }
    raw = many({"prefiller": prefillers, "decoder": decoders}, everywhere=everywhere)
    # The router's server stays the same, whoever is left.
    return replace(raw, proxy_hosts=("p0",))


def plan_of(raw: RawInventory) -> dict[str, Any]:
    return planner.make(raw).to_dict()


def routers(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [router for share in plan["hosts"].values() for router in share["routers"]]


@pytest.mark.parametrize("kind", [*KINDS])
def test_with_its_own_list_it_is_the_same(kind: str) -> None:
    plan = plan_of(cluster(kind))
    proxy = plan["proxy"]
    assert routers(plan)
    for router in routers(plan):
        assert relisted(router, proxy, proxy["prefillers"], proxy["decoders"]) == router


@pytest.mark.parametrize(
    "name", ["atlas_a3_1p1d", "atlas_a3_2p1d_external_dp", "atlas_a3_2p2d", "guide_1p1d"]
)
@pytest.mark.parametrize("router", ["upstream", "vllm_router"])
def test_shipped_inventories_with_their_own_list(name: str, router: str) -> None:
    raw = shipped(name)
    given = replace(raw, hosts={host: {**own, "pd_router": router} for host, own in raw.hosts.items()})
    plan = plan_of(given)
    proxy = plan["proxy"]
    assert routers(plan)
    for one in routers(plan):
        assert relisted(one, proxy, proxy["prefillers"], proxy["decoders"]) == one


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize(
    ("prefillers", "decoders"), [([0], [0, 1, 2]), ([0, 2], [1]), ([0, 1, 2], [2]), ([0], [1])]
)
def test_with_another_list_it_is_that_of_the_others_plan(
    kind: str, prefillers: list[int], decoders: list[int]
) -> None:
    """There and back, byte for byte."""
    whole = cluster(kind)
    named = {f"p{n}" for n in prefillers} | {f"d{n}" for n in decoders}
    fewer = replace(whole, groups=tuple(group for group in whole.groups if group.name in named))
    before, after = plan_of(whole), plan_of(fewer)
    for source, goal in ((before, after), (after, before)):
        lists = goal["proxy"]["prefillers"], goal["proxy"]["decoders"]
        found = [relisted(router, source["proxy"], *lists) for router in routers(source)]
        assert found == routers(goal)


@pytest.mark.parametrize("router", [UPSTREAM, FAST])
def test_all_ranks_of_external_data_parallel(router: dict[str, Any]) -> None:
    raw = many(
        {"prefiller": PREFILLERS[:1], "decoder": [(f"d{n}", [f"d{n}"], EXTERNAL) for n in range(2)]},
        everywhere={"pd_profile": "generic", **router},
    )
    before = plan_of(raw)
    after = plan_of(replace(raw, groups=raw.groups[:2]))
    assert len(before["proxy"]["decoders"]) == 8
    lists = after["proxy"]["prefillers"], after["proxy"]["decoders"]
    assert [relisted(one, before["proxy"], *lists) for one in routers(before)] == routers(after)


def test_nothing_of_the_plan_is_changed() -> None:
    plan = plan_of(cluster("vllm-router"))
    (router,) = routers(plan)
    before = {**router, "labels": dict(router["labels"]), "argv": list(router["argv"])}
    other = relisted(router, plan["proxy"], plan["proxy"]["prefillers"][:1], plan["proxy"]["decoders"])
    assert router == before
    changed = {key for key in router if router[key] != other[key]}
    assert changed == {"argv", "script", "expected", "labels"}
    labels = {key for key in router["labels"] if router["labels"][key] != other["labels"][key]}
    assert labels == {"pd_rollout.hash", "pd_rollout.prefillers"}
