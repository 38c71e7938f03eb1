# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the two routers behind a front serves next, and which ends afterwards.

It follows from what is on the server alone, so that a run that was interrupted goes on where it was: the
router that gets the requests stays if it is as planned. Otherwise the other one is made as planned, gets the
requests, and then the first one ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any


class Held(Exception):
    """The router that is to be started needs a port of the one that serves; ``ports`` names them."""

    def __init__(self, plan: Mapping[str, Any], ports: Collection[str]) -> None:
        super().__init__(", ".join(sorted(ports)))
        self.plan = plan


def choose(
    pair: Sequence[Mapping[str, Any]],
    active: str | None,
    as_planned: Collection[str],
    held: Mapping[str, Collection[str]],
) -> Mapping[str, Any]:
    """Return the slice of the router that is to serve.

    pair: the slices of both colours.
    active: the colour that gets the requests; None if there is no front yet.
    as_planned: names of containers that run as the plan says.
    held: by name of each router's container that runs, where it listens, as ``address:port``.

    Raises Held if that router could not be started beside the one that serves.
    """
    serving = next((plan for plan in pair if plan["colour"] == active), None)
    if serving is None:
        free = [plan for plan in pair if not _of_others(plan, held)]
        return next((plan for plan in pair if plan["container"] in as_planned), (free or list(pair))[0])
    other = next(plan for plan in pair if plan["colour"] != active)
    if serving["container"] in as_planned:
        return serving
    if other["container"] not in as_planned and serving["container"] not in held:
        return serving
    ports = _of_others(other, held)
    if ports and other["container"] not in as_planned:
        raise Held(other, ports)
    return other


def _of_others(plan: Mapping[str, Any], held: Mapping[str, Collection[str]]) -> set[str]:
    """Return where a router would listen and another one listens."""
    others = {at for name, places in held.items() if name != plan["container"] for at in places}
    return {f"{plan['host']}:{port}" for port in (plan["port"], plan["metrics_port"]) if port} & others


_HOST = re.compile(r"--host[ =](\S+)")
_PORTS = re.compile(r"--(?:prometheus-)?port[ =]([0-9]+)")


def listens(script: str) -> list[str]:
    """Return where a router listens, as ``address:port``, given its launch script."""
    host = _HOST.search(script)
    return [f"{host[1]}:{port}" for port in _PORTS.findall(script)] if host else []


def retiring(
    pair: Sequence[Mapping[str, Any]],
    strays: Sequence[Mapping[str, Any]],
    held: Mapping[str, Collection[str]],
    front: str,
) -> list[dict[str, Any]]:
    """Return those strays that may still serve requests: they end only after the switch.

    Each has its ``colour``, and ``yields``: whether it listens where the front is to listen, so that it must
    let go of that before.

    pair: the slices of both colours.
    strays: containers of routers that are not to serve.
    held: as for choose().
    front: where the front listens, as ``address:port``.
    """
    colour = {plan["container"]: plan["colour"] for plan in pair}
    return [
        {**stray, "colour": colour.get(stray["name"]), "yields": front in held[stray["name"]]}
        for stray in strays
        if stray["name"] in held
    ]


def settled(routers: Mapping[str, Any]) -> bool:
    """Return whether the router that is to serve gets the requests, and no other one is left.

    routers: ``routers`` of deployment_info.
    """
    return bool(routers["serve"] == routers["active"] and not routers["retire"])
