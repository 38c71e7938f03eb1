# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""An instance that is added or removed changes no other: not its ids, ports, script, labels or container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import inventory, topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.model import Cluster
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_inventories import findings, many, shipped
from planner_strategies import clusters

# Name, servers and variables of an instance.
Given = tuple[str, list[str], dict[str, Any]]

CONNECTORS = ("MooncakeConnectorV1", "MooncakeLayerwiseConnector")
NAMES = [*"abcdefgh", "a-0", "a-1", "z_10", "z_9"]


def shares(raw: RawInventory) -> dict[str, Any]:
    """Everything that the plan says of each instance, by its name."""
    plan = planner.make(raw).to_dict()
    return {
        one["name"]: (
            one,
            [
                (host, engine)
                for host, share in plan["hosts"].items()
                for engine in share["engines"]
                if engine["instance"] == one["name"]
            ],
        )
        for one in plan["instances"]
    }


def sizes(role: str, kind: str, chips: int, nodes: int) -> dict[str, Any]:
    """Sizes that fill ``chips`` chips on each of ``nodes`` servers."""
    if kind == "tensor":
        return {"tensor": chips, "data": nodes}
    if kind == "context" and role == "prefiller":
        return {"tensor": chips, "prefill_context": nodes}
    return {"tensor": chips // 2, "data": 2 * nodes}


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Mapping[str, Any], list[dict[str, list[Given]]]]:
    """Variables of all, and a sequence of clusters, each with one instance more or fewer than the last, or in
    another order. Some instances are on several servers, and some are several on one."""
    release, connector = draw(st.sampled_from(release_names())), draw(st.sampled_from(CONNECTORS))
    switch = load_release(release).limits.context_switch
    everywhere = {
        "pd_profile": "generic",
        "pd_release": release,
        "pd_image": f"registry.example/vllm-ascend:{release}-a3",
        "pd_kv_connector": connector,
        "pd_engine_env": {switch: "1"} if switch else {},
        "pd_engine_args": {"block-size": 128, "cp-kv-cache-interleave-size": 128},
    }
    kinds = ["tensor", "data", "external"] + ["context"] * (connector == CONNECTORS[0])
    kind, chips, nodes = (
        draw(st.sampled_from(kinds)),
        draw(st.sampled_from([16, 8, 4])),
        draw(st.integers(1, 2)),
    )
    each = 16 // chips
    pool: dict[str, list[Given]] = {"prefiller": [], "decoder": []}
    for number, name in enumerate(draw(st.permutations(NAMES))):
        role = ("prefiller", "decoder")[draw(st.integers(0, 1)) if number > 1 else number]
        place, part = divmod(number, each)
        variables = {
            "pd_parallel": sizes(role, kind, chips, nodes),
            "pd_dp_mode": "external" if kind == "external" else "internal",
            "pd_chips": f"{part * chips}-{(part + 1) * chips - 1}",
            "pd_api_port": 8100 + 10 * number,
            "pd_master_port": 7100 + number,
            "pd_dp_rpc_port": 12300 + number,
        }
        pool[role].append((name, [f"s{place}n{node}" for node in range(nodes)], variables))
    chosen = {role: draw(st.lists(st.sampled_from(pool[role]), min_size=1, unique_by=_name)) for role in pool}
    steps = [chosen]
    for _ in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from(list(pool)))
        present = list(steps[-1][role])
        absent = [one for one in pool[role] if one not in present]
        if absent and (len(present) == 1 or draw(st.booleans())):
            present.insert(draw(st.integers(0, len(present))), draw(st.sampled_from(absent)))
        elif len(present) > 1:
            del present[draw(st.integers(0, len(present) - 1))]
        steps.append({**steps[-1], role: present if draw(st.booleans()) else present[::-1]})
    return everywhere, steps


def _name(one: Given) -> str:
    return one[0]


