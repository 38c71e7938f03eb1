# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which generation of an instance its nodes are to run. Pure functions.

The nodes of an instance form a group when they start, and none can join it later. So all of them start for
the same generation: a number that grows with each start by the guards, and the ID of the rollout that began
the count. A node that has to start asks for the next generation; the others follow whoever asks for the
highest. A node starts only after all of them have stopped, the head first, whose pauses count for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Tuple

# A number and the ID of the rollout that began to count.
Generation = Tuple[int, str]
NONE: Generation = (0, "")
# Seconds: no pause is longer.
LONGEST_PAUSE = 600.0


def parsed(text: str) -> Generation:
    """Return a generation from the record of a start, such as ``4f1c+3``; without a number it is 0."""
    base, plus, number = text.rpartition("+")
    return (int(number), base) if plus and number.isdigit() else (0, text)


def written(generation: Generation) -> str:
    """Return a generation for the record of a start."""
    number, base = generation
    return f"{base}+{number}" if number else base


def following(generation: Generation) -> Generation:
    """Return the next one."""
    return (generation[0] + 1, generation[1])


class Node(NamedTuple):
    """A node, as its guard tells it.

    runs: the generation for which its container runs; None if it does not run, or nobody knows for which.
    up: whether its container runs.
    last: the generation for which it was started last.
    wanted: the one for which it is to run.
    held: why nothing is to be done with it; empty if something may be.
    """

    runs: Generation | None
    up: bool
    last: Generation
    wanted: Generation
    held: str = ""


class Step(NamedTuple):
    """What a guard does with its node: ``stop``, ``start``, or nothing, and why it waits."""

    wanted: Generation
    action: str = ""
    why: str = ""


def decide(rank: int, own: Node, others: Mapping[int, Node | None], need: str, head_may_start: bool) -> Step:
    """Return what the guard of a node does with it.

    rank: of the node; 0 is the head.
    own: the node.
    others: the other nodes of the instance by rank; None: nothing is known of one at the moment.
    need: why the node has to start anew; empty if it need not.
    head_may_start: for the head, whether its pause is over and it was not given up.
    """
    seen = [own, *(node for node in others.values() if node is not None)]
    held = next((node.held for node in seen if node.held), "")
    if held:
        return Step(own.wanted, why=held)
    top = max(node.wanted for node in seen)
    if (need and top <= own.last) or _formed_without(rank, top, own, others):
        top = following(max(top, own.last))
    if top == own.last and not need:
        return Step(top)
    if own.up:
        return Step(top, "stop", need or "another node starts anew")
    return Step(top, *_start(rank, top, others, head_may_start))


def _formed_without(rank: int, top: Generation, own: Node, others: Mapping[int, Node | None]) -> bool:
    """Return whether others have started for a generation that this node cannot join any more, as after a
    rollout that ended midway."""
    if own.last == top:
        return False
    if rank:
        head = others.get(0)
        # It would have waited for this node to stop.
        return own.up and head is not None and head.runs == top
    return any(node is not None and node.last == top for node in others.values())


def _start(
    rank: int, wanted: Generation, others: Mapping[int, Node | None], head_may_start: bool
) -> Sequence[str]:
    """Return whether a stopped node may start for a generation, or for what it waits."""
    missing = sorted(number for number, node in others.items() if node is None)
    if rank:
        head = others.get(0)
        if head is None:
            return ("", "waits for the guard of its head")
        return ("start", "") if head.runs == wanted else ("", "waits for its head to start")
    if missing:
        return ("", f"waits for the guard{'s' * (len(missing) > 1)} of node {', '.join(map(str, missing))}")
    if any(node is not None and (node.up or node.wanted != wanted) for node in others.values()):
        return ("", "waits for its other nodes to stop")
    return ("start", "") if head_may_start else ("", "pauses before the next attempt")


class Attempts(NamedTuple):
    """The starts of an instance in a row, by this server's clock in seconds.

    starts: how many; one that held for long enough ends the row.
    not_before: when the next one may begin.
    given_up: why no further one is made; empty if one is.
    """

    starts: int = 0
    not_before: float = 0.0
    given_up: str = ""


def counted(attempts: Attempts, limit: int, pause: float, why: str, now: float) -> Attempts:
    """Return the attempts with one more: the first is made at once, each pause is twice the last one."""
    starts = attempts.starts + 1
    if starts > limit:
        return attempts._replace(given_up=f"it was started {limit} times in a row; last: {why}")
    wait = min(pause * 2.0 ** (starts - 2), LONGEST_PAUSE) if starts > 1 else 0.0
    return Attempts(starts, now + wait)
