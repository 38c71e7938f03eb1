# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard does for its engines: look by look, with Docker Engine, clock and probers of the test's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import memory, service
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.config import Config
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.generations import Attempts
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.judge import Verdict
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.peers import (
    FRESH,
    LOST,
    UNGUARDED,
    Board,
    Peer,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.service import Service, node_of
from ansible_collections.ascend.pd_rollout.plugins.module_utils._lock import RolloutLock
from guard_servers import DECODE, PREFILL, config, within

ROLLOUT = {"run": "rollout1", "user": "alice", "controller": "control1", "pid": 1}


class Docker:
    """A Docker Engine with containers that end and start as a test has it."""

    def __init__(self, *names: str) -> None:
        self.states = {f"pd-{name}": {"Status": "running", "StartedAt": "t0"} for name in names}
        self.calls: list[str] = []
        self.labels: dict[str, dict[str, str]] = {}
        self.silent, self.starts = False, 0
        self.fails: Callable[[str], None] = lambda name: None

    def containers(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        if self.silent:
            raise DockerError("no answer from the Docker Engine")
        return [
            {"Names": [f"/{name}"], "State": one["Status"], "Labels": self.labels.get(name, {})}
            for name, one in self.states.items()
        ]

    def inspect(self, name: str) -> dict[str, Any] | None:
        state = self.states.get(name)
        return None if state is None else {"Id": "c1", "State": state, "RestartCount": 0}

    def stop(self, name: str, seconds: int) -> bool:
        self.calls.append(f"stop {name}")
        self.end(name.partition("-")[2])
        return True

    def start(self, name: str) -> bool:
        self.calls.append(f"start {name}")
        self.fails(name)
        self.run(name.partition("-")[2])
        return True

    def events(self, labels: dict[str, str]) -> Iterator[dict[str, Any]]:
        threading.Event().wait()
        yield {}

    def run(self, name: str) -> None:
        """A container starts, whoever has it so."""
        self.starts += 1
        self.states[f"pd-{name}"] = {"Status": "running", "StartedAt": f"t{self.starts}"}

    def end(self, name: str, status: int = 1) -> None:
        self.states[f"pd-{name}"] = {"Status": "exited", "ExitCode": status, "FinishedAt": "2026-01-02T03:04"}


class Prober:
    """Finds what a test says."""

    def __init__(self) -> None:
        self.found = Verdict(ready=True)
        self.start, self.accepted = "", 0

    def follow(self, start: str) -> None:
        self.start = start

    def accept(self) -> None:
        self.accepted += 1

    def hurry(self) -> None:
        """It is asked at each look anyway."""

    def verdict(self) -> Verdict:
        return self.found if self.start else Verdict()


class Guard:
    """A guard whose looks, time and threads are the test's."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *instances: dict[str, Any],
        host: str = "server1",
        **more: Any,
    ) -> None:
        monkeypatch.setattr(service, "LOCK", str(folder / "lock"))
        monkeypatch.setattr(service, "TICK", 0.0)
        monkeypatch.setattr(service, "thread", lambda name, work: self.works.append(work))
        monkeypatch.setattr(
            service, "time", SimpleNamespace(monotonic=lambda: self.now, time=time.time, sleep=time.sleep)
        )
        monkeypatch.setattr(Config, "run", property(lambda made: folder))
        (folder / "guard").mkdir(exist_ok=True)
        self.folder, self.now = folder, 1000.0
        self.works: list[Callable[[], None]] = []
        self.lock = RolloutLock(str(folder / "lock"))
        names = [one["name"] for one in instances]
        self.docker = Docker(*names)
        for name in names:
            self.note(name, "aa", "t0")
        self.service = Service(
            config(folder, host, *instances, **more),
            self.docker,  # type: ignore[arg-type]
            self.docker,  # type: ignore[arg-type]
        )
        self.prober = Prober()
        for name in names:
            self.service._probers[name] = [self.prober]  # type: ignore[list-item]

    def note(self, name: str, generation: str, started_at: str, seconds: float | None = None) -> None:
        """A rollout notes a start, and how long it took if that is known."""
        content: dict[str, Any] = {"generation": generation, "container": "c1", "started_at": started_at}
        if seconds is not None:
            content["seconds"] = seconds
        (self.folder / f"{name}.started").write_text(json.dumps(content), encoding="utf-8")

    def look(self, seconds: float = 1.0) -> None:
        """One look, after everything has been looked at again."""
        self.now += seconds
        self.service._stale = True
        self.service._tick()

    def work(self) -> None:
        """Have what was begun end."""
        works = list(self.works)
        self.works.clear()
        for work in works:
            work()

    def looks(self, count: int = 6, seconds: float = 1.0) -> None:
        """Look and act for a while."""
        for _ in range(count):
            self.look(seconds)
            self.work()

    def node(self, name: str = "decode") -> dict[str, Any]:
        """What the others are told of a node."""
        found: dict[str, Any] = self.service.board.mine(-1, 0)[1]["nodes"][name]  # type: ignore[index]
        return found

    def noted(self) -> list[str]:
        return [str(event["what"]) for event in self.service.events.last]

    def hear(self, **node: Any) -> None:
        """The guard of server2 tells of its node of prefill."""
        base = {"state": "up", "why": "", "bad": "", "doubt": "", "need": "", "up": True, "held": ""}
        generation = {"runs": [0, "aa"], "last": [0, "aa"], "wanted": [0, "aa"]}
        self.service.board.hear("server2", FRESH, {"nodes": {"prefill": {**base, **generation, **node}}})


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The guard of a decoder on one server."""
    return Guard(tmp_path, monkeypatch, DECODE)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The guard of the head of a prefiller on two servers."""
    made = Guard(tmp_path, monkeypatch, PREFILL)
    made.hear()
    return made


# ── one engine alone ──────────────────────────────────────────────────────────────────────────────────────


def test_what_runs_is_left_alone(alone: Guard) -> None:
    alone.looks(50, seconds=10)
    assert alone.docker.calls == []
    assert alone.node() == {
        "rank": 0,
        "state": "up",
        "why": "",
        "bad": "",
        "doubt": "",
        "need": "",
        "up": True,
        "runs": (0, "aa"),
        "last": (0, "aa"),
        "wanted": (0, "aa"),
        "held": "",
        "step": "",
        "attempts": 0,
        "given_up": "",
    }


def test_what_has_ended_is_started_once_and_counted_once(alone: Guard) -> None:
    alone.docker.end("decode")
    for _ in range(5):
        alone.look()
    assert len(alone.works) == 1
    alone.looks()
    assert alone.docker.calls == ["start pd-decode"]
    assert (alone.node()["runs"], alone.node()["attempts"]) == ((1, "aa"), 1)
    assert alone.noted()[0].startswith("decode is started anew (1): it ended with status 1")
    # It is remembered.
    assert memory.attempts(alone.folder / "guard" / "state.json")["decode"].starts == 1


def test_a_look_in_the_middle_of_a_start_begins_no_other_one(alone: Guard) -> None:
    """The start is noted before the container runs."""
    alone.docker.end("decode")
    alone.look()
    alone.docker.fails = lambda name: alone.look()
    alone.work()
    alone.docker.fails = lambda name: None
    alone.looks()
    assert alone.docker.calls == ["start pd-decode"]
    assert (alone.node()["runs"], alone.node()["attempts"]) == ((1, "aa"), 1)


def test_after_a_start_nothing_is_decided_by_a_look_from_before(alone: Guard) -> None:
    alone.docker.end("decode")
    alone.look()
    alone.docker.fails = lambda name: alone.look()
    alone.work()
    # Not because a test has it so: the end of the work does.
    assert alone.service._stale
    alone.service._tick()
    assert alone.works == []
    assert alone.node()["runs"] == (1, "aa")


def test_what_hangs_is_stopped_and_started(alone: Guard) -> None:
    alone.look()
    alone.prober.found = Verdict(ready=True, bad="it hangs", hard=False)
    alone.looks()
    assert alone.docker.calls == []
    assert (alone.node()["state"], alone.node()["bad"]) == ("up", "it hangs")
    alone.prober.found = Verdict(ready=True, bad="it hangs", hard=True)
    alone.look()
    alone.work()
    alone.prober.found = Verdict(ready=True)
    alone.looks()
    assert alone.docker.calls == ["stop pd-decode", "start pd-decode"]
    assert alone.node()["attempts"] == 1


def test_the_next_start_waits(alone: Guard) -> None:
    alone.docker.end("decode")
    alone.looks(2)
    alone.docker.end("decode")
    alone.looks(9)
    assert alone.docker.calls == ["start pd-decode"]
    assert alone.node()["step"] == "pauses before the next attempt"
    alone.looks(3)
    assert alone.docker.calls == ["start pd-decode"] * 2


def exhausted(alone: Guard, times: int = 3) -> None:
    """Two attempts are made, and a third one would be too many."""
    for _ in range(times):
        alone.docker.end("decode")
        alone.looks(3, seconds=30)


def test_too_many_starts_in_a_row_are_given_up(alone: Guard) -> None:
    exhausted(alone)
    alone.looks(20, seconds=100)
    assert alone.docker.calls == ["start pd-decode"] * 2
    assert alone.node()["given_up"].startswith("it was started 2 times in a row; last: it ended")
    assert alone.noted()[-1].startswith("decode is given up: it was started 2 times in a row")
    # Nor by another guard of this server.
    assert memory.attempts(alone.folder / "guard" / "state.json")["decode"].given_up


@pytest.mark.parametrize("cause", ["hang", "canary", "loading"])
def test_what_is_given_up_while_it_runs_is_not_stopped(alone: Guard, cause: str) -> None:
    """Nobody would start it."""
    exhausted(alone, times=2)
    calls, runs = list(alone.docker.calls), list(alone.node()["runs"])
    if cause == "hang":
        alone.prober.found = Verdict(ready=True, bad="it hangs", hard=True)
    elif cause == "loading":
        alone.note("decode", f"{runs[1]}+{runs[0]}", f"t{alone.docker.starts}", seconds=1)
        alone.prober.found = Verdict(seen=True)
        alone.looks(2, seconds=8000)
    else:
        alone.service.board.ask({"ask": "restart", "instance": "decode", "runs": runs, "why": "it lies"})
    alone.looks(20, seconds=1)
    assert alone.docker.calls == calls
    assert (alone.node()["up"], alone.node()["held"]) == (True, "it was given up")
    assert alone.node()["given_up"].startswith("it was started 2 times in a row; last: it ")


def test_what_was_given_up_and_started_by_somebody_is_left_alone(alone: Guard) -> None:
    exhausted(alone)
    calls = list(alone.docker.calls)
    alone.docker.run("decode")
    alone.looks()
    alone.prober.found = Verdict(ready=True, bad="it hangs", hard=True)
    alone.looks()
    assert alone.docker.calls == calls
    assert alone.node()["up"]
    # As soon as it has served for long enough, it is kept again.
    alone.prober.found = Verdict(ready=True)
    alone.looks(10, seconds=60)
    alone.docker.end("decode")
    alone.looks()
    assert alone.docker.calls == [*calls, "start pd-decode"]


def test_what_has_served_for_long_ends_its_row(alone: Guard) -> None:
    alone.docker.end("decode")
    alone.looks(4)
    assert alone.node()["attempts"] == 1
    alone.looks(2, seconds=200)
    assert alone.node()["attempts"] == 0
    assert memory.attempts(alone.folder / "guard" / "state.json") == {}


def test_a_start_that_fails_was_one(alone: Guard) -> None:
    def refuse(name: str) -> None:
        raise DockerError("no device", 500)

    alone.docker.fails = refuse
    alone.docker.end("decode")
    alone.looks(20, seconds=30)
    assert alone.docker.calls == ["start pd-decode"] * 2
    assert alone.node()["given_up"]
    assert "decode: no device" in alone.noted()


def test_a_single_engine_may_be_started_by_anybody(alone: Guard) -> None:
    alone.docker.run("decode")
    alone.looks()
    assert alone.docker.calls == []
    assert alone.node()["runs"] == (0, "aa")


def test_an_engine_without_a_container_is_a_rollouts(alone: Guard) -> None:
    alone.docker.states.clear()
    alone.looks()
    assert alone.docker.calls == []
    assert (alone.node()["state"], alone.node()["held"]) == ("missing", "there is no container")


# ── loading ───────────────────────────────────────────────────────────────────────────────────────────────


def loads(guard: Guard, seconds: float, step: float = 10.0) -> None:
    """Time passes while an engine loads."""
    for _ in range(int(seconds / step)):
        guard.looks(1, seconds=step)


@pytest.mark.parametrize(("last", "limit"), [(100.0, 7200.0), (2400.0, 7200.0), (3000.0, 9000.0)])
def test_what_loads_for_three_times_as_long_as_the_last_time_starts_anew(
    alone: Guard, last: float, limit: float
) -> None:
    alone.note("decode", "aa", "t0", last)
    alone.prober.found = Verdict(seen=True)
    loads(alone, limit + 10)
    assert (alone.node()["state"], alone.docker.calls) == ("loading", [])
    alone.look(10)
    alone.work()
    assert alone.docker.calls == ["stop pd-decode"]
    assert f"decode is started anew (1): it has been loading for {limit + 10:.0f} s" in alone.noted()
    # Each start has its own time, and how long the last one took is remembered.
    loads(alone, limit)
    assert alone.docker.calls == ["stop pd-decode", "start pd-decode"]
    loads(alone, 60)
    assert alone.docker.calls == ["stop pd-decode", "start pd-decode", "stop pd-decode", "start pd-decode"]


def test_what_has_never_been_measured_may_load_for_ever(alone: Guard) -> None:
    alone.prober.found = Verdict(seen=True)
    loads(alone, 1_000_000, step=1000)
    assert (alone.node()["state"], alone.docker.calls) == ("loading", [])


def test_what_was_ready_and_hangs_does_not_load(alone: Guard) -> None:
    alone.note("decode", "aa", "t0", 10)
    alone.prober.found = Verdict(seen=True, ready=True, bad="refused")
    loads(alone, 100_000, step=1000)
    assert alone.docker.calls == []


def test_loading_is_counted_from_each_start_whoever_made_it(alone: Guard) -> None:
    alone.note("decode", "aa", "t0", 10)
    alone.prober.found = Verdict(seen=True)
    for _ in range(4):
        loads(alone, 6000, step=100)
        alone.docker.run("decode")
        alone.note("decode", "aa", f"t{alone.docker.starts}", 10)
    assert alone.docker.calls == []


def test_a_rollout_may_have_it_load_for_as_long_as_it_likes(alone: Guard) -> None:
    alone.note("decode", "aa", "t0", 10)
    alone.prober.found = Verdict(seen=True)
    alone.lock.acquire(ROLLOUT)
    loads(alone, 10_000, step=100)
    assert alone.docker.calls == []


def test_a_node_without_an_api_never_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its head says when it is ready."""
    other = Guard(tmp_path, monkeypatch, PREFILL, host="server2")
    other.service._probers["prefill"] = []
    other.note("prefill", "aa", "t0", 10)
    other.service.board.hear("server1", FRESH, {"nodes": {}})
    loads(other, 100_000, step=1000)
    assert (other.node("prefill")["state"], other.docker.calls) == ("up", [])


# ── what keeps the guard from everything ──────────────────────────────────────────────────────────────────


def test_a_rollout_keeps_it_from_everything_and_begins_the_count_anew(alone: Guard) -> None:
    exhausted(alone)
    calls = list(alone.docker.calls)
    alone.lock.acquire(ROLLOUT)
    alone.look()
    assert (alone.node()["held"], alone.works) == ("a rollout holds the lock", [])
    alone.docker.run("decode")
    alone.note("decode", "bb", f"t{alone.docker.starts}")
    alone.looks()
    alone.docker.end("decode")
    alone.looks()
    alone.lock.release("rollout1")
    alone.look()
    # The other guards have to see its end, too.
    assert (alone.node()["held"], alone.works) == ("a rollout has just ended", [])
    assert alone.node()["given_up"] == ""
    alone.looks()
    assert alone.docker.calls == [*calls, "start pd-decode"]
    assert (alone.node()["runs"], alone.node()["attempts"]) == ((1, "bb"), 1)


def test_a_lock_without_a_sign_of_life_keeps_it_from_nothing(
    alone: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.lock.acquire(ROLLOUT)
    assert alone.service.locked()
    held = {"run": "rollout1", "age": 10.0, "silent": service.SILENCE - 1}
    monkeypatch.setattr(RolloutLock, "holder", lambda lock: held)
    assert alone.service.locked()
    held["silent"] = service.SILENCE
    assert not alone.service.locked()
    monkeypatch.setattr(RolloutLock, "holder", lambda lock: {"age": service.AGE, "silent": None})
    assert not alone.service.locked()


OTHERS = {**ROLLOUT, "deployment": "other"}


def test_the_lock_of_another_deployment_holds_nothing(alone: Guard) -> None:
    alone.lock.acquire(OTHERS)
    assert not alone.service.locked()
    alone.docker.end("decode")
    alone.looks(2)
    assert alone.docker.calls == ["start pd-decode"]
    done: list[int] = []
    assert alone.service.undisturbed(lambda: done.append(1)) is True
    assert done == [1]


@pytest.mark.parametrize("owner", [ROLLOUT, {**ROLLOUT, "deployment": "pd"}])
def test_a_lock_of_this_deployment_or_of_nobody_knows_which_holds(
    alone: Guard, owner: dict[str, Any]
) -> None:
    alone.lock.acquire(owner)
    assert alone.service.locked()
    alone.docker.end("decode")
    alone.looks()
    assert alone.docker.calls == []


def test_the_release_of_another_deployments_lock_clears_nothing(alone: Guard) -> None:
    exhausted(alone)
    calls, attempts = list(alone.docker.calls), dict(alone.service.attempts)
    alone.lock.acquire(OTHERS)
    alone.looks()
    alone.lock.release("rollout1")
    alone.looks()
    assert (alone.docker.calls, alone.service.attempts) == (calls, attempts)
    assert alone.node()["held"] == "it was given up"
    assert alone.node()["given_up"]


def test_what_is_unknown_about_the_lock_keeps_it_from_everything(
    alone: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(lock: RolloutLock) -> None:
        raise PermissionError

    monkeypatch.setattr(RolloutLock, "holder", unknown)
    alone.docker.end("decode")
    alone.looks()
    assert alone.docker.calls == []


def test_nothing_is_done_if_a_rollout_has_begun_meanwhile(alone: Guard) -> None:
    alone.docker.end("decode")
    alone.look()
    alone.lock.acquire(ROLLOUT)
    alone.work()
    assert alone.docker.calls == []
    done: list[int] = []
    assert alone.service.undisturbed(lambda: done.append(1)) is False
    alone.lock.release("rollout1")
    assert alone.service.undisturbed(lambda: done.append(1)) is True
    assert done == [1]


def test_two_things_are_done_at_a_time(alone: Guard) -> None:
    """The list changes while an engine is being stopped."""
    inner: list[bool] = []
    alone.service.undisturbed(lambda: inner.append(alone.service.undisturbed(lambda: None)))
    assert inner == [True]


def test_a_drained_server_is_left_alone(alone: Guard) -> None:
    (alone.folder / "drained.json").write_text('{"stop": true}', encoding="utf-8")
    alone.docker.end("decode")
    alone.looks()
    assert alone.docker.calls == []
    assert alone.node()["held"] == "the server is drained"
    (alone.folder / "drained.json").unlink()
    alone.looks()
    assert alone.docker.calls == ["start pd-decode"]


def test_a_silent_docker_engine_says_nothing_about_engines(alone: Guard) -> None:
    alone.look()
    alone.docker.silent = True
    alone.looks()
    node = alone.node()
    assert (node["state"], node["held"]) == ("up", "the Docker Engine does not answer")
    # What has ended with it, its answers tell.
    alone.prober.found = Verdict(ready=True, bad="refused", hard=True)
    alone.looks()
    assert (alone.node()["bad"], alone.docker.calls) == ("refused", [])
    alone.docker.silent = False
    alone.docker.end("decode")
    alone.prober.found = Verdict(ready=True)
    alone.looks()
    assert alone.docker.calls == ["start pd-decode"]
    assert "the Docker Engine answers again" in alone.noted()


def test_before_the_docker_engine_has_answered_nothing_is_known(alone: Guard) -> None:
    alone.docker.silent = True
    alone.looks()
    assert (alone.node()["state"], alone.docker.calls) == ("unknown", [])


# ── an engine on two servers ──────────────────────────────────────────────────────────────────────────────


def test_a_head_that_has_ended_starts_after_its_other_node_has_stopped(head: Guard) -> None:
    head.docker.end("prefill")
    head.looks()
    assert head.docker.calls == []
    assert head.node("prefill")["step"] == "waits for its other nodes to stop"
    head.hear(up=False, runs=None, wanted=[1, "aa"])
    head.looks(1)
    assert head.docker.calls == ["start pd-prefill"]
    head.look()
    assert head.node("prefill")["runs"] == (1, "aa")


@pytest.mark.parametrize("state", [UNGUARDED, LOST])
def test_of_a_server_without_a_guard_nothing_is_known(head: Guard, state: str) -> None:
    head.hear(up=False, runs=None, wanted=[1, "aa"])
    head.service.board.hear("server2", state, None)
    head.docker.end("prefill")
    head.looks()
    assert head.docker.calls == []
    assert head.node("prefill")["step"] == "waits for the guard of node 1"


def test_a_head_stops_when_its_other_node_starts_anew_and_counts_that(head: Guard) -> None:
    head.hear(up=False, runs=None, wanted=[1, "aa"])
    head.looks(1)
    assert head.docker.calls == ["stop pd-prefill"]
    head.looks()
    assert head.docker.calls == ["stop pd-prefill", "start pd-prefill"]
    assert head.node("prefill")["attempts"] == 1


def test_a_node_of_a_group_that_somebody_has_started_starts_anew(head: Guard) -> None:
    head.docker.run("prefill")
    head.looks(1)
    assert head.docker.calls == ["stop pd-prefill"]
    assert "started by somebody else" in head.noted()[0]


def test_nodes_without_records_are_left_alone(head: Guard) -> None:
    """As after a rollout by an earlier release."""
    (head.folder / "prefill.started").unlink()
    head.hear(runs=[0, ""], last=[0, ""], wanted=[0, ""])
    head.looks()
    assert head.docker.calls == []


def test_nothing_is_done_while_the_other_server_is_held(head: Guard) -> None:
    head.hear(held="the server is drained")
    head.docker.end("prefill")
    head.looks()
    assert head.docker.calls == []
    assert head.node("prefill")["step"] == "the server is drained"


def test_why_another_node_starts_anew_is_in_the_count(head: Guard) -> None:
    head.hear(up=False, runs=None, wanted=[1, "aa"], need="it ended with status 139")
    head.looks(1)
    assert "prefill is started anew (1): server2: it ended with status 139" in head.noted()


def test_what_another_node_needed_before_it_was_lost_is_no_reason(head: Guard) -> None:
    head.hear(need="it ended with status 139")
    head.service.board.hear("server2", LOST, None, "the server does not answer")
    assert head.service._their_need(head.service.config.engines[0]) == ""
    head.hear(need="it ended with status 139")
    assert head.service._their_need(head.service.config.engines[0]) == "server2: it ended with status 139"


def test_a_group_that_was_given_up_and_that_somebody_has_started_is_left_alone(head: Guard) -> None:
    """Also after it has served for long: the guard would stop it for having been started by somebody."""
    head.hear(up=False, runs=None, wanted=[3, "aa"], last=[2, "aa"])
    head.service.attempts["prefill"] = Attempts(2, 0.0, "it was started 2 times in a row")
    head.docker.run("prefill")
    head.hear(up=True, runs=None, last=[2, "aa"], wanted=[2, "aa"])
    head.looks(50, seconds=100)
    assert head.docker.calls == []
    assert (head.node("prefill")["held"], head.node("prefill")["up"]) == ("it was given up", True)


class Both:
    """The guards of both servers of a prefiller, which hear each other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "server1").mkdir()
        (folder / "server2").mkdir()
        self.head = Guard(folder / "server1", monkeypatch, PREFILL)
        self.other = Guard(folder / "server2", monkeypatch, PREFILL, host="server2")
        # All threads and the time are the second one's.
        self.head.works = self.other.works

    def tell(self) -> None:
        """Each hears what the other one has told last."""
        for guard, host, hearer in ((self.head, "server1", self.other), (self.other, "server2", self.head)):
            told = guard.service.board.mine(-1, 0)[1]
            if told:
                hearer.service.board.hear(host, FRESH, json.loads(json.dumps(told)))

    def looks(self, count: int = 12) -> None:
        for _ in range(count):
            self.head.look(0)
            self.other.look()
            self.tell()
            self.other.work()

    @property
    def calls(self) -> tuple[list[str], list[str]]:
        found = tuple([call.split()[0] for call in guard.docker.calls] for guard in (self.head, self.other))
        return found[0], found[1]

    @property
    def runs(self) -> tuple[object, object]:
        return self.head.node("prefill")["runs"], self.other.node("prefill")["runs"]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    made = Both(tmp_path, monkeypatch)
    made.looks(2)
    return made


def test_one_crash_costs_one_start_of_each_node(both: Both) -> None:
    both.looks()
    assert both.calls == ([], [])
    both.other.docker.end("prefill")
    both.looks()
    assert both.calls == (["stop", "start"], ["start"])
    assert both.runs == ((1, "aa"), (1, "aa"))
    both.head.docker.end("prefill")
    # With its pause.
    both.looks(24)
    assert both.calls == (["stop", "start", "start"], ["start", "stop", "start"])
    assert both.runs == ((2, "aa"), (2, "aa"))
    assert (both.head.node("prefill")["attempts"], both.other.node("prefill")["attempts"]) == (2, 0)


def test_after_a_loss_of_power_each_node_is_started_once(both: Both) -> None:
    for guard in (both.head, both.other):
        guard.docker.end("prefill")
        guard.service.board._theirs.clear()
    both.looks()
    assert both.calls == (["start"], ["start"])
    assert both.runs == ((1, "aa"), (1, "aa"))


def test_a_rollout_that_ended_midway_is_mended(both: Both) -> None:
    """It has started one node of two, and the other one runs in what was its fourth start."""
    for midway, left in ((both.head, both.other), (both.other, both.head)):
        generation = left.service._looks["prefill"].last
        left.note(
            "prefill", f"{generation[1]}+{generation[0] + 3}", left.docker.states["pd-prefill"]["StartedAt"]
        )
        midway.docker.run("prefill")
        midway.note("prefill", "bb", f"t{midway.docker.starts}")
        both.looks(20)
        assert both.runs[0] == both.runs[1] != (0, "bb")
    done = both.calls
    both.looks()
    assert both.calls == done


def test_a_head_that_gives_up_ends_the_starts_of_all_nodes(both: Both) -> None:
    for _ in range(4):
        both.other.docker.end("prefill")
        both.looks(60)
    assert both.head.node("prefill")["given_up"]
    assert both.calls[0].count("start") == both.calls[1].count("start") == 2
    assert not both.head.node("prefill")["up"]
    # The others are held by that, too, whatever becomes of them.
    assert both.other.node("prefill")["step"] == "it was given up"
    calls = both.calls
    both.other.docker.run("prefill")
    both.looks(60)
    both.other.docker.end("prefill")
    both.looks(60)
    assert both.calls == calls


def test_the_other_node_says_why_all_start_anew(both: Both) -> None:
    both.other.docker.end("prefill", 139)
    both.looks()
    assert [what for what in both.head.noted() if "started anew" in what] == [
        "prefill is started anew (1): server2: it ended with status 139 at 2026-01-02T03:04Z"
    ]
    assert both.other.node("prefill")["need"] == ""


def test_a_group_that_is_given_up_while_it_hangs_is_not_stopped(both: Both) -> None:
    both.head.service.attempts["prefill"] = Attempts(2)
    both.head.prober.found = Verdict(ready=True, bad="it hangs", hard=True)
    both.looks(60)
    assert both.calls == ([], [])
    assert both.head.node("prefill")["given_up"] == "it was started 2 times in a row; last: it hangs"
    assert both.runs == ((0, "aa"), (0, "aa"))


# ── what other guards ask for ─────────────────────────────────────────────────────────────────────────────


def test_a_routers_guard_may_ask_for_another_start(alone: Guard) -> None:
    ask = {"ask": "restart", "instance": "decode", "runs": [0, "aa"], "why": "its canary fails"}
    alone.service.board.ask(ask)
    alone.looks()
    assert alone.docker.calls == ["stop pd-decode", "start pd-decode"]
    # Of a start that is over it is heard no more.
    alone.service.board.ask(ask)
    alone.looks()
    assert len(alone.docker.calls) == 2


@pytest.mark.parametrize(
    "ask",
    [
        {"ask": "restart", "instance": "other", "runs": [0, "aa"]},
        {"ask": "restart", "instance": "decode", "runs": [7, "aa"]},
        {"ask": "stop", "instance": "decode", "runs": [0, "aa"]},
        {},
    ],
)
def test_other_questions_are_not_heard(alone: Guard, ask: dict[str, Any]) -> None:
    alone.service.board.ask(ask)
    alone.looks()
    assert alone.docker.calls == []


def test_what_a_canary_has_found_right_reaches_the_probers(alone: Guard) -> None:
    alone.prober.found = Verdict(ready=True, doubt="it answers 'Lyon'")
    alone.looks(2)
    assert (alone.node()["doubt"], alone.node()["bad"], alone.prober.accepted) == ("it answers 'Lyon'", "", 0)
    alone.service.board.ask({"ask": "accept", "instance": "other"})
    alone.looks(1)
    assert alone.prober.accepted == 0
    alone.service.board.ask({"ask": "accept", "instance": "decode", "from": "server2"})
    alone.looks(2)
    assert (alone.prober.accepted, alone.docker.calls) == (1, [])


def test_a_doubt_is_shown_and_starts_nothing_anew(alone: Guard) -> None:
    alone.prober.found = Verdict(ready=True, doubt="it answers 'Lyon'")
    alone.looks(20, seconds=100)
    found = json.loads((alone.folder / memory.STATUS).read_text(encoding="utf-8"))
    assert found["nodes"]["decode"]["why"] == "it answers 'Lyon'"
    assert alone.docker.calls == []


# ── the router that is to serve ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def proxied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The guard of a server with a decoder and a router, which has no front."""
    prefill = {**PREFILL, "nodes": ["server2"]}
    made = Guard(
        tmp_path, monkeypatch, DECODE, prefill, routers=[{"container": "pd-proxy", "colour": "blue"}]
    )
    made.hear()
    made.docker.run("proxy")
    made.docker.labels["pd-proxy"] = {
        "pd_rollout.prefillers": "192.0.2.1:7100",
        "pd_rollout.decoders": "192.0.2.1:7200",
    }
    made.looks()
    return made


def test_a_router_that_docker_leaves_ended_is_started(proxied: Guard) -> None:
    proxied.docker.end("proxy", 137)
    proxied.looks(3)
    assert proxied.docker.calls == []
    proxied.looks(10)
    assert proxied.docker.calls == ["start pd-proxy"]
    assert "pd-proxy is started: it has ended" in proxied.noted()


def test_a_router_is_started_once_however_long_that_takes(proxied: Guard) -> None:
    proxied.docker.end("proxy", 137)
    for _ in range(10):
        proxied.look()
    assert len(proxied.works) == 1
    # It ends between two looks, of which the second one still shows the router as it was.
    proxied.work()
    proxied.service._stale = False
    proxied.service._tick()
    assert proxied.works == []


def test_a_router_that_does_not_start_is_not_tried_at_each_look(proxied: Guard) -> None:
    def refuse(name: str) -> None:
        raise DockerError("no such image", 500)

    proxied.docker.fails = refuse
    proxied.docker.end("proxy", 137)
    proxied.looks(31)
    assert 5 <= len(proxied.docker.calls) <= 10
    assert "pd-proxy: no such image" in proxied.noted()


def test_a_router_is_left_to_a_rollout(proxied: Guard) -> None:
    proxied.docker.end("proxy")
    proxied.looks(2)
    proxied.lock.acquire(ROLLOUT)
    proxied.looks(10)
    proxied.lock.release("rollout1")
    # The other guards have to see its end, too.
    proxied.looks(2)
    assert (proxied.docker.calls, proxied.noted()) == ([], [])
    proxied.looks(10)
    assert proxied.docker.calls == ["start pd-proxy"]


def test_a_router_is_not_started_if_a_rollout_has_begun_meanwhile(proxied: Guard) -> None:
    proxied.docker.end("proxy")
    for _ in range(5):
        proxied.look()
    proxied.lock.acquire(ROLLOUT)
    proxied.work()
    assert proxied.docker.calls == []


def test_a_router_of_a_drained_role_stays_ended(proxied: Guard) -> None:
    (proxied.folder / "drained.json").write_text('{"stop": true}', encoding="utf-8")
    proxied.docker.end("proxy")
    proxied.looks(10)
    assert proxied.docker.calls == []
    (proxied.folder / "drained.json").unlink()
    proxied.looks(10)
    assert proxied.docker.calls == ["start pd-proxy"]


def test_a_router_of_a_role_that_does_not_serve_waits_for_it(proxied: Guard) -> None:
    proxied.docker.end("proxy")
    proxied.hear(state="loading")
    proxied.looks(10)
    assert proxied.docker.calls == []
    proxied.hear()
    proxied.looks(10)
    assert proxied.docker.calls == ["start pd-proxy"]


def test_an_instance_serves_when_all_its_nodes_are_up_and_in_service(head: Guard) -> None:
    prefill = head.service.config.instances["prefill"]
    assert not head.service._serves(prefill), "nothing has been looked at"
    head.look()
    assert head.service._serves(prefill)
    head.hear(state="loading")
    assert not head.service._serves(prefill)
    head.hear()
    assert head.service._serves(prefill)
    up = {"nodes": {"prefill": {**head.node("prefill"), "rank": 1}}}
    for state, report in (
        (FRESH, {**up, "drained": "drained"}),
        (FRESH, {"nodes": {}}),
        (UNGUARDED, None),
        (LOST, None),
    ):
        head.service.board.hear("server2", state, report)
        assert not head.service._serves(prefill)
    head.service.board.hear("server2", FRESH, up)
    assert head.service._serves(prefill)
    # Its own node counts as well.
    (head.folder / "drained.json").write_text('{"stop": true}', encoding="utf-8")
    head.look()
    assert not head.service._serves(prefill)


def test_without_docker_no_router_is_started(proxied: Guard) -> None:
    proxied.docker.end("proxy")
    proxied.look()
    proxied.docker.silent = True
    proxied.looks(10)
    assert proxied.docker.calls == []


def test_a_node_is_read_as_its_guard_tells_it(head: Guard) -> None:
    head.look()
    sent = json.loads(json.dumps(head.node("prefill")))
    node = node_of(sent)
    assert (node.runs, node.up, node.last, node.wanted, node.held) == (
        (0, "aa"),
        True,
        (0, "aa"),
        (0, "aa"),
        "",
    )
    assert node_of({**sent, "runs": None, "held": None}).runs is None


# ── its life ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_status_is_written_when_it_changes(alone: Guard) -> None:
    path = alone.folder / memory.STATUS
    alone.look()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["format"], found["host"], found["nodes"]["decode"]["state"]) == (1, "server1", "up")
    assert found["servers"] == {"server2": "unknown: ", "server3": "unknown: "}
    path.unlink()
    alone.looks(3)
    assert not path.exists()
    alone.docker.end("decode")
    alone.look()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["nodes"]["decode"]["why"].startswith("it ended with status 1")


def test_it_guards_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(service, "TICK", 0.2)
    monkeypatch.setattr(Config, "run", property(lambda made: tmp_path))
    told: list[str] = []
    monkeypatch.setattr(memory, "notify", told.append)
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "secret").write_bytes(b"one\n")
    sockets: list[Any] = []
    real = service.listen

    def listen(*of: Any) -> Any:
        sockets.append(real("127.0.0.1", 0, *of[2:]))
        return sockets[0]

    monkeypatch.setattr(service, "listen", listen)
    made = config(tmp_path, "server1", {**DECODE, "apis": []}, servers={})
    docker = Docker("decode")
    guard = Service(made, docker, docker)  # type: ignore[arg-type]
    running = threading.Thread(target=guard.run, daemon=True)
    running.start()
    within(lambda: "WATCHDOG=1" in told)
    assert told[0] == "READY=1"
    board = Board()
    peer = Peer("server1", sockets[0].getsockname(), b"one", "server2", board)
    threading.Thread(target=peer.run, daemon=True).start()
    within(lambda: board.theirs("server1")[0] == FRESH)
    assert board.theirs("server1")[1]["nodes"]["decode"]["up"]
    guard.stop()
    within(lambda: board.theirs("server1")[2] == "its guard was stopped")
    running.join()
    assert sockets[0].fileno() < 0