@settings(max_examples=150)
@given(sequences())
def test_what_is_not_changed_stays(drawn: tuple[Mapping[str, Any], list[dict[str, list[Given]]]]) -> None:
    everywhere, steps = drawn
    addresses = {host: {"ansible_host": f"10.0.{number}.1"} for number, host in enumerate(_hosts())}
    seen = [shares(many(step, hosts=addresses, everywhere=everywhere)) for step in steps]
    for before, after in pairwise(seen):
        for name in before.keys() & after.keys():
            assert after[name] == before[name], f"{name} is another"


def _hosts() -> Iterator[str]:
    yield from (f"s{place}n{node}" for place in range(len(NAMES)) for node in range(2))


def test_sizes_of_the_first_by_name() -> None:
    """Where prefillers differ in a size that decoders are told, and do not rely on, one that is added behind
    them by its name changes nothing, wherever the inventory has it."""
    release = {"pd_release": "v0.23.0", "pd_image": "registry.example/vllm-ascend:v0.23.0-a3"}
    first = ("pa", ["a"], {"pd_parallel": {"tensor": 8, "data": 2}})
    other = ("pb", ["b"], {"pd_parallel": {"tensor": 16}})
    decoder = ("d", ["c"], {"pd_parallel": {"tensor": 8, "data": 2}})
    addresses = {host: {"ansible_host": f"10.0.0.{number}"} for number, host in enumerate("abc", 1)}
    alone, both = (
        shares(many({"prefiller": listed, "decoder": [decoder]}, hosts=addresses, everywhere=release))
        for listed in ([first], [other, first])
    )
    assert both["d"] == alone["d"]
    assert both["pa"] == alone["pa"]


@pytest.mark.parametrize("name", ["atlas_a3_2p2d", "atlas_a3_2p1d_external_dp"])
def test_shipped_inventories_without_their_first_prefiller(name: str) -> None:
    raw = shipped(name)
    fewer = replace(raw, groups=raw.groups[1:])
    left = shares(fewer)
    assert left == {one: share for one, share in shares(raw).items() if one in left}


def test_the_guides_numbers_stay() -> None:
    cluster = topology.build(inventory.read(shipped("guide_1p1d"))[0])
    assert [node.engine_id for one in cluster.instances for node in one.nodes] == ["0", "1", "3"]
    assert [one.kv_port for one in cluster.instances for _ in one.nodes] == [30000, 30000, 30200]


PORTS = {"PD301", "PD302", "PD303", "PD305", "PD306", "PD307", "PD541"}


def former_ports(cluster: Cluster) -> dict[str, int]:
    """KV ports as they were computed from an index: 100 for each node before the instance."""
    release, settings_ = cluster.release, [n.settings for one in cluster.instances for n in one.nodes]
    chips = max(one.chips_per_node for one in settings_)
    bases = {release.kv_base(chips)}
    for one in settings_:
        value = one.engine_env.get(release.ascend_direct_variable or "", "") or ""
        if value.isdigit():
            bases.add(-(-(release.ascend_direct(chips, int(value))[1] + 100) // 100) * 100)
    base = max(port for port in bases if port < release.hccl_base or port == release.kv_base(chips))
    slots = max(1, (release.hccl_base - base) // 100 - 1)
    before = accumulate((len(one.nodes) for one in cluster.instances), initial=0)
    return {
        one.name: base + 100 * (count % slots) for one, count in zip(cluster.instances, before, strict=False)
    }


def found(raw: RawInventory) -> set[tuple[str, str | None]]:
    return {(one.code, one.host) for one in findings(raw) if one.code in PORTS}


@settings(max_examples=300)
@given(clusters())
def test_no_port_clashes_that_did_not_before(raw: RawInventory) -> None:
    before = former_ports(topology.build(inventory.read(raw)[0]))
    pinned = replace(
        raw,
        groups=tuple(
            replace(
                group,
                members=tuple(
                    replace(member, variables={"pd_kv_port": before[group.name], **member.variables})
                    for member in group.members
                ),
            )
            for group in raw.groups
        ),
    )
    assert found(raw) <= found(pinned)
