# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""What runs commands in the container, what looks at it, and what is said at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action import benchmark_report as report_action
from ansible_collections.ascend.pd_rollout.plugins.action.measurement_wait import verdict
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerApi
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import measurement_status as watch

ROOT = Path(__file__).resolve().parents[5]
RUN = ROOT / "roles" / "_measurement" / "files" / "run.sh"


def start(folder: Path, commands: str, lease: int = 30) -> subprocess.Popen[bytes]:
    (folder / "commands.sh").write_text(commands, encoding="utf-8")
    (folder / "heartbeat").touch()
    return subprocess.Popen(["bash", str(RUN), str(folder), str(lease)], stdin=subprocess.DEVNULL)


def exit_code(folder: Path) -> int:
    return int((folder / "exit_code").read_text())


@pytest.mark.parametrize(
    ("commands", "code", "log"),
    [
        ("set -e\necho one\necho two\n", 0, "one\ntwo\n"),
        ("set -e\necho one\n(exit 7)\necho two\n", 7, "one\n"),
    ],
    ids=["well", "the first that fails ends it"],
)
def test_commands_run_and_tell_how_they_ended(tmp_path: Path, commands: str, code: int, log: str) -> None:
    assert start(tmp_path, commands).wait(20) == code
    assert exit_code(tmp_path) == code
    assert (tmp_path / "log").read_text() == log


def test_they_end_when_nobody_waits_any_longer(tmp_path: Path) -> None:
    running = start(tmp_path, "echo $$ > pid\nexec sleep 60\n", lease=2)
    assert running.wait(30) == exit_code(tmp_path) == 143
    assert "No playbook has been waiting" in (tmp_path / "log").read_text()
    assert ended(int((tmp_path / "pid").read_text()))


def test_they_end_when_the_container_is_stopped(tmp_path: Path) -> None:
    running = start(tmp_path, "echo $$ > pid\nexec sleep 60\n")
    until = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == exit_code(tmp_path) == 143
    assert ended(int((tmp_path / "pid").read_text()))


def test_they_end_when_the_container_is_stopped_at_once(tmp_path: Path) -> None:
    running = start(tmp_path, "kill -TERM $PPID\nexec sleep 60\n")
    assert running.wait(20) == exit_code(tmp_path) == 143


def ended(pid: int) -> bool:
    """Whether a process ends soon."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


class Api:
    """A Docker Engine that knows one container's status, or none."""

    def __init__(self, status: str | None) -> None:
        self.status = status

    def inspect(self, name: str) -> dict[str, Any] | None:
        return None if self.status is None else {"State": {"Status": self.status}}


@pytest.mark.parametrize(
    ("status", "code", "seen"),
    [
        ("running", None, (True, None)),
        ("created", None, (True, None)),
        ("running", 0, (True, None)),
        ("removing", 0, (False, 0)),
        (None, 3, (False, 3)),
        (None, None, (False, None)),
        ("exited", None, (False, None)),
    ],
    ids=["at work", "starting", "about to end", "ended well", "gone with a word", "gone without", "killed"],
)
def test_a_look(tmp_path: Path, status: str | None, code: int | None, seen: tuple[bool, int | None]) -> None:
    if code is not None:
        (tmp_path / "exit_code").write_text(f"{code}\n")
    assert watch.look(tmp_path, "c", Api(status)) == seen


@pytest.mark.parametrize(
    ("code", "log", "parts"),
    [
        (0, [], ["has ended after 12 s"]),
        (3, ["MISSING: AISBench."], ["exit code 3", "\n    MISSING: AISBench."]),
        (None, [], ["without leaving word", "log is empty"]),
    ],
    ids=["well", "failed", "killed"],
)
def test_what_is_said_at_the_end(code: int | None, log: list[str], parts: list[str]) -> None:
    said = verdict("evaluation", code, 12.2, log)
    for part in parts:
        assert part in said


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"completed": 1}))
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[1]")
    found, problems = report_action.read_results(tmp_path, ["a.json", "b.json", "c.json", "d.json"])
    assert list(found) == ["a.json"]
    assert [problem.split()[0] for problem in problems] == ["b.json", "c.json", "there"]


def test_a_silent_docker_engine_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket_path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(watch, "DockerApi", lambda: DockerApi(socket_path))
    (tmp_path / "heartbeat").touch()
    result = watch.info(
        {"directory": str(tmp_path), "container": "pd", "known": "", "hold": 0, "log_lines": 5}
    )
    assert result["failed"]
    assert [finding["code"] for finding in result["findings"]] == ["docker-silent"]
