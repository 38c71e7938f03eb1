# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What guards tell each other: the board, and real connections on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import peers
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.frames import Frames
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.peers import (
    FORMAT,
    FRESH,
    LOST,
    UNGUARDED,
    UNKNOWN,
    Board,
    Peer,
    listen,
)
from guard_servers import within

SECRET = b"the deployment's"


# ── the board ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_told_has_a_version() -> None:
    board = Board()
    assert board.mine(-1, 0) == (0, {})
    board.tell({"a": 1})
    assert board.mine(0, 60) == (1, {"a": 1})
    # The same again is nothing new.
    board.tell({"a": 1})
    assert board.mine(1, 0) == (1, None)


def test_of_a_server_that_is_silent_the_last_report_is_kept() -> None:
    board = Board()
    assert board.theirs("server2") == (UNKNOWN, {}, "")
    board.hear("server2", FRESH, {"nodes": {}})
    board.hear("server2", FRESH, None)
    assert board.theirs("server2") == (FRESH, {"nodes": {}}, "")
    board.hear("server2", LOST, None, "no route")
    assert board.theirs("server2") == (LOST, {"nodes": {}}, "no route")


def test_only_what_is_new_wakes_the_service() -> None:
    board = Board()

    def woken() -> bool:
        found, board._news = board._news, False
        return found

    board.hear("server2", FRESH, {"a": 1})
    assert woken()
    board.hear("server2", FRESH, None)
    board.hear("server2", FRESH, {"a": 1})
    assert not woken()
    board.ask({"ask": "restart"})
    assert woken()
    board.wake()
    # At once, and once.
    board.wait(3600)
    assert not woken()


def test_the_service_is_woken_by_another_thread() -> None:
    board = Board()
    waiting = threading.Thread(target=board.wait, args=(3600,))
    waiting.start()
    board.wake()
    waiting.join()


def test_each_question_is_heard_once() -> None:
    board = Board()
    board.ask({"a": 1})
    board.ask({"a": 2})
    assert board.asks() == [{"a": 1}, {"a": 2}]
    assert board.asks() == []


def test_messages_are_kept_only_for_whom_they_will_reach() -> None:
    board = Board()
    board.send("server2", {"ask": "restart"})
    board.hear("server2", LOST, None)
    board.send("server2", {"ask": "restart"})
    assert board.outgoing("server2") == []
    board.hear("server2", FRESH, {})
    board.send("server2", {"ask": "restart"})
    assert board.outgoing("server2") == [{"ask": "restart"}]
    assert board.outgoing("server2") == []


# ── connections ───────────────────────────────────────────────────────────────────────────────────────────


def report(**more: Any) -> dict[str, Any]:
    """What a guard tells."""
    return {"format": FORMAT, **more}


class Guards:
    """A guard that tells, and another one that hears it; both on loopback."""

    def __init__(self) -> None:
        self.theirs, self.ours = Board(), Board()
        self.listener = listen("127.0.0.1", 0, SECRET, "server2", self.theirs)
        self.at: tuple[str, int] = self.listener.getsockname()

    def hear(self, secret: bytes = SECRET, at: tuple[str, int] | None = None) -> None:
        peer = Peer("server2", at or self.at, secret, "server1", self.ours)
        threading.Thread(target=peer.run, daemon=True).start()

    def close(self) -> None:
        # Whoever accepts is woken by this alone.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    @property
    def state(self) -> str:
        return self.ours.theirs("server2")[0]

    @property
    def report(self) -> dict[str, Any]:
        return self.ours.theirs("server2")[1]

    @property
    def why(self) -> str:
        return self.ours.theirs("server2")[2]


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guards]:
    for name in ("BEAT", "AGAIN"):
        monkeypatch.setattr(peers, name, 0.02)
    # A busy machine may be silent for longer than a guard.
    monkeypatch.setattr(peers, "SILENCE", 60.0)
    monkeypatch.setattr(peers, "GREETING_SECONDS", 60.0)
    made = Guards()
    yield made
    if made.listener.fileno() >= 0:
        made.close()


def test_a_guard_is_heard_as_long_as_it_tells_something(guards: Guards) -> None:
    guards.theirs.tell(report(nodes={"decode": {}}))
    guards.hear()
    within(lambda: guards.state == FRESH)
    assert guards.report == report(nodes={"decode": {}})
    guards.theirs.tell(report(nodes={}))
    within(lambda: guards.report == report(nodes={}))


def test_a_guard_that_has_not_looked_yet_has_told_nothing(guards: Guards) -> None:
    guards.ours.hear("server2", UNGUARDED, {"old": True}, "its guard was stopped")
    guards.hear()
    # The connection is there, and several beats have passed.
    beats = iter(range(5))
    mine = guards.theirs.mine
    counted = threading.Semaphore(0)

    def telling(known: int, seconds: float) -> tuple[int, dict[str, Any] | None]:
        next(beats, None)
        counted.release()
        return mine(known, seconds)

    guards.theirs.mine = telling  # type: ignore[method-assign]
    for _ in range(5):
        counted.acquire()
    assert guards.ours.theirs("server2") == (UNGUARDED, {"old": True}, "its guard was stopped")
    guards.theirs.tell(report(new=True))
    within(lambda: guards.state == FRESH)
    assert guards.report == report(new=True)


