# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which generation nodes run: the rules one by one, and whole groups whose guards hear each other late."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.generations import (
    LONGEST_PAUSE,
    NONE,
    Attempts,
    Generation,
    Node,
    Step,
    counted,
    decide,
    following,
    parsed,
    written,
)
from hypothesis import given, settings
from hypothesis import strategies as st

OLD: Generation = (3, "aa")
NEXT: Generation = (4, "aa")


def running(generation: Generation = OLD, **more: Any) -> Node:
    return Node(generation, True, generation, generation)._replace(**more)


def stopped(last: Generation = OLD, wanted: Generation = NEXT, **more: Any) -> Node:
    return Node(None, False, last, wanted)._replace(**more)


@pytest.mark.parametrize("generation", [NONE, (0, "4f1c"), (1, ""), (12, "4f1c"), (2, "a+b")])
def test_a_generation_is_read_as_it_is_written(generation: Generation) -> None:
    assert parsed(written(generation)) == generation


@pytest.mark.parametrize("text", ["4f1c", "a+b", "+", "3+", "+x"])
def test_what_has_no_number_is_of_a_rollout(text: str) -> None:
    assert parsed(text) == (0, text)


def test_the_next_one_is_of_the_same_rollout() -> None:
    assert following((0, "aa")) == (1, "aa")


# ── one node ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rank", [0, 1])
def test_nothing_is_done_where_all_run_the_same(rank: int) -> None:
    others: dict[int, Node | None] = {1 - rank: running()}
    assert decide(rank, running(), others, "", True) == Step(OLD)
    assert decide(rank, running(), {1 - rank: None}, "", True) == Step(OLD)


def test_a_node_that_is_alone_starts_at_once() -> None:
    assert decide(0, stopped(wanted=OLD), {}, "it ended", True) == Step(NEXT, "start")
    assert decide(0, running(), {}, "it hangs", True) == Step(NEXT, "stop", "it hangs")


def test_a_need_is_told_once() -> None:
    assert decide(0, stopped(), {}, "it ended", True).wanted == NEXT
    # The start for it has failed: one more.
    assert decide(0, stopped(last=NEXT), {}, "it ended", True).wanted == following(NEXT)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_stops_when_another_one_asks_for_a_start(rank: int) -> None:
    step = decide(rank, running(), {1 - rank: stopped()}, "", True)
    assert step == Step(NEXT, "stop", "another node starts anew")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (None, "waits for the guard of node 1"),
        (running(wanted=NEXT), "waits for its other nodes to stop"),
        (stopped(wanted=OLD), "waits for its other nodes to stop"),
    ],
)
def test_the_head_waits_until_it_knows_that_all_others_have_stopped(other: Node | None, why: str) -> None:
    assert decide(0, stopped(), {1: other}, "it ended", True) == Step(NEXT, "", why)


def test_the_head_names_all_guards_that_it_misses() -> None:
    step = decide(0, stopped(), {2: None, 1: None, 3: stopped()}, "it ended", True)
    assert step.why == "waits for the guards of node 1, 2"


def test_the_head_starts_first_unless_it_pauses() -> None:
    assert decide(0, stopped(), {1: stopped()}, "", True) == Step(NEXT, "start")
    assert decide(0, stopped(), {1: stopped()}, "", False) == Step(NEXT, "", "pauses before the next attempt")


@pytest.mark.parametrize(
    ("head", "action", "why"),
    [
        (None, "", "waits for the guard of its head"),
        (stopped(), "", "waits for its head to start"),
        (running(NEXT), "start", ""),
    ],
)
def test_the_others_follow_their_head(head: Node | None, action: str, why: str) -> None:
    # Of other nodes it need know nothing, and its own pauses do not count.
    assert decide(1, stopped(), {0: head, 2: None}, "it ended", False) == Step(NEXT, action, why)


@pytest.mark.parametrize("own", [running(), stopped()])
def test_nothing_is_done_while_one_node_is_held(own: Node) -> None:
    held = stopped(held="the server is drained")
    for rank, mine, others in [
        (0, own, {1: held}),
        (1, own, {0: held, 2: None}),
        (1, own._replace(held="a rollout holds the lock"), {0: running(NEXT)}),
    ]:
        step = decide(rank, mine, others, "it ended", True)
        assert (step.wanted, step.action) == (own.wanted, "")
        assert step.why in ("the server is drained", "a rollout holds the lock")


