# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a canary asks, from the plan, and how its result is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ("pair", "answers", "transferred", "seconds")


def canary_options(plan: Mapping[str, Any], host: str, port: int = 0) -> dict[str, Any]:
    """Return the options of the module canary that follow from the plan, for all pairs.

    host: the name of the host that asks.
    port: where layerwise decoders reach it; 0: any free port.
    """
    share = plan["hosts"][host]
    secrets = [part["secret_path"] for part in (*share["routers"], *share["engines"]) if part["secret_path"]]
    return {
        "prefillers": _instances(plan, "prefiller"),
        "decoders": _instances(plan, "decoder"),
        "protocol": plan["protocol"],
        "listen": {"host": share["address"], "port": port},
        "release": plan["release"]["name"],
        "model": plan["model"]["served_name"],
        "api_key_file": secrets[0] if secrets else None,
    }


def askers(plan: Mapping[str, Any]) -> list[str]:
    """Return the names of the hosts that can ask: those of the routers, else the heads of the decoders."""
    routers = [name for name, share in plan["hosts"].items() if share["routers"]]
    return routers or list(
        dict.fromkeys(one["nodes"][0] for one in plan["instances"] if one["role"] == "decoder")
    )


def _instances(plan: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """Return the instances of a role with all their APIs."""
    return [
        {"instance": instance["name"], "apis": _apis(plan, instance)}
        for instance in plan["instances"]
        if instance["role"] == role
    ]


def _apis(plan: Mapping[str, Any], instance: Mapping[str, Any]) -> list[dict[str, Any]]:
    engines = [
        engine
        for host in instance["nodes"]
        for engine in plan["hosts"][host]["engines"]
        if engine["instance"] == instance["name"]
    ]
    apis = [rank["api"] for engine in engines for rank in engine["ranks"]]
    return apis or [engine["api"] for engine in engines if engine["api"]]


def table(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the pairs of a canary's result as lines for the screen."""
    rows = [HEADINGS, *map(_row, pairs)]
    width = max(len(row[0]) for row in rows)
    return [f"{pair:<{width}}  {good:<7}  {share:>11}  {seconds:>7}" for pair, good, share, seconds in rows]


def _row(pair: Mapping[str, Any]) -> tuple[str, str, str, str]:
    names = " → ".join(name for name in (pair["prefiller"], pair["decoder"]) if name)
    share = "-" if pair["transferred"] is None else f"{pair['transferred']:.0%}"
    return names, "good" if pair["ok"] else "bad", share, f"{pair['seconds']:.1f}"
