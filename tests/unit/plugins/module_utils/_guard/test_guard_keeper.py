# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard does with the routers' list: look by look, with routers, canaries and clock of the test's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import canaries, keeper
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.canaries import Outcome
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.keeper import (
    AGAIN,
    ANEW,
    HARD_WAITS,
    LOST_FOR,
    SOFT_WAITS,
    Keeper,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.lists import GOOD, HARD, SOFT
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.memory import Events
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.peers import (
    FRESH,
    LOST,
    UNGUARDED,
    Board,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.routers import Failed, Lists, Outdated
from guard_servers import config, instance

P1 = instance("prefill1", "server2")
D1 = instance("decode1", "server1", port=7200)
D2 = instance("decode2", "server3", port=7200)
GROUP = {
    **instance("decode2", "server2", "server3", port=7300),
    "apis": ["192.0.2.2:7300", "192.0.2.3:7300"],
}


class Routers:
    """Routers that list what they are told."""

    def __init__(self, instances: Sequence[dict[str, Any]]) -> None:
        base = {
            "prefillers": tuple(
                api for one in instances if one["role"] == "prefiller" for api in one["apis"]
            ),
            "decoders": tuple(api for one in instances if one["role"] == "decoder" for api in one["apis"]),
        }
        self.found: Lists | None = Lists(base, base)
        self.why, self.fails, self.left = "", "", False
        self.changes: list[dict[str, list[str]]] = []
        self.starting: Callable[[], None] = lambda: None

    def lists(self, containers: Mapping[str, Any]) -> Lists | None:
        return self.found

    def closed(self) -> str:
        return self.why

    def close(self, why: str) -> None:
        self.why = why

    def draining(self, containers: Mapping[str, Any]) -> bool:
        return self.left

    def drain(self, go_on: Callable[[], bool]) -> bool:
        self.left = not go_on()
        return not self.left

    def change(
        self, listed: dict[str, list[str]], base: dict[str, tuple[str, ...]], go_on: Callable[[], bool]
    ) -> None:
        self.changes.append(listed)
        self.starting()
        if not go_on():
            raise Outdated("something else is to be listed by now")
        if self.fails:
            raise Failed(self.fails)
        assert self.found is not None
        self.found = Lists({role: tuple(apis) for role, apis in listed.items()}, base)
        self.left = True


class Front:
    """The guard of server1, which has routers: its keeper, and what other guards tell it."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, *instances: dict[str, Any], **more: Any
    ) -> None:
        self.now, self.works = 1000.0, list[Callable[[], None]]()
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now, sleep=lambda seconds: None)
        patch.setattr(keeper, "time", clock)
        patch.setattr(keeper, "thread", lambda name, work: self.works.append(work))
        patch.setattr(keeper, "probe", lambda url, expect, timeout: (url not in self.silent, "refused"))
        patch.setattr(canaries, "run", self.canary)
        self.routers = Routers(instances)
        patch.setattr(keeper, "Routers", lambda *_: self.routers)
        self.config = config(folder, "server1", *instances, **more)
        self.board, self.events = Board(), Events()
        self.rollout, self.docker = False, None
        self.silent: set[str] = set()
        self.told: dict[str, dict[str, Any]] = {}
        self.outcomes: list[Outcome] = []
        self.asked: list[list[dict[str, Any]]] = []
        for one in instances:
            for host in one["nodes"]:
                self.tell(one["name"], host)
        patch.setattr(canaries, "outcome", self.outcome)
        self.keeper = Keeper(self)  # type: ignore[arg-type]

    # What a keeper wants of its service.

    def locked(self) -> bool:
        return self.rollout

    def undisturbed(self, work: Callable[[], None]) -> bool:
        if self.rollout:
            return False
        work()
        return True

    def changed(self) -> None:
        """The next look is a new one anyway."""

    def runs(self, name: str) -> Any:
        return self.told[self.config.host][name]["runs"]

    # What happens.

    def tell(
        self,
        name: str,
        host: str,
        state: str = "up",
        bad: str = "",
        runs: Any = (0, "aa"),
        doubt: str = "",
    ) -> None:
        """A node is so, as its guard tells."""
        nodes = self.told.setdefault(host, {})
        nodes[name] = {"state": state, "why": "", "bad": bad, "doubt": doubt, "runs": runs}
        if host != "server1":
            self.board.hear(host, FRESH, {"nodes": dict(nodes)})

    def canary(self, asked: list[dict[str, Any]], program: Path) -> list[dict[str, Any]]:
        self.asked.append(asked)
        return []

    def outcome(self, results: object, names: Sequence[str]) -> Outcome:
        """What a test has prepared; otherwise all pass."""
        return self.outcomes.pop(0) if self.outcomes else Outcome(tuple(names))

    def look(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.keeper.done()
        self.keeper.tick({}, self.told["server1"], self.now)

    def looks(self, count: int = 4, seconds: float = 1.0) -> None:
        """Look and act for a while."""
        for _ in range(count):
            self.look(seconds)
            works, self.works = self.works, []
            for work in works:
                work()

    @property
    def listed(self) -> list[str]:
        found: list[str] = self.keeper.status()["listed"]
        return found

    def noted(self) -> list[str]:
        return [str(event["what"]) for event in self.events.last]


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    return Front(tmp_path, monkeypatch, P1, D1, D2)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    return Front(tmp_path, monkeypatch, P1, D1)


def test_where_all_is_well_nothing_is_changed(front: Front) -> None:
    front.looks(10)
    assert front.routers.changes == []
    assert front.keeper.status() == {
        "listed": ["prefill1", "decode1", "decode2"],
        "out": {},
        "closed": "",
        "failing": {},
        "comparing": [],
    }


@pytest.mark.parametrize(("state", "bad"), [("down", ""), ("up", "it hangs")])
def test_what_fails_is_out_at_once_and_back_after_its_canary(front: Front, state: str, bad: str) -> None:
    front.looks()
    front.tell("decode2", "server3", state, bad)
    front.looks(2)
    assert front.listed == ["prefill1", "decode1"]
    assert front.routers.changes == [{"prefillers": ["192.0.2.2:7100"], "decoders": ["192.0.2.1:7200"]}]
    out = front.keeper.status()["out"]
    assert list(out) == ["decode2"]
    assert out["decode2"]["why"] == (bad or "it is down")
    assert front.asked == []
    front.tell("decode2", "server3", runs=(1, "aa"))
    front.looks()
    assert front.listed == ["prefill1", "decode1", "decode2"]
    (asked,) = front.asked
    assert [one["only"] for one in asked] == [["decode2"]]
    assert "decode2 has passed its canary" in front.noted()
    assert front.keeper.status()["out"] == {}


def test_what_has_not_passed_its_canary_stays_out(front: Front) -> None:
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3")
    front.outcomes = [Outcome((), (("decode2", "it answers ''"),))]
    front.looks(3)
    assert front.listed == ["prefill1", "decode1"]
    assert front.keeper.status()["comparing"] == ["decode2"]


def test_one_failed_canary_is_repeated_and_forgiven(front: Front) -> None:
    """Nothing else would ever say that it is good again."""
    front.outcomes = [Outcome((), (("decode2", "it answers ''"),))]
    front.looks(3, seconds=60)
    assert "decode2 is out of the list (0.0 s): its canary fails: it answers ''" in front.noted()
    front.looks(10)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert front.board.asks() == []
    assert front.board.outgoing("server3") == []


FAILS = Outcome((), (("decode2", "wrong"), ("prefill1", "wrong")))


def test_failed_canaries_in_a_row_have_one_engine_start_anew_a_decoder_first(front: Front) -> None:
    front.outcomes = [FAILS, FAILS]
    front.looks(3, seconds=60)
    message = {"ask": "restart", "instance": "decode2", "runs": [0, "aa"], "why": "its canary fails: wrong"}
    assert front.board.outgoing("server3") == [message]
    assert front.board.outgoing("server2") == []


def test_the_next_one_starts_anew_only_after_that_has_come_back(front: Front) -> None:
    """Otherwise a minute without a network would cost every engine its start."""

    def asked() -> list[str]:
        found = [*front.board.outgoing("server2"), *front.board.outgoing("server3"), *front.board.asks()]
        return [str(message["instance"]) for message in found]

    everybody = Outcome((), tuple((name, "no answer") for name in ("prefill1", "decode1", "decode2")))
    front.outcomes = [everybody] * 1000
    front.looks(1, seconds=60)
    front.looks(10, seconds=5)
    (first,) = asked()
    host = "server1" if first == "decode1" else "server3"
    front.tell(first, host, "loading")
    front.looks(30, seconds=30)
    assert asked() == []
    # It has come back, and it is still the same: it was not the one, or not the only one.
    front.tell(first, host, runs=(1, "aa"))
    front.looks(1, seconds=300)
    (second,) = asked()
    assert second != first


def test_an_own_engine_is_asked_at_home(front: Front) -> None:
    fails = Outcome((), (("decode1", "wrong"),))
    front.outcomes = [fails, fails]
    front.looks(3, seconds=60)
    assert [(ask["instance"], ask["runs"]) for ask in front.board.asks()] == [("decode1", [0, "aa"])]


def test_of_an_engine_that_was_started_meanwhile_a_canary_says_nothing(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.looks(1)
    fails = Outcome((), (("decode2", "wrong"),))

    def restarted(asked: object, program: object) -> list[dict[str, Any]]:
        front.tell("decode2", "server3", runs=(1, "aa"))
        front.look()
        return []

    front.outcomes = [fails]
    monkeypatch.setattr(canaries, "run", restarted)
    front.looks(1, seconds=60)
    assert front.asked == []
    assert front.keeper.status()["out"] == {}
    assert front.keeper.status()["failing"] == {}


def test_a_canary_that_cannot_ask_changes_nothing(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(asked: object, program: object) -> None:
        raise OSError("no such program")

    monkeypatch.setattr(canaries, "run", fails)
    front.looks(3, seconds=60)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert "the canary cannot ask: no such program" in front.noted()


def test_a_canary_that_breaks_is_followed_by_the_next_one(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3")

    def breaks(*_: object) -> None:
        raise KeyError("pairs")

    with monkeypatch.context() as patch:
        patch.setattr(canaries, "run", breaks)
        with pytest.raises(KeyError):
            front.looks()
        calls = len(front.works)
        # Not at once again.
        front.look()
        assert len(front.works) == calls
    front.looks(8)
    assert front.listed == ["prefill1", "decode1", "decode2"]


def test_canaries_ask_each_instance_again_and_again(front: Front) -> None:
    front.looks(4, seconds=61)
    assert len(front.asked) >= 3
    for asked in front.asked:
        names = {one["instance"] for options in asked for one in options["decoders"]}
        assert names == {"decode1", "decode2"}


def test_engines_without_prefillers_prove_themselves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = Front(tmp_path, monkeypatch, D1, D2, protocol="none")
    front.looks(2, seconds=61)
    assert [options["prefillers"] for options in front.asked[0]] == [[], []]
    front.tell("decode2", "server3", "down")
    front.looks()
    assert front.listed == ["decode1"]
    front.tell("decode2", "server3")
    front.looks(8)
    assert front.listed == ["decode1", "decode2"]


def test_what_never_comes_back_lets_others_start_anew_after_an_hour(front: Front) -> None:
    everybody = Outcome((), (("prefill1", "wrong"), ("decode2", "wrong")))
    front.outcomes = [everybody] * 10000
    front.looks(1, seconds=60)
    front.looks(2, seconds=AGAIN)
    (message,) = front.board.outgoing("server3")
    assert message["instance"] == "decode2"
    asked_at = front.now
    front.tell("decode2", "server3", "down")
    while front.now + 60 < asked_at + ANEW - 60:
        front.looks(1, seconds=60)
        assert front.board.outgoing("server2") == []
    front.looks(10, seconds=60)
    assert [message["instance"] for message in front.board.outgoing("server2")] == ["prefill1"]


# ── what comes back at different times ────────────────────────────────────────────────────────────────────


LAGS = (0, 1, 3, 4, 7, 10)


def onlys(front: Front) -> list[list[str]]:
    """The instances that each comparison was to judge."""
    return [sorted(options["only"]) for asked in front.asked for options in asked if options["only"]]


@pytest.mark.parametrize("first", ["prefill1", "decode1"])
@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("takes", [0, 3, 12])
def test_the_only_ones_of_both_roles_are_compared_whenever_they_come(
    pair: Front, first: str, lag: int, takes: int
) -> None:
    hosts = {"prefill1": "server2", "decode1": "server1"}
    second = "decode1" if first == "prefill1" else "prefill1"
    pair.looks()
    for name, host in hosts.items():
        pair.tell(name, host, "down")
    pair.looks()
    assert pair.routers.why == "no prefiller answers; no decoder answers"
    pair.tell(first, hosts[first], runs=(1, "aa"))
    # Alone it has nobody to be compared with.
    pair.looks(lag)
    assert (pair.asked, bool(pair.routers.why)) == ([], True)
    pair.tell(second, hosts[second], runs=(1, "aa"))
    for _ in range(takes + 1):
        # A canary that takes its time.
        pair.look()
        assert pair.routers.why
    assert len(pair.works) == 1
    pair.looks(3)
    assert onlys(pair) == [["decode1", "prefill1"]]
    assert (pair.routers.why, pair.keeper.status()["comparing"]) == ("", [])


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.45])
def test_many_that_come_back_one_after_the_other_all_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int, jitter: float
) -> None:
    prefillers = [instance(f"prefill{at}", "server2", port=7100 + at) for at in (1, 2, 3)]
    decoders = [instance(f"decode{at}", "server3", port=7200 + at) for at in (1, 2, 3)]
    rows = [*prefillers, *decoders]
    front = Front(tmp_path, monkeypatch, *rows)
    front.told["server1"] = {}
    names = [one["name"] for one in rows]
    hosts = {one["name"]: one["nodes"][0] for one in rows}
    front.looks()
    for name in names:
        front.tell(name, hosts[name], "down")
    front.looks()
    assert front.routers.why
    begin = front.now
    due = dict(zip(names[order:] + names[:order], LAGS, strict=True))
    both = max(
        min(lag for name, lag in due.items() if name.startswith(role)) for role in ("prefill", "decode")
    )
    while front.now < begin + LAGS[-1] + 2 * AGAIN:
        for name in [name for name, lag in due.items() if front.now - begin >= lag]:
            front.tell(name, hosts[name], runs=(1, "aa"))
            del due[name]
        front.looks(1, seconds=1 + jitter)
        if front.now - begin >= both + 4 * (1 + jitter):
            assert front.routers.why == "", front.now - begin
    assert front.listed == names
    assert front.keeper.status()["comparing"] == []
    # What waits is compared together as soon as there is something to compare it with.
    assert len(onlys(front)) <= 5


def test_one_that_keeps_failing_does_not_hold_back_another(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", bad="it hangs")
    front.looks()
    front.tell("decode2", "server3")
    front.outcomes = [silent("decode2")] * 6
    front.looks(200)
    assert front.outcomes == []
    # Its next canary is far away; the next one of another is not.
    front.outcomes = [silent("decode2")] * 4
    front.looks(30)
    front.tell("decode1", "server1", "down")
    front.looks()
    front.tell("decode1", "server1", runs=(1, "aa"))
    front.outcomes = [Outcome(("decode1",), (("decode2", "no answer"),), frozenset({"decode2"}))]
    front.looks(3)
    assert "decode1" in front.listed
    assert "decode1" not in front.keeper.status()["comparing"]


# ── canaries that cannot ask ──────────────────────────────────────────────────────────────────────────────


CANNOT = Outcome(failed="Cannot read the API key")


def test_what_no_canary_can_ask_serves_after_two_of_them(pair: Front) -> None:
    pair.looks()
    pair.tell("decode1", "server1", "down")
    pair.looks()
    pair.tell("decode1", "server1", runs=(1, "aa"))
    pair.outcomes = [CANNOT] * 2
    pair.looks(3)
    assert (len(pair.outcomes), bool(pair.routers.why)) == (1, True)
    pair.looks(int(AGAIN) + 2)
    assert (pair.outcomes, pair.routers.why) == ([], "")
    assert pair.keeper.status()["comparing"] == []
    assert "decode1 counts as good without a canary, since none can ask" in pair.noted()


def test_a_canary_between_that_can_ask_begins_the_count_anew(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3", runs=(1, "aa"))
    nothing = Outcome()
    front.outcomes = [CANNOT, nothing, CANNOT, nothing]
    front.looks(17)
    assert len(front.outcomes) <= 1
    assert front.listed == ["prefill1", "decode1"]


@pytest.mark.parametrize("fault", ["doubted", "wrong", "failing"])
def test_what_speaks_against_one_still_counts_if_no_canary_can_ask(front: Front, fault: str) -> None:
    front.looks()
    if fault == "wrong":
        front.outcomes = [Outcome((), (("decode2", "wrong"),)), *[CANNOT] * 1000]
        front.looks(1, seconds=61)
    else:
        front.outcomes = [CANNOT] * 1000
        bad, doubt = ("it hangs", "") if fault == "failing" else ("", LYON)
        front.tell("decode2", "server3", bad=bad, doubt=doubt)
    front.looks(100)
    assert len(front.outcomes) < 1000
    assert front.listed == ["prefill1", "decode1"]
    assert front.keeper.status()["comparing"] == ["decode2"]


# ── two canaries at a time ────────────────────────────────────────────────────────────────────────────────


def test_a_sample_that_waits_holds_back_no_comparison(front: Front) -> None:
    front.looks()
    front.look(61)
    (sample,) = front.works
    front.works = []
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3", runs=(1, "aa"))
    front.looks()
    assert onlys(front) == [["decode2"]]
    assert front.listed == ["prefill1", "decode1", "decode2"]
    # There is one sample at a time.
    front.look(300)
    assert front.works == []
    sample()
    front.look()
    assert len(front.works) == 1


def test_a_comparison_that_waits_holds_back_no_sample(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3", runs=(1, "aa"))
    front.look()
    (comparison,) = front.works
    front.works = []
    front.looks(70)
    assert (len(front.asked), onlys(front)) == (1, [])
    comparison()
    assert onlys(front) == [["decode2"]]
    front.looks(2)
    assert front.listed == ["prefill1", "decode1", "decode2"]


# ── other answers than before ─────────────────────────────────────────────────────────────────────────────


LYON = "it answers ' Lyon' to what it has answered with 'paris'"
ACCEPT = {"ask": "accept", "instance": "decode2"}


def test_one_that_is_doubted_is_out_and_back_when_its_canary_has_passed_twice(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.looks(2)
    assert front.listed == ["prefill1", "decode1"]
    assert f"decode2 is doubted: {LYON}" in front.noted()
    out, comparing = front.keeper.status()["out"], front.keeper.status()["comparing"]
    assert (out["decode2"]["why"], comparing) == (LYON, ["decode2"])
    # Its canary has passed, and its guard is told; until that has heard it, it stays out.
    assert [options["only"] for (options,) in front.asked] == [["decode2"]]
    assert front.board.outgoing("server3") == [ACCEPT]
    front.looks(2)
    assert front.listed == ["prefill1", "decode1"]
    front.tell("decode2", "server3")
    front.looks(1)
    assert (front.listed, len(front.asked)) == (["prefill1", "decode1"], 1)
    front.looks(6)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert len(front.asked) == 2
    assert "decode2 has passed its canary" in front.noted()
    assert [what for what in front.noted() if "doubted" in what] == [f"decode2 is doubted: {LYON}"]
    assert front.keeper.status()["comparing"] == []


def test_a_guard_that_has_not_heard_it_is_told_again_and_again(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.looks(20)
    messages = front.board.outgoing("server3")
    assert messages == [ACCEPT] * len(front.asked)
    assert 2 <= len(messages) <= 5
    assert front.listed == ["prefill1", "decode1"]


def test_a_doubt_that_has_gone_by_itself_needs_its_canary_all_the_same(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.look()
    front.tell("decode2", "server3")
    front.look()
    assert (front.keeper.status()["comparing"], front.asked) == (["decode2"], [])
    front.looks(6)
    assert len(front.asked) == 1
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert front.board.outgoing("server3") == []


def test_all_nodes_of_one_that_is_right_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever answers otherwise."""
    prefill = {**instance("prefill2", "server1", "server3"), "apis": ["192.0.2.1:7100", "192.0.2.3:7100"]}
    front = Front(tmp_path, monkeypatch, P1, prefill, D1)
    front.looks()
    front.tell("prefill2", "server3", doubt=LYON)
    front.looks(2)
    message = {"ask": "accept", "instance": "prefill2"}
    assert front.board.asks() == front.board.outgoing("server3") == [message]
    assert front.board.outgoing("server2") == []
    assert front.listed == ["prefill1", "decode1"]


def test_one_that_is_doubted_and_fails_its_canary_twice_starts_anew(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.outcomes = [Outcome((), (("decode2", "wrong"),))] * 2
    front.looks(3)
    assert front.board.outgoing("server3") == []
    front.looks(6)
    message = {"ask": "restart", "instance": "decode2", "runs": [0, "aa"], "why": "its canary fails: wrong"}
    assert front.board.outgoing("server3")[0] == message
    # Its next start is no longer doubted, and proves itself.
    front.tell("decode2", "server3", "loading")
    front.looks(2)
    front.tell("decode2", "server3", runs=(1, "aa"))
    front.looks(12)
    assert front.listed == ["prefill1", "decode1", "decode2"]


def test_a_canary_that_passes_between_ends_the_row_of_one_that_is_doubted(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    fails = Outcome((), (("decode2", "wrong"),))
    front.outcomes = [fails, Outcome(("decode2",)), fails, Outcome(("decode2",)), fails]
    front.looks(60)
    assert front.outcomes == []
    assert {message["ask"] for message in front.board.outgoing("server3")} == {"accept"}


def test_the_last_of_its_role_goes_on_though_it_is_doubted(pair: Front) -> None:
    pair.looks()
    pair.tell("decode1", "server1", doubt=LYON)
    pair.looks(3)
    assert (pair.listed, pair.routers.why, pair.routers.changes) == (["prefill1", "decode1"], "", [])
    assert pair.keeper.status()["failing"] == {"decode1": LYON}
    assert pair.board.asks() == [{"ask": "accept", "instance": "decode1"}]


def test_what_fails_is_not_doubted_as_well(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", bad="it hangs", doubt=LYON)
    front.looks(3)
    assert front.keeper.status()["out"]["decode2"]["why"] == "it hangs"
    assert front.asked == []


def test_a_guard_that_is_heard_no_more_doubts_nobody(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.board.hear("server3", UNGUARDED, None, "its guard is of another version")
    front.looks(6)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert front.keeper.status()["comparing"] == []


def test_what_a_canary_says_is_compared_with_the_doubts_of_one_look(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that begins while a canary is read does not make a doubt disappear."""
    front.looks()
    front.tell("decode2", "server3", doubt=LYON)
    front.look()
    real = front.keeper._status

    def read_meanwhile(*of: Any) -> Any:
        works, front.works = front.works, []
        for work in works:
            work()
        return real(*of)

    monkeypatch.setattr(front.keeper, "_status", read_meanwhile)
    front.look()
    assert front.asked
    assert front.keeper.status()["comparing"] == ["decode2"]
    assert front.board.outgoing("server3") == [ACCEPT]


# ── canaries without an answer ────────────────────────────────────────────────────────────────────────────


def silent(*names: str) -> Outcome:
    return Outcome((), tuple((name, "no answer") for name in names), frozenset(names))


def test_one_that_serves_stays_though_its_canary_gets_no_answer(front: Front) -> None:
    """Its guard sees that it works: it is busy with others."""
    front.outcomes = [silent("decode2")] * 5
    front.looks(10, seconds=60)
    assert front.outcomes == []
    assert (front.listed, front.routers.changes) == (["prefill1", "decode1", "decode2"], [])
    assert "the canary of decode2 got no answer: no answer" in front.noted()
    assert (front.keeper.status()["failing"], front.keeper.status()["comparing"]) == ({}, [])
    assert front.board.outgoing("server3") == []


def test_one_that_comes_back_needs_the_answer_and_is_not_started_anew_without(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.looks()
    front.tell("decode2", "server3", runs=(1, "aa"))
    # Those of what is listed pass.
    front.outcomes = [silent("decode2")] * 4
    front.looks(60)
    assert front.outcomes == []
    assert onlys(front)[0] == ["decode2"]
    assert front.board.outgoing("server3") == []
    front.looks(300)
    assert front.listed == ["prefill1", "decode1", "decode2"]


def test_beside_one_that_is_silent_one_that_is_wrong_starts_anew(front: Front) -> None:
    both = Outcome((), (("decode2", "no answer"), ("prefill1", "wrong")), frozenset({"decode2"}))
    front.outcomes = [both, both]
    front.looks(3, seconds=60)
    assert front.board.outgoing("server3") == []
    (message,) = front.board.outgoing("server2")
    assert (message["ask"], message["instance"]) == ("restart", "prefill1")


# ── the last of a role ────────────────────────────────────────────────────────────────────────────────────


def test_the_last_of_a_role_stays_and_the_front_answers_for_it(pair: Front) -> None:
    pair.looks()
    pair.tell("decode1", "server1", "down")
    pair.looks()
    assert (pair.listed, pair.routers.changes) == (["prefill1", "decode1"], [])
    assert pair.routers.why == "no decoder answers"
    assert pair.keeper.status()["failing"] == {"decode1": "it is down"}
    pair.tell("decode1", "server1", runs=(1, "aa"))
    pair.look()
    assert pair.routers.why == "the decoder has just started and is being tested"
    pair.looks()
    assert pair.routers.why == ""
    assert "the front serves again" in pair.noted()


@pytest.mark.parametrize("fault", ["it hangs", ""])
def test_the_last_one_goes_on_while_it_may_answer(pair: Front, fault: str) -> None:
    pair.looks()
    if fault:
        pair.tell("decode1", "server1", bad=fault)
    else:
        pair.outcomes = [Outcome((), (("decode1", "wrong"),))]
    pair.looks(3, seconds=3 if fault else 60)
    assert (pair.listed, pair.routers.why) == (["prefill1", "decode1"], "")


def test_a_guard_that_ends_leaves_the_front_open(pair: Front) -> None:
    pair.tell("decode1", "server1", "down")
    pair.looks()
    assert pair.routers.why
    pair.keeper.leave()
    assert not pair.routers.why


def test_after_its_own_start_what_is_not_listed_proves_itself(front: Front) -> None:
    assert front.routers.found is not None
    base = front.routers.found.base
    front.routers.found = Lists({**base, "decoders": base["decoders"][:1]}, base)
    front.look()
    assert front.keeper.status()["comparing"] == ["decode2"]
    front.looks()
    assert front.listed == ["prefill1", "decode1", "decode2"]


def test_after_its_own_start_at_a_closed_front_all_prove_themselves(pair: Front) -> None:
    pair.routers.why = "no decoder answers"
    pair.look()
    assert pair.routers.why
    pair.looks()
    assert pair.routers.why == ""
    assert pair.asked


# ── rollouts ──────────────────────────────────────────────────────────────────────────────────────────────


def test_during_a_rollout_nothing_is_changed(front: Front) -> None:
    front.looks()
    front.rollout = True
    front.tell("decode2", "server3", "down")
    front.looks(3, seconds=60)
    assert (front.routers.changes, front.asked, front.works) == ([], [], [])


def test_what_a_rollout_has_started_serves_at_once(pair: Front) -> None:
    """It has had its canary."""
    pair.looks()
    pair.rollout = True
    pair.tell("decode1", "server1", "down")
    pair.looks()
    pair.tell("decode1", "server1", runs=(0, "bb"))
    pair.looks()
    pair.rollout = False
    pair.looks()
    assert (pair.routers.why, pair.routers.changes, pair.asked) == ("", [], [])
    assert pair.keeper.status()["comparing"] == []


def test_during_a_rollout_the_front_is_neither_closed_nor_opened(pair: Front) -> None:
    """It opens a front that is closed."""
    pair.looks()
    pair.rollout = True
    pair.tell("decode1", "server1", "down")
    pair.looks()
    assert pair.routers.why == ""
    pair.rollout = False
    pair.looks()
    assert pair.routers.why == "no decoder answers"
    pair.rollout = True
    pair.tell("decode1", "server1", runs=(0, "bb"))
    pair.looks()
    assert pair.routers.why == "no decoder answers"
    # A rollout that did not come so far: all prove themselves.
    pair.rollout = False
    pair.look()
    tested = "has just started and is being tested"
    assert pair.routers.why == f"the prefiller {tested}; the decoder {tested}"
    pair.looks()
    assert pair.routers.why == ""


def test_during_a_rollout_nobody_is_doubted(front: Front) -> None:
    front.looks()
    front.rollout = True
    front.tell("decode2", "server3", doubt=LYON)
    front.looks(3, seconds=60)
    assert (front.works, front.asked, front.routers.changes) == ([], [], [])
    assert front.keeper.status()["comparing"] == []


def test_what_still_fails_after_a_rollout_is_out(front: Front) -> None:
    front.looks()
    front.rollout = True
    front.tell("decode2", "server3", "down")
    front.looks()
    front.rollout = False
    front.looks()
    assert front.listed == ["prefill1", "decode1"]


def test_a_change_that_a_rollout_has_forestalled_is_none(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.look()
    front.rollout = True
    front.looks()
    assert front.routers.changes == []
    assert not [what for what in front.noted() if "out of the list" in what]


# ── changes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_that_fails_is_made_again_later_and_later(front: Front) -> None:
    front.looks()
    front.routers.fails = "the new router is not ready"
    front.tell("decode2", "server3", "down")
    front.looks(16)
    assert len(front.routers.changes) == 3
    assert "the list could not be changed: the new router is not ready" in front.noted()
    front.routers.fails = ""
    front.looks(40)
    assert front.listed == ["prefill1", "decode1"]


def test_a_change_that_is_no_longer_wanted_is_given_up(front: Front) -> None:
    """Its engine has turned out to be well while the new router was starting."""
    front.looks()

    def is_well() -> None:
        front.routers.starting = lambda: None
        front.keeper._unproven.clear()
        front.tell("decode2", "server3")
        front.keeper.tick({}, front.told["server1"], front.now)

    front.routers.starting = is_well
    front.tell("decode2", "server3", "down")
    front.looks(6)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert len(front.routers.changes) == 1
    assert "the list was not changed: something else is to be listed by now" in front.noted()
    assert front.keeper.status()["out"] == {}


def test_a_change_that_is_outdated_is_followed_by_another_one_at_once(front: Front) -> None:
    front.looks()

    def ends_meanwhile() -> None:
        front.routers.starting = lambda: None
        front.tell("decode2", "server3", "down")
        front.tell("decode1", "server1")
        front.keeper.tick({}, front.told["server1"], front.now)

    front.tell("decode1", "server1", "down")
    front.routers.starting = ends_meanwhile
    front.looks(1)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert "the list was not changed: something else is to be listed by now" in front.noted()
    # The other one is unproven: both stay until it has passed its canary.
    front.looks(6)
    assert front.listed == ["prefill1", "decode1"]


def test_one_change_is_made_at_a_time(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    for _ in range(5):
        front.look()
    assert len(front.works) == 1


def test_what_comes_back_waits_until_the_router_before_has_ended(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.looks(1)
    front.keeper._draining = True
    front.tell("decode2", "server3")
    front.looks()
    assert front.listed == ["prefill1", "decode1"]
    front.keeper._draining = False
    front.looks(3)
    assert front.listed == ["prefill1", "decode1", "decode2"]


@pytest.mark.parametrize(("bad", "waits"), [("", HARD_WAITS), ("it hangs", SOFT_WAITS)])
def test_what_is_to_leave_waits_for_a_while_for_the_router_before(
    front: Front, bad: str, waits: float
) -> None:
    """It still answers requests, which are cut then."""
    front.looks()
    front.keeper._draining = True
    front.tell("decode2", "server3", "up" if bad else "down", bad)
    begin = front.now
    while front.now + 1 < begin + waits:
        front.looks(1)
        assert front.listed == ["prefill1", "decode1", "decode2"]
    front.looks(2)
    assert front.listed == ["prefill1", "decode1"]


def test_what_turns_out_to_be_hard_waits_no_longer_than_that(front: Front) -> None:
    front.looks()
    front.keeper._draining = True
    front.tell("decode2", "server3", bad="it hangs")
    front.looks(int(HARD_WAITS) + 2)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    front.tell("decode2", "server3", "down")
    front.looks(2)
    assert front.listed == ["prefill1", "decode1"]


def test_what_comes_back_cuts_no_request_however_long_that_takes(front: Front) -> None:
    front.looks()
    front.tell("decode2", "server3", "down")
    front.looks(1)
    front.keeper._draining = True
    front.tell("decode2", "server3")
    front.looks(int(SOFT_WAITS) * 3)
    # Nor if the guard could not look for as long.
    front.looks(1, seconds=2 * SOFT_WAITS)
    assert front.keeper.status()["comparing"] == []
    assert front.listed == ["prefill1", "decode1"]
    # Nor does its wait count for another one, which is to leave.
    front.tell("decode1", "server1", "down")
    front.looks(int(HARD_WAITS) - 1)
    assert front.listed == ["prefill1", "decode1"]
    front.looks(2)
    assert front.listed == ["prefill1", "decode2"]


def test_without_docker_or_a_router_nothing_is_changed(front: Front) -> None:
    front.tell("decode2", "server3", "down")
    front.keeper.tick(None, front.told["server1"], front.now)
    front.routers.found = None
    front.looks()
    assert (front.routers.changes, front.works) == ([], [])
    assert front.keeper.status()["listed"] == []


def test_a_router_before_that_cannot_be_ended_is_tried_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(go_on: object) -> bool:
        raise DockerError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(front.routers, "drain", fails)
        front.routers.left = True
        front.looks(2)
    assert "the router before cannot be ended: no answer" in front.noted()
    front.looks(2)
    assert not front.routers.left


# ── servers whose guards tell nothing ─────────────────────────────────────────────────────────────────────


def test_an_engine_without_its_guard_is_asked_itself(front: Front) -> None:
    front.looks()
    front.board.hear("server3", UNGUARDED, None, "no guard runs there")
    front.looks()
    assert front.listed == ["prefill1", "decode1", "decode2"]
    front.silent = {"http://192.0.2.3:7200/health"}
    front.look()
    front.looks(1)
    # Once may be chance.
    assert front.keeper._statuses["decode2"].kind != HARD
    front.looks(4)
    assert front.listed == ["prefill1", "decode1"]
    assert front.keeper._statuses["decode2"].why == "server3: refused"


def test_a_server_that_is_lost_needs_one_refusal_only(front: Front) -> None:
    front.looks()
    front.board.hear("server3", LOST, None, "the server does not answer")
    front.look()
    assert front.keeper._statuses["decode2"].kind != HARD
    front.silent = {"http://192.0.2.3:7200/health"}
    front.looks(2)
    assert front.keeper._statuses["decode2"] == (HARD, "server3: the server does not answer", "")


def test_a_guard_that_is_heard_hides_no_server_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = Front(tmp_path, monkeypatch, P1, D1, GROUP)
    front.looks()
    front.board.hear("server3", UNGUARDED, None, "no guard runs there")
    front.silent = {"http://192.0.2.3:7300/health"}
    front.looks(6)
    assert front.keeper._statuses["decode2"].kind == HARD
    assert front.listed == ["prefill1", "decode1"]


def test_a_lost_server_without_an_api_has_its_instance_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = instance("decode2", "server2", "server3", port=7300)
    front = Front(tmp_path, monkeypatch, P1, D1, group)
    front.looks()
    front.board.hear("server3", UNGUARDED, None, "its guard was stopped")
    front.looks()
    assert front.listed == ["prefill1", "decode1", "decode2"]
    front.board.hear("server3", LOST, None, "the server does not answer")
    front.look()
    front.looks(1, seconds=LOST_FOR - 0.1)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    front.looks(2, seconds=0.2)
    assert front.listed == ["prefill1", "decode1"]
    assert front.keeper.status()["out"]["decode2"]["why"] == "server3: the server does not answer"


@pytest.mark.parametrize("state", [FRESH, UNGUARDED])
@pytest.mark.parametrize("report", [{"nodes": {}}, {"nodes": {"decode2": {}}}])
def test_a_server_that_is_lost_again_and_again_for_a_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, report: dict[str, Any]
) -> None:
    """Whatever it says between."""
    group = instance("decode2", "server2", "server3", port=7300)
    front = Front(tmp_path, monkeypatch, P1, D1, group)
    report["nodes"] = {name: front.told["server3"][name] for name in report["nodes"]}
    front.looks()
    for _ in range(10):
        front.board.hear("server3", LOST, None, "the server does not answer")
        front.looks(int(LOST_FOR) - 1)
        front.board.hear("server3", state, report if state == FRESH else None, "no guard runs there")
        front.looks(1)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert front.keeper.status()["comparing"] == []


def test_nodes_of_different_starts_serve_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(tmp_path, monkeypatch, P1, D1, GROUP)
    front.tell("decode2", "server3", runs=(1, "aa"))
    front.look()
    assert front.keeper._statuses["decode2"] == (HARD, "its nodes are of different starts", "")
    front.tell("decode2", "server2", runs=(1, "aa"))
    front.look()
    assert front.keeper._statuses["decode2"] == (GOOD, "", "aa+1")


def test_an_instance_is_as_its_worst_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(tmp_path, monkeypatch, P1, D1, GROUP)
    front.tell("decode2", "server3", bad="it hangs")
    front.look()
    assert front.keeper._statuses["decode2"].kind == SOFT
    front.tell("decode2", "server2", "loading")
    front.look()
    assert front.keeper._statuses["decode2"].kind == HARD


def test_a_guard_that_knows_nothing_yet_says_nothing(front: Front) -> None:
    """It was started anew; its engines were not."""
    front.looks()
    front.tell("decode2", "server3", "unknown")
    front.looks(10)
    assert front.listed == ["prefill1", "decode1", "decode2"]
    assert front.keeper.status()["comparing"] == []


def test_an_api_that_the_plan_does_not_know_is_left_as_it_is(front: Front) -> None:
    assert front.routers.found is not None
    base = front.routers.found.base
    more = {**base, "decoders": (*base["decoders"], "192.0.2.9:7200")}
    front.routers.found = Lists(more, more)
    front.tell("decode2", "server3", "down")
    front.looks()
    assert front.listed == ["prefill1", "decode1", "192.0.2.9:7200"]
