# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What every plan promises, whatever the topology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Plan = Mapping[str, Any]


def servers(plan: Plan, instance: str) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Host, engine and each `vllm serve` of it, in the order of the nodes."""
    nodes = next(i["nodes"] for i in plan["instances"] if i["name"] == instance)
    for host in nodes:
        for engine in plan["hosts"][host]["engines"]:
            if engine["instance"] == instance:
                for server in engine["ranks"] or [engine]:
                    yield host, engine, server


def option(argv: list[str], name: str) -> str | None:
    return argv[argv.index(f"--{name}") + 1] if f"--{name}" in argv else None


def check(plan: Plan) -> None:
    """AssertionError if the plan breaks one of its promises."""
    _one_listener_a_port(plan)
    _chips_once(plan)
    _engine_ids(plan)
    _ranks_covered(plan)
    _proxy_has_every_api(plan)
    _decoders_reach_producers(plan)


def _one_listener_a_port(plan: Plan) -> None:
    for host, share in plan["hosts"].items():
        taken: set[int] = set()
        for row in share["ports"]:
            if row["bound"]:
                ports = set(range(row["first"], row["last"] + 1))
                assert not ports & taken, f"two listeners of {host} share a port"
                assert max(ports) <= 65535
                taken |= ports
        for engine in share["engines"]:
            assert set(engine["handshake_ports"]) <= taken
            for server in engine["ranks"] or [engine]:
                assert server["api"] is None or server["api"]["port"] in taken


def _chips_once(plan: Plan) -> None:
    for host, share in plan["hosts"].items():
        chips: set[int] = set()
        for engine in share["engines"]:
            assert not chips & set(engine["chips"]), f"two engines of {host} share a chip"
            chips |= set(engine["chips"])
            assert len(engine["chips"]) >= engine["local_world_size"]
            of_ranks = [chip for rank in engine["ranks"] for chip in rank["chips"]]
            assert len(of_ranks) == len(set(of_ranks))
            assert set(of_ranks) <= set(engine["chips"])


def _engine_ids(plan: Plan) -> None:
    owner: dict[str, str] = {}
    for instance in plan["instances"]:
        ids = instance["engine_ids"]
        assert len(set(ids)) == (1 if instance["dp_mode"] == "external" else len(ids))
        for engine_id in set(ids):
            assert owner.setdefault(engine_id, instance["name"]) == instance["name"], "an id of two instances"


def _ranks_covered(plan: Plan) -> None:
    """Each data-parallel rank runs once; each chip of a listening instance has its handshake port, and no
    other."""
    for instance in plan["instances"]:
        sizes = instance["parallel"]
        world = sizes["tensor"] * sizes["prefill_context"] * sizes["pipeline"]
        found = list(servers(plan, instance["name"]))
        if instance["dp_mode"] == "external":
            ranks = [int(option(server["argv"], "data-parallel-rank") or "") for _, _, server in found]
            assert ranks == [server["rank"] for _, _, server in found] == list(range(sizes["data"]))
            assert all(len(server["chips"]) == world for _, _, server in found)
        else:
            starts = [engine["data_parallel_rank"] for _, engine, _ in found]
            local = [engine["data_parallel_size_local"] for _, engine, _ in found]
            covered = [
                rank
                for start, count in zip(starts, local, strict=True)
                for rank in range(start, start + count)
            ]
            expected = range(sizes["data"]) if sizes["data"] > 1 else [0] * len(found)
            assert covered == list(expected)
            assert sum(engine["local_world_size"] for _, engine, _ in found) == world * sizes["data"]
            assert [server["api"] is None for _, _, server in found] == [False] + [True] * (len(found) - 1)
        ports = [port for _, _, server in found for port in server["handshake_ports"]]
        if ports:
            assert ports == list(range(instance["kv_port"], instance["kv_port"] + world * sizes["data"]))


def _proxy_has_every_api(plan: Plan) -> None:
    for side, role in (("prefillers", "prefiller"), ("decoders", "decoder")):
        told = [(backend["host"], backend["port"]) for backend in plan["proxy"][side]]
        serving = [
            (server["api"]["host"], server["api"]["port"])
            for instance in plan["instances"]
            if instance["role"] == role
            for _, _, server in servers(plan, instance["name"])
            if server["api"] is not None
        ]
        assert told == serving
        assert len(told) == len(set(told))


def _decoders_reach_producers(plan: Plan) -> None:
    """Each port that a decoder will ask for, by the connector's formula from a prefiller's kv_port and sizes,
    is listened on at the host that has the rank."""
    if plan["connector"] != "MooncakeConnectorV1":
        return
    for instance in (i for i in plan["instances"] if i["role"] == "prefiller"):
        sizes = instance["parallel"]
        world = sizes["tensor"] * sizes["prefill_context"] * sizes["pipeline"]
        per_node = world * sizes["data"] // len(instance["nodes"])
        outer = sizes["pipeline"] * sizes["prefill_context"]
        for data_rank in range(sizes["data"]):
            for outer_rank in range(outer):
                for tensor_rank in range(sizes["tensor"]):
                    place = data_rank * world + outer_rank * sizes["tensor"] + tensor_rank
                    host = instance["nodes"][place // per_node]
                    port = instance["kv_port"] + place
                    rows = plan["hosts"][host]["ports"]
                    assert any(row["bound"] and row["first"] <= port <= row["last"] for row in rows)
        for decoder in (i for i in plan["instances"] if i["role"] == "decoder"):
            for node in decoder["nodes"]:
                assert set(instance["nodes"]) <= {node, *plan["hosts"][node]["peers"]}
