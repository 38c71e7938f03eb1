# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which instances routers are to list, and whether the front answers for them. Pure functions.

A list is only ever changed between what a rollout has listed and a part of that, never to nothing: the last
of a role stay. If nothing of a role can serve, the front says so, instead of routers that answer 200 with an
empty body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

GOOD, UNSURE, SOFT, HARD = "good", "unsure", "soft", "hard"
ROLES = ("prefiller", "decoder")


class Status(NamedTuple):
    """How an instance is.

    kind: GOOD; UNSURE if nothing is known; SOFT if it should get no requests, but may still answer; HARD if
        it cannot answer.
    why: the reason, unless it is good.
    generation: the one that runs.
    """

    kind: str
    why: str = ""
    generation: str = ""


class Decision(NamedTuple):
    """The instances to list, why the front is to answer itself (empty: it is not), and those to be compared
    before they are listed."""

    listed: tuple[str, ...]
    closed: str = ""
    compare: tuple[str, ...] = ()


def decide(
    roles: Mapping[str, str],
    base: Sequence[str],
    listed: Collection[str],
    statuses: Mapping[str, Status],
    unproven: Collection[str],
    doubted: Collection[str] = (),
) -> Decision:
    """Return what to list.

    roles: role by name of each instance.
    base: what the last rollout has listed.
    listed: what is listed now.
    statuses: how instances are; without one nothing speaks against it.
    unproven: those that were failing and have not passed a canary since.
    doubted: those of them that answer all the same, but whose canary fails.
    """
    found = {name: statuses.get(name, Status(UNSURE)) for name in base}
    wanted, closed = set(), []
    for role in ROLES:
        mine = [name for name in base if roles.get(name) == role]
        good = [name for name in mine if found[name].kind in (GOOD, UNSURE) and name not in unproven]
        here = [name for name in mine if name in listed] or mine
        wanted |= set(good or here)
        silent = {name for name in here if name in unproven and name not in doubted}
        if mine and not good and not any(_may_answer(found[name], name in silent) for name in here):
            closed.append(_nothing(role, [(name, found[name]) for name in here]))
    compare = tuple(name for name in base if name in unproven and found[name].kind == GOOD)
    return Decision(tuple(name for name in base if name in wanted), "; ".join(closed), compare)


def _may_answer(status: Status, unproven: bool) -> bool:
    """Return whether one that is not good may still answer: what has failed has to prove itself first."""
    return status.kind == SOFT or (status.kind in (GOOD, UNSURE) and not unproven)


def _nothing(role: str, rows: Iterable[tuple[str, Status]]) -> str:
    """Return what clients are told: no names of servers."""
    starting = any(status.kind == GOOD for _, status in rows)
    return f"no {role} answers" if not starting else f"the {role} has just started and is being tested"


def node_status(state: str, why: str, bad: str) -> Status:
    """Return how a node is: up, or not, or nobody knows; and what is wrong with it though it is up."""
    if state == "unknown":
        return Status(UNSURE)
    if state != "up":
        return Status(HARD, why or f"it is {state}")
    return Status(SOFT, bad) if bad else Status(GOOD)


def worst(statuses: Iterable[Status]) -> Status:
    """Return the status of an instance from those of its nodes."""
    order = (GOOD, UNSURE, SOFT, HARD)
    return max(statuses, key=lambda status: order.index(status.kind), default=Status(GOOD))
