# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the two routers behind a front serves next, and which ends afterwards.

It follows from what is on the server alone, so that a run that was interrupted goes on where it was: the
router that gets the requests stays if it is as planned. Otherwise the other one is made as planned, gets the
requests, and then the first one ends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def choose(
    pair: Sequence[Mapping[str, Any]],
    active: str | None,
    as_planned: Collection[str],
    running: Collection[str],
) -> Mapping[str, Any]:
    """Return the slice of the router that is to serve.

    pair: the slices of both colours.
    active: the colour that gets the requests; None if there is no front yet.
    as_planned: names of containers that run as the plan says.
    running: names of all containers that run.
    """
    serving = next((plan for plan in pair if plan["colour"] == active), None)
    if serving is None:
        return next((plan for plan in pair if plan["container"] in as_planned), pair[0])
    other = next(plan for plan in pair if plan["colour"] != active)
    if serving["container"] in as_planned:
        return serving
    if other["container"] in as_planned or serving["container"] in running:
        return other
    return serving


def retiring(
    pair: Sequence[Mapping[str, Any]], strays: Sequence[Mapping[str, Any]], running: Collection[str]
) -> list[dict[str, Any]]:
    """Return those strays that may still serve requests, with their colour: they end only after the switch.

    pair: the slices of both colours.
    strays: containers of routers that are not to serve.
    running: names of all containers that run.
    """
    colour = {plan["container"]: plan["colour"] for plan in pair}
    return [{**stray, "colour": colour.get(stray["name"])} for stray in strays if stray["name"] in running]


def settled(routers: Mapping[str, Any]) -> bool:
    """Return whether the router that is to serve gets the requests, and no other one is left.

    routers: ``routers`` of deployment_info.
    """
    return bool(routers["serve"] == routers["active"] and not routers["retire"])