def test_a_head_joins_no_group_that_formed_without_it() -> None:
    """A rollout that ended midway has started it alone; or the record of its start is gone."""
    other = running()
    for own in (running((0, "bb")), stopped(last=NONE, wanted=NONE)):
        need = "" if own.up else "it ended"
        assert decide(0, own, {1: other}, need, True).wanted == NEXT


def test_another_node_joins_no_group_that_formed_without_it() -> None:
    assert decide(1, running((0, "bb")), {0: running()}, "", True).wanted == NEXT
    # Stopped as it should be, it may join.
    assert decide(1, stopped((0, "bb"), OLD), {0: running()}, "", True) == Step(OLD, "start")


# ── pauses ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_pause_is_twice_the_last_one_and_none_is_too_long() -> None:
    attempts, waits = Attempts(), []
    for _ in range(10):
        attempts = counted(attempts, 20, 10.0, "it ended", 100.0)
        waits.append(attempts.not_before - 100.0)
    assert waits == [0, 10, 20, 40, 80, 160, 320, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_one_too_many_is_given_up() -> None:
    attempts = Attempts()
    for _ in range(2):
        attempts = counted(attempts, 2, 10.0, "it ended", 0.0)
        assert not attempts.given_up
    attempts = counted(attempts, 2, 10.0, "its memory ran out", 0.0)
    assert attempts.given_up == "it was started 2 times in a row; last: its memory ran out"
    assert attempts.starts == 2


# ── whole groups ──────────────────────────────────────────────────────────────────────────────────────────

# Rounds: the longest way of a message, the longest stop or start, and how long a guard waits after a rollout.
DELAY, WORK, SETTLE = 3, 4, 5


class Server:
    """A node and its guard, in rounds."""

    def __init__(self, rank: int, base: str) -> None:
        self.rank = rank
        self.up, self.last = True, (0, base)
        self.runs: Generation | None = self.last
        # What a guard forgets when it is started anew.
        self.wanted: Generation | None = None
        self.busy: tuple[str, Generation, int] | None = None
        self.locked, self.settled = False, 0
        self.told: list[Node] = []
        self.actions = 0

    def node(self, now: int) -> Node:
        held = "a rollout" if self.locked or now < self.settled else ""
        if held:
            self.wanted = None
        return Node(self.runs, self.up, self.last, self.wanted or self.last, held)

    def crash(self) -> None:
        self.up, self.runs = False, None

    def look(self, now: int, others: dict[int, Node | None], dice: random.Random) -> None:
        """One look of its guard."""
        if self.busy is not None:
            action, generation, end = self.busy
            if now >= end:
                self.busy = None
                self.up = action == "start"
                self.runs = generation if self.up else None
        own = self.node(now)
        if self.busy is None:
            step = decide(self.rank, own, others, "" if self.up else "it ended", True)
            if step.wanted > own.wanted:
                self.wanted = step.wanted
            if step.action:
                self.actions += 1
                self.busy = (step.action, step.wanted, now + dice.randint(1, WORK))
                if step.action == "start":
                    # Noted before it starts.
                    self.last = step.wanted
        self.told.append(self.node(now))


class Group:
    """The nodes of an instance; their guards hear each other late, in order, or not at all."""

    def __init__(self, size: int, dice: random.Random) -> None:
        self.dice, self.now = dice, 0
        self.servers = [Server(rank, "aa") for rank in range(size)]
        self.seen: dict[tuple[int, int], int] = {}
        self.cut: set[tuple[int, int]] = set()
        for server in self.servers:
            server.told.append(server.node(0))

    def view(self, of: Server, other: Server) -> Node | None:
        """What a guard knows of another one: nothing, or what that has told some rounds ago."""
        link = (of.rank, other.rank)
        if link in self.cut:
            return None
        newest = len(other.told) - 1
        at = max(self.seen.get(link, 0), newest - self.dice.randint(0, DELAY))
        self.seen[link] = at
        return other.told[at]

    def round(self) -> None:
        self.now += 1
        views = [
            {other.rank: self.view(server, other) for other in self.servers if other is not server}
            for server in self.servers
        ]
        for server, others in zip(self.servers, views, strict=True):
            server.look(self.now, others, self.dice)

    def rounds(self, count: int) -> Iterator[None]:
        for _ in range(count):
            self.round()
            yield

    def flap(self) -> None:
        """A connection ends, or one is there again: it begins with what is so then."""
        link = (self.dice.choice(self.servers).rank, self.dice.choice(self.servers).rank)
        if link in self.cut:
            self.cut.discard(link)
            self.seen[link] = len(self.servers[link[1]].told) - 1
        else:
            self.cut.add(link)

    def heal(self) -> None:
        for link in list(self.cut):
            self.cut.discard(link)
            self.seen[link] = len(self.servers[link[1]].told) - 1

    def roll(self, base: str, whole: bool) -> None:
        """A rollout: it locks all servers, starts all nodes or is interrupted, and unlocks one by one."""
        for server in self.servers:
            server.locked = True
        # It waits for what the guards have begun.
        while any(server.busy for server in self.servers):
            self.round()
        for server in self.servers:
            if whole or self.dice.random() < 0.5:
                server.up, server.last, server.runs = True, (0, base), (0, base)
        for _ in self.rounds(self.dice.randint(0, 3)):
            pass
        for server in self.dice.sample(self.servers, len(self.servers)):
            server.locked, server.settled = False, self.now + 1 + SETTLE
            for _ in self.rounds(self.dice.randint(0, 3)):
                pass

    def together(self) -> bool:
        return len({server.runs for server in self.servers}) == 1 and all(s.up for s in self.servers)


@settings(max_examples=400)
@given(st.integers(2, 4), st.integers(0, 2**32))
def test_whatever_happens_all_nodes_end_in_one_generation_and_stay_there(size: int, seed: int) -> None:
    dice = random.Random(seed)
    group, crashes = Group(size, dice), 0
    for number in range(dice.randint(1, 12)):
        for _ in group.rounds(dice.randint(0, 12)):
            pass
        what = dice.choice(["crash", "crash", "forget", "flap", "flap", "roll", "break"])
        server = dice.choice(group.servers)
        if what == "crash" and server.up:
            server.crash()
            crashes += 1
        elif what == "forget" and server.busy is None:
            server.wanted = None
        elif what == "flap":
            group.flap()
        elif what in ("roll", "break"):
            group.roll(f"roll{number}", whole=what == "roll")
    group.heal()
    # Settled, stopped, and started, the head first, each after what it hears; twice if the first time
    # was under way when something happened.
    for _ in group.rounds(SETTLE + 6 * (DELAY + WORK + 1)):
        pass
    assert group.together()
    done = [server.actions for server in group.servers]
    for _ in group.rounds(40):
        assert group.together()
    assert [server.actions for server in group.servers] == done


@settings(max_examples=200)
@given(st.integers(2, 4), st.integers(0, 2**32))
def test_nothing_is_started_without_a_cause(size: int, seed: int) -> None:
    """Guards that are started anew, connections that end, whole rollouts."""
    dice = random.Random(seed)
    group = Group(size, dice)
    for number in range(dice.randint(1, 12)):
        for _ in group.rounds(dice.randint(0, 8)):
            assert group.together()
        what = dice.choice(["forget", "flap", "flap", "roll"])
        if what == "forget":
            dice.choice(group.servers).wanted = None
        elif what == "flap":
            group.flap()
        else:
            group.roll(f"roll{number}", whole=True)
    assert not [server.actions for server in group.servers if server.actions]


@settings(max_examples=200)
@given(st.integers(2, 4), st.integers(0, 2**32))
def test_each_crash_costs_one_start_at_most(size: int, seed: int) -> None:
    dice = random.Random(seed)
    group, crashes = Group(size, dice), 0
    for _ in range(dice.randint(1, 8)):
        for _ in group.rounds(dice.randint(0, 12)):
            pass
        server = dice.choice(group.servers)
        if server.up:
            server.crash()
            crashes += 1
        group.flap()
    group.heal()
    for _ in group.rounds(6 * (DELAY + WORK + 1)):
        pass
    assert group.together()
    assert group.servers[0].last[0] <= crashes
