"""Generated topologies: what the rules let through starts with the real engine, and what they refuse for
reasons that the engine checks itself does not. Each connector opens the ports that the plan has for it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from .asked import ask, key
from .conftest import VERSION
from .planned import Planned, Server, planned, small
from .test_refusals import NOBODY, TABLE, of_release

COUNT = 40
"""Topologies of each release; the seed makes them the same every time."""

CONNECTORS = ("MooncakeConnectorV1", "MooncakeConnectorV1", "MooncakeLayerwiseConnector")
SHAPES = ("plain", "plain", "context", "decode context", "pipeline", "data", "data", "both")


def generated() -> Iterator[dict[str, Any]]:
    """Sizes, nodes and flags near the limits, good ones and bad ones."""
    draw = random.Random(f"generated for {VERSION}")
    for _ in range(COUNT):
        case: dict[str, Any] = {"all": {"pd_profile": "generic"}, "nodes": {}}
        colocated = draw.random() < 0.15
        if colocated:
            case["all"]["pd_mode"] = "colocated"
        case["all"]["pd_kv_connector"] = draw.choice(CONNECTORS)
        tensor = draw.choice([2, 4, 8, 16])
        for role in ("prefiller", "decoder"):
            size = tensor if draw.random() < 0.75 else draw.choice([1, 2, 4, 8, 16])
            parallel: dict[str, int] = {"tensor": size}
            shape = draw.choice(SHAPES)
            if shape in ("context", "both") and role == "prefiller":
                parallel["prefill_context"] = draw.choice([2, 2, 3])
            if shape in ("context", "decode context"):
                parallel["decode_context"] = draw.choice([1, 2, 2, 2, 3, 4])
            if shape == "pipeline":
                parallel["pipeline"] = 2
            if shape in ("data", "both"):
                parallel["data"] = draw.choice([2, 2, 4])
                if draw.random() < 0.15:
                    parallel["data_local"] = draw.choice([1, 2, 4])
            flags: dict[str, Any] = {"block-size": 128, "max-model-len": 4096}
            if parallel.get("prefill_context", 1) * parallel.get("decode_context", 1) > 1:
                flags["cp-kv-cache-interleave-size"] = draw.choice([128, 128, 128, 128, 64, 1, 256])
            if draw.random() < 0.2:
                flags["enable-chunked-prefill"] = False
                flags["max-num-batched-tokens"] = draw.choice([4095, 4096, 8192])
            if draw.random() < 0.2:
                flags["max-num-seqs"] = draw.choice([256, 257])
                flags.setdefault("max-num-batched-tokens", 256)
            if draw.random() < 0.5:
                flags["enforce-eager"] = True
            case[role] = {
                "pd_parallel": parallel,
                "pd_engine_args": flags,
                "pd_dp_mode": draw.choice(["internal", "external"]),
                "pd_api_port": 8100,
            }
            case["nodes"][role] = draw.choice([1, 1, 2, 2, 2, 3])
        if colocated:
            case["nodes"]["prefiller"] = 0
        yield case


CASES = list(generated())
PLANNED: list[Planned] = [planned(small(case)) for case in CASES]


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    return ask(server.request() for plan in PLANNED for server in some(plan))


def some(plan: Planned) -> list[Server]:
    """Its servers; of several equal ranks with a server each, the first and the last."""
    return [server for role in ("prefiller", "decoder") for server in ends(list(plan.servers(role)))]


def ends(servers: list[Server]) -> list[Server]:
    return servers if len(servers) < 4 else [servers[0], servers[-1]]


def refusals(plan: Planned, answers: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    said = [answers[key(server.request())] for server in some(plan)]
    return [answer for answer in said if not answer["accepted"]]


def refused_by_engine() -> set[str]:
    """The codes that a start of the real engine refuses at this release, in every case of the table."""
    by: dict[str, set[str]] = {}
    for row in TABLE["cases"]:
        if f"v{VERSION}" in row.get("releases", [f"v{VERSION}"]):
            by.setdefault(row["rule"], set()).add(of_release(row["by"]))
    return {code for code, who in by.items() if NOBODY not in who}


def test_there_are_good_ones_and_bad_ones() -> None:
    good = sum(not plan.errors for plan in PLANNED)
    assert COUNT // 20 < good < COUNT * 4 // 5


@pytest.mark.parametrize("number", range(COUNT))
def test_the_rules_and_the_engine_agree(number: int, answers: dict[str, dict[str, Any]]) -> None:
    plan, case = PLANNED[number], json.dumps(CASES[number])
    refused = refusals(plan, answers)
    if not plan.errors:
        assert not refused, (case, refused)
    elif plan.errors & refused_by_engine():
        assert refused, (case, plan.errors)


def ports_of(server: Server) -> list[int]:
    """What the plan has this server's connectors open, in the order of its workers."""
    ports: list[int] = server.planned["handshake_ports"]
    return ports


@pytest.mark.parametrize("number", [n for n, plan in enumerate(PLANNED) if not plan.errors])
def test_connectors_open_the_planned_ports(number: int, answers: dict[str, dict[str, Any]]) -> None:
    for server in some(PLANNED[number]):
        if ports_of(server):
            assert answers[key(server.request())]["ports"] == ports_of(server)
