# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard remembers, shows and tells systemd."""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import main, memory
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.generations import Attempts


def test_starts_in_a_row_outlast_the_guard_and_their_pauses_do_not(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    known = {"decode": Attempts(3, 500.0, "it was started 3 times"), "prefill": Attempts(0, 0.0)}
    memory.keep(path, known)
    assert memory.attempts(path) == {"decode": Attempts(3, 0.0, "it was started 3 times")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"attempts": []}', '{"attempts": {"a": {"starts": "x"}}}']
)
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    assert memory.attempts(path) == {}
    path.write_text(text, encoding="utf-8")
    assert memory.attempts(path) == {}


def test_what_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    memory.keep(tmp_path / "gone" / "state.json", {"decode": Attempts(1)})
    assert not (tmp_path / "gone").exists()


def test_a_status_may_be_read_by_everybody(tmp_path: Path) -> None:
    memory.write(tmp_path / "status.json", {"why": "→"}, 0o644)
    assert json.loads((tmp_path / "status.json").read_text(encoding="utf-8")) == {"why": "→"}
    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644


def test_events_go_to_the_journal_and_the_last_ones_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    events = memory.Events()
    for what in ("one", "two", "two", "one"):
        events.note(what)
    assert [event["what"] for event in events.last] == ["one", "two", "one"]
    assert capsys.readouterr().out == "one\ntwo\none\n"
    for number in range(2 * memory.EVENTS):
        events.note(str(number))
    assert len(events.last) == memory.EVENTS


def test_a_journal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    events = memory.Events()
    events.note("one")
    assert len(events.last) == 1


def test_systemd_is_told_where_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(path))
        link.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        memory.notify("READY=1")
        assert link.recv(100) == b"READY=1"
    # And nobody where nobody asks, or listens.
    memory.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    memory.notify("READY=1")


@pytest.mark.parametrize("words", [["run"], ["canary", "x"], ["status", "--yaml"], ["help"]])
def test_other_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 64
    assert capsys.readouterr().err == main.USAGE
