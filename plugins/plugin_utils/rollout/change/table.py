# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The steps for people: what happens in which order, what serves meanwhile, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..model import ROLES, Role
from .seen import Seen, SeenInstance
from .steps import Change, Step

HEADER = ("step", "what", "prefillers", "decoders", "time")


def table(change: Change, seconds: Mapping[str, float]) -> list[str]:
    """Return the lines of the table of the steps.

    seconds: how long the last start of each instance took, by its name.
    """
    target = {role: sum(one.role == role for one in change.target) for role in ROLES}
    rows = [HEADER, *(_row(number, step, target, seconds) for number, step in enumerate(change.steps, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]


def _row(
    number: int, step: Step, target: Mapping[Role, int], seconds: Mapping[str, float]
) -> tuple[str, ...]:
    capacity = [_capacity(step, role, target[role]) for role in ROLES]
    return (str(number), "; ".join(step.titles), *capacity, duration(step.changed, seconds))


def _capacity(step: Step, role: Role, target: int) -> str:
    """Return how many instances of a role serve during a step, of how many afterwards."""
    if not target:
        return "-"
    count = 0 if step.outage else sum(one.role == role for one in step.serving)
    return f"{count} of {target}"


def duration(changed: Iterable[SeenInstance], seconds: Mapping[str, float]) -> str:
    """Return how long it takes until all of these have started; ``?`` if one has not been started before."""
    starts = [seconds.get(one.name) for one in changed]
    known = [each for each in starts if each is not None]
    if len(known) < len(starts):
        return "?"
    if not known:
        return "-"
    return f"{max(known):.0f} s" if max(known) < 60 else f"{max(known) / 60:.1f} min"


def reasons(change: Change) -> Iterator[str]:
    """Yield why each instance is changed."""
    for step in change.steps:
        for one in step.changed:
            yield f"{one.name}: {_why(one)}"
        for one in (gone for gone in step.removed if not gone.planned):
            yield f"{one.name}: the plan does not have it"
    for one in change.drained:
        yield f"{one.name}: left out, because a server of it is drained (playbooks/undrain.yml)"


def _why(one: SeenInstance) -> str:
    """Return why an instance is changed or awaited."""
    return one.why or ("it does not answer" if one.silent else "it is not in the routers' list yet")


def state(seen: Seen) -> list[str]:
    """Return what serves, what has been changed, and what has not, each in a sentence without a full stop."""
    groups = {
        "serving as planned": [one for one in seen.planned if one.ready and one.serving],
        "serving as before": [one for one in seen.planned if one.todo and one.serving],
        "changed, not listed yet": [one for one in seen.planned if one.ready and not one.listed],
        "not serving": [one for one in seen.planned if not one.ready and not one.serving],
        "no longer planned, and still there": list(seen.strays),
    }
    return [f"{what}: {', '.join(one.name for one in found)}" for what, found in groups.items() if found]
