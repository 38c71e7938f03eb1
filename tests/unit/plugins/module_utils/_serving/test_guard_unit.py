# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard on a server, with systemd replaced by a record of what it was told."""

from __future__ import annotations

import base64
import json
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.filter.guard_digests import guard_digests
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _systemd as systemd
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import guard_unit
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import guard_program
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.guard import unit_word

SETTINGS = {"attempts": 5, "pause": 10, "probe": 5, "stall": 8, "hang": 60, "canary": 60, "answer": 10}
SECRET = "ab" * 32


class Server:
    """A server: which units run, and what systemd was told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units = root / "units"
        self.units.mkdir()
        self.told: list[str] = []
        self.running: set[str] = set()
        self.enabled: set[str] = set()
        self.starts = True

    def run(self, words: list[str]) -> tuple[int, str]:
        verb, unit = words[1], words[-1]
        if words[0] == "journalctl":
            return 0, "no such key"
        if verb == "is-active":
            return (0 if unit in self.running else 3), ""
        if verb == "is-enabled":
            return (0 if unit in self.enabled else 1), ""
        self.told.append(" ".join(words[1:]))
        if verb == "enable":
            self.enabled.add(unit)
        if verb == "disable":
            self.running.discard(unit)
        if verb == "restart":
            if not self.starts:
                return 1, "failed"
            self.running.add(unit)
        return 0, ""

    def directory(self, deployment: str = "pd") -> Path:
        return self.root / "host" / deployment

    def guard(self, deployment: str = "pd", **config: Any) -> dict[str, Any]:
        folder = self.directory(deployment) / "guard"
        start = f"ExecStart=@PYTHON@ -I {folder}/pd-guard.pyz run {folder}/guard.json"
        return {
            "unit": f"{deployment}-guard",
            "directory": str(folder),
            "run": str(self.root / "run" / f"{deployment}-guard"),
            "service": f"# Written by ascend.pd_rollout: change the inventory.\n[Service]\n{start}\n",
            "config": {"deployment": deployment, **config},
        }

    def present(self, deployment: str = "pd", **changes: Any) -> dict[str, Any]:
        self.told.clear()
        guard = changes.pop("guard", None) or self.guard(deployment)
        given = {
            "state": "present",
            "guard": guard_program.reduced(guard),
            "config": guard_program.config(guard, SETTINGS),
            "program": base64.b64encode(guard_program.program()).decode(),
            "secret": SECRET,
            "_check_mode": False,
        }
        return guard_unit.result({**given, **changes})

    def absent(self, deployment: str = "pd", *, check_mode: bool = False) -> dict[str, Any]:
        self.told.clear()
        directory = str(self.directory(deployment))
        return guard_unit.result({"state": "absent", "directory": directory, "_check_mode": check_mode})

    def look(self, deployment: str = "pd", **config: Any) -> dict[str, Any]:
        known = guard_digests(self.guard(deployment, **config), SETTINGS)
        return guard_unit.look(known, str(self.directory(deployment)))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path)
    monkeypatch.setattr(systemd, "UNITS", str(made.units))
    monkeypatch.setattr(systemd, "RUN_UNITS", str(tmp_path / "run_units"))
    monkeypatch.setattr(systemd, "run", made.run)
    monkeypatch.setattr(guard_unit, "COMMAND", str(tmp_path / "bin" / "pd-guard"))
    monkeypatch.setattr(guard_unit, "START_TIMEOUT", 0.0)
    monkeypatch.setattr(guard_unit.safe_paths, "trust", lambda *_: None)
    return made


def command() -> str:
    return Path(guard_unit.COMMAND).read_text()


def test_it_is_written_enabled_and_started(server: Server) -> None:
    assert not server.look()["settled"]
    result = server.present()
    assert result["changed"]
    assert result["done"] == [
        *("wrote pd-guard.pyz", "wrote guard.json", "wrote secret", "wrote pd-guard.service"),
        *("wrote pd-guard", "enabled", "started"),
    ]
    folder = server.directory() / "guard"
    assert json.loads((folder / "guard.json").read_text()) == {"deployment": "pd", "settings": SETTINGS}
    assert (folder / "secret").read_text() == f"{SECRET}\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert f"ExecStart={sys.executable} -I " in (server.units / "pd-guard.service").read_text()
    look = server.look()
    assert (look["settled"], look["outdated"], look["active"]) == (True, [], True)


def test_what_is_as_planned_is_left_alone(server: Server) -> None:
    server.present()
    result = server.present()
    assert (result["changed"], result["done"], server.told) == (False, [], [])


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        ("guard.json", "guard.json"),
        ("pd-guard.pyz", "pd-guard.pyz"),
        ("secret", "secret"),
        ("restart.pending", "restart.pending"),
    ],
)
def test_what_differs_is_written_and_read_anew(server: Server, change: str, outdated: str) -> None:
    server.present()
    (server.directory() / "guard" / change).write_text("other")
    look = server.look()
    assert (look["settled"], look["outdated"]) == (False, [outdated])
    assert server.present()["done"][-1] == "started"
    assert server.look()["settled"]
    assert not (server.directory() / "guard" / "restart.pending").exists()


def test_another_configuration_is_read_by_a_restart(server: Server) -> None:
    server.present()
    assert server.look(address="198.51.100.1")["outdated"] == ["guard.json"]
    result = server.present(guard=server.guard(address="198.51.100.1"))
    assert result["done"] == ["wrote guard.json", "started"]
    assert server.told == ["reset-failed pd-guard.service", "restart pd-guard.service"]


def test_another_secret_is_written(server: Server) -> None:
    server.present()
    before = server.look()["secret_id"]
    assert server.present(secret="cd" * 32)["done"] == ["wrote secret", "started"]
    assert server.look()["secret_id"] not in ("", before, SECRET)


def test_one_that_does_not_run_is_started(server: Server) -> None:
    server.present()
    server.running.clear()
    look = server.look()
    assert (look["settled"], look["outdated"], look["active"]) == (False, [], False)
    assert server.present()["done"] == ["started"]


def test_one_that_does_not_start_says_why(server: Server) -> None:
    server.starts = False
    result = server.present()
    assert result["failed"]
    assert result["findings"][0]["code"] == "guard-not-started"
    assert "no such key" in result["findings"][0]["seen"]
    # It has not read its files: the next run starts it.
    server.starts = True
    assert "restart.pending" in server.look()["outdated"]
    assert server.present()["done"] == ["started"]


def test_the_unit_of_another_stays(server: Server) -> None:
    (server.units / "pd-guard.service").write_text("[Unit]\n")
    result = server.present()
    assert result["findings"][0]["code"] == "guard-unit-foreign"
    assert not server.directory().exists()
    assert not server.absent()["changed"]
    assert (server.units / "pd-guard.service").read_text() == "[Unit]\n"


def test_without_the_path_of_python_nothing_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert server.present()["findings"][0]["code"] == "guard-not-started"
    assert not server.directory().exists()


def test_check_mode_only_looks(server: Server) -> None:
    result = server.present(_check_mode=True)
    assert result["changed"] and not server.directory().exists()
    assert "[Service]" in result["diff"]["after"] and result["diff"]["before"] == ""
    server.present()
    assert not server.present(_check_mode=True)["changed"]
    server.running.clear()
    assert server.present(_check_mode=True)["changed"]
    assert server.absent(check_mode=True)["changed"]
    assert server.look()["present"]


def test_the_difference_has_no_secret(server: Server) -> None:
    result = server.present(guard=server.guard(token="s3cret"))
    assert "s3cret" not in str(result) and SECRET not in str(result)


def test_it_is_removed(server: Server) -> None:
    server.present()
    (server.directory() / "guard" / "state.json").write_text("{}")
    result = server.absent()
    assert result["changed"]
    assert server.told == ["disable --now pd-guard.service", "daemon-reload"]
    assert not (server.directory() / "guard").exists()
    assert not Path(guard_unit.COMMAND).exists()
    assert not server.absent()["changed"]
    assert guard_unit.look({}, str(server.directory()))["settled"]


def test_what_others_have_put_there_stays(server: Server) -> None:
    server.present()
    (server.directory() / "guard" / "notes.txt").write_text("mine")
    server.absent()
    assert [path.name for path in (server.directory() / "guard").iterdir()] == ["notes.txt"]


def test_one_that_is_not_planned_is_not_settled(server: Server) -> None:
    server.present()
    assert not guard_unit.look({}, str(server.directory()))["settled"]
    # Roles that do not ask about the guard are not concerned.
    look = guard_unit.look(None, str(server.directory()))
    assert look["settled"] and look["present"]


def test_the_status_is_what_the_guard_has_said(server: Server) -> None:
    server.present()
    assert server.look()["status"] is None
    run = Path(server.guard()["run"])
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"format": 1}')
    assert server.look()["status"] == {"format": 1}


def test_the_command_runs_the_archive(server: Server) -> None:
    server.present()
    assert len(command().splitlines()) == 2
    done = subprocess.run([guard_unit.COMMAND, "dance"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (64, "usage: pd-guard status [--json]\n")


def test_two_deployments_share_the_command(server: Server) -> None:
    server.present("pd")
    first = command()
    server.present("other")
    assert command() == first
    assert server.look("pd")["settled"] and server.look("other")["settled"]
    server.absent("pd")
    assert shlex.quote(f"{server.directory('other')}/guard/pd-guard.pyz") in command()
    assert server.look("other")["settled"]
    server.absent("other")
    assert not Path(guard_unit.COMMAND).exists()


def test_a_command_of_others_stays(server: Server) -> None:
    Path(guard_unit.COMMAND).parent.mkdir()
    Path(guard_unit.COMMAND).write_text("#!/bin/sh\nexec theirs\n")
    server.present()
    assert "theirs" in command() and server.look()["settled"]
    server.absent()
    assert "theirs" in command()


def test_a_command_of_a_python_that_is_gone_is_written_anew(server: Server) -> None:
    server.present()
    path = Path(guard_unit.COMMAND)
    path.write_text(path.read_text().replace(sys.executable, "/nowhere/python3"))
    assert server.look()["outdated"] == ["pd-guard"]
    # The guard itself goes on.
    assert server.present()["done"] == ["wrote pd-guard"]


def test_a_guard_in_another_directory_is_replaced(server: Server) -> None:
    guard = server.guard()
    old = server.root / "before" / "pd" / "guard"
    moved = {
        **guard,
        "directory": str(old),
        "service": guard["service"].replace(guard["directory"], str(old)),
    }
    server.present(guard=moved)
    assert old.exists()
    server.present()
    assert not old.exists()
    assert server.look()["settled"]
    assert str(server.directory()) in command()


@pytest.mark.parametrize("name", ["50% off", 'a"b', "x$y", "it's", "plain"])
def test_the_directory_is_found_in_the_unit_however_it_is_quoted(server: Server, name: str) -> None:
    directory = server.root / name / "pd"
    folder = directory / "guard"
    words = [unit_word(str(folder / file)) for file in ("pd-guard.pyz", "guard.json")]
    service = f"# Written by ascend.pd_rollout\n[Service]\nExecStart=@PYTHON@ -I {words[0]} run {words[1]}\n"
    guard = {**server.guard(), "directory": str(folder), "service": service}
    assert server.present(guard=guard)["changed"]
    assert not server.present(guard=guard)["changed"]
    # There is none that runs: the archive itself says so.
    said = subprocess.run([guard_unit.COMMAND, "status"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (2, "No guard runs on this server.\n")


@pytest.mark.parametrize(
    ("text", "mode", "known"),
    [(SECRET, 0o600, True), (f"{SECRET}\n", 0o600, True), (SECRET, 0o644, False), ("short", 0o600, False)],
)
def test_a_secret_is_read_if_only_root_can_have(server: Server, text: str, mode: int, *, known: bool) -> None:
    path = server.directory() / "guard" / "secret"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(mode)
    result = guard_unit.secret({"directory": str(server.directory())})
    assert result == {"changed": False, "secret": SECRET if known else ""}


def test_without_a_secret_there_is_none(server: Server) -> None:
    assert guard_unit.secret({"directory": str(server.directory())})["secret"] == ""
    assert guard_unit.secret({"directory": "/etc"})["failed"]