def test_a_guard_that_is_stopped_says_so(guards: Guards) -> None:
    guards.theirs.tell(report(nodes={}))
    guards.hear()
    within(lambda: guards.state == FRESH)
    guards.theirs.tell({"bye": True})
    within(lambda: guards.state == UNGUARDED)
    assert (guards.why, guards.report) == ("its guard was stopped", report(nodes={}))
    # And is heard again when it is back.
    guards.theirs.tell(report(nodes={"decode": {}}))
    within(lambda: guards.state == FRESH)


@pytest.mark.parametrize("other", [{}, {"format": FORMAT + 1}, {"format": str(FORMAT)}])
def test_a_guard_of_another_version_tells_nothing(guards: Guards, other: dict[str, Any]) -> None:
    guards.ours.hear("server2", FRESH, report(old=True))
    guards.theirs.tell({"nodes": {"decode": {}}, **other})
    guards.hear()
    within(lambda: guards.state == UNGUARDED)
    assert (guards.why, guards.report) == ("its guard is of another version", report(old=True))
    # After a rollout it is of the same one, and is heard.
    guards.theirs.tell(report(nodes={}))
    within(lambda: guards.state == FRESH)
    assert guards.report == report(nodes={})


def test_a_guard_whose_version_changes_is_heard_no_more(guards: Guards) -> None:
    guards.theirs.tell(report(nodes={}))
    guards.hear()
    within(lambda: guards.state == FRESH)
    guards.theirs.tell({"format": FORMAT + 1, "nodes": {"decode": {}}})
    within(lambda: guards.state == UNGUARDED)
    assert guards.report == report(nodes={})


def test_a_port_that_refuses_belongs_to_a_server_that_lives(guards: Guards) -> None:
    guards.close()
    guards.hear()
    within(lambda: guards.state == UNGUARDED)
    assert guards.why == "no guard runs there"


def test_another_secret_is_told_from_no_guard(guards: Guards) -> None:
    guards.theirs.tell(report(nodes={}))
    guards.hear(b"another")
    within(lambda: guards.state == UNGUARDED)
    assert "secret" in guards.why or "no guard answers" in guards.why
    assert guards.theirs.asks() == []


def test_a_server_that_does_not_answer_is_lost(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> socket.socket:
        raise OSError("no route to host")

    monkeypatch.setattr(peers.socket, "create_connection", unreachable)
    guards.hear()
    within(lambda: guards.state == LOST)
    assert guards.why == "the server does not answer: no route to host"


def test_a_guard_that_hangs_is_none(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "GREETING_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        guards.hear(at=mute.getsockname())
        within(lambda: guards.state == UNGUARDED)
    assert guards.why == "its guard does not answer"


def test_whatever_a_stranger_sends_the_guard_is_heard_again(guards: Guards) -> None:
    """It gets one connection, and the guard the next one."""
    guards.theirs.tell(report(nodes={}))
    strange = socket.create_server(("127.0.0.1", 0))
    at = strange.getsockname()

    def answer() -> None:
        link, _ = strange.accept()
        with link:
            link.sendall(b"0" * 32 + b"\n" + "ü {}\n".encode())
            link.makefile("rb").readline()
        strange.close()
        real = socket.create_server(at)
        threading.Thread(
            target=peers._accept, args=(real, SECRET, "server2", guards.theirs), daemon=True
        ).start()

    threading.Thread(target=answer, daemon=True).start()
    guards.hear(at=at)
    within(lambda: guards.state == FRESH)


def test_a_guard_hears_what_it_is_asked(guards: Guards) -> None:
    guards.theirs.tell(report(nodes={}))
    guards.hear()
    within(lambda: guards.state == FRESH)
    guards.ours.send("server2", {"ask": "restart", "instance": "decode"})
    asked: list[dict[str, Any]] = []
    within(lambda: asked.extend(guards.theirs.asks()) or asked)
    assert asked == [{"ask": "restart", "instance": "decode", "from": "server1"}]


def test_a_connection_that_ends_leaves_no_thread(guards: Guards) -> None:
    def threads() -> int:
        return sum(one.name in ("connection", "reader") for one in threading.enumerate())

    begin = threads()
    for _ in range(3):
        with socket.create_connection(guards.at) as link:
            link.settimeout(60)
            Frames(link, SECRET, "client", "server1")
            within(lambda: threads() > begin)
    within(lambda: threads() <= begin)


def test_an_error_that_nobody_has_foreseen_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "AGAIN", 0.0)
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise KeyError("somebody's answer")

    peers.lasting("work", work).join()
    assert len(tries) == 3
    assert "somebody's answer" in capsys.readouterr().err


def test_too_many_connections_are_refused(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CONNECTIONS", 1)
    few = Guards()
    with socket.create_connection(few.at) as first:
        first.settimeout(60)
        Frames(first, SECRET, "client", "server1")
        with socket.create_connection(few.at) as second:
            second.settimeout(60)
            assert second.recv(1) == b""
    few.close()
