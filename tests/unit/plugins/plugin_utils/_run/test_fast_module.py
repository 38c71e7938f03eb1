# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The script where it can run, else the module."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ascend.pd_rollout.plugins.action import (
    hccn_ping,
    host_reach,
    model_weights,
    smoke_test,
)
from ansible_collections.ascend.pd_rollout.plugins.action.hccn_check import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import fast_module as p
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_script import MARK


class Server(ActionModule):
    """The action on a server that does what the test says."""

    def __init__(self, **task: Any) -> None:
        self._task = SimpleNamespace(
            **{
                "args": {"chips": []},
                "async_val": 0,
                "environment": [{}],
                "delegate_to": None,
                "check_mode": False,
                **task,
            }
        )
        self._templar = SimpleNamespace(template=lambda text: text)
        self.pipelining, self.commands = True, []
        self.answer = {"rc": 0, "stdout": f'{MARK}{{"ok": true}}\n'}

    def piped(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        return self._piped(self.WORK, self._task.args, variables)

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return self.pipelining

    def _low_level_execute_command(self, cmd: str, **more: Any) -> dict[str, Any]:
        self.commands.append((cmd, more["in_data"]))
        return self.answer


NAMED = {"ansible_python_interpreter": "/opt/my python/bin/python3"}
FOUND = {"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.11"}}


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        (NAMED, "'/opt/my python/bin/python3' -I -"),
        (FOUND, "/usr/bin/python3.11 -I -"),
        ({"ansible_python_interpreter": "auto_silent", **FOUND}, "/usr/bin/python3.11 -I -"),
    ],
    ids=["named", "found", "found, as said"],
)
def test_the_interpreter_is_that_of_the_server(variables: dict[str, Any], command: str) -> None:
    server = Server()
    assert server.piped(variables) == {"ok": True}
    assert [one for one, _script in server.commands] == [command]
    compile(server.commands[0][1], "script", "exec")


@pytest.mark.parametrize(
    ("task", "variables"),
    [
        ({"async_val": 60}, NAMED),
        ({"environment": [{"PATH": "/x"}]}, NAMED),
        ({"delegate_to": "other"}, NAMED),
    ],
    ids=["async", "environment", "delegated"],
)
def test_the_module_runs_where_the_script_cannot(task: dict[str, Any], variables: dict[str, Any]) -> None:
    server = Server(**task)
    assert server.piped(variables) is None
    assert server.commands == []


@pytest.mark.parametrize("variables", [{}, {"ansible_python_interpreter": "auto"}], ids=["unset", "auto"])
def test_the_first_interpreter_of_the_server_runs_before_ansible_has_looked(
    variables: dict[str, Any], tmp_path: Path
) -> None:
    server = Server()
    assert server.piped(variables) == {"ok": True}
    tried = dict.fromkeys(("python3.8", "python3.9"), "echo older")
    tried["python3.9"] = 'echo "$(basename "$0") $*"'
    for name, text in tried.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (basename := tmp_path / "basename").symlink_to(shutil.which("basename") or "")
    assert basename.exists()
    shell = shutil.which("sh") or ""
    done = subprocess.run(
        [shell, "-c", server.commands[0][0]],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "python3.9 -I -\n"
    nothing = subprocess.run(
        [shell, "-c", server.commands[0][0].replace("/usr/bin/python3", "none")],
        env={"PATH": "/nonexistent"},
        check=False,
    )
    assert nothing.returncode == 127


def test_an_interpreter_that_is_too_old_and_only_guessed_is_left_to_ansible() -> None:
    server = Server()
    server.answer = {"rc": 0, "stdout": f'{MARK}{{"failed": true, "python": "3.6.15"}}\n'}
    assert server.piped({}) is None
    assert "Python 3.6.15 at" in (server.piped(NAMED) or {})["msg"]


@pytest.mark.parametrize(
    ("action", "arguments", "seconds"),
    [
        (model_weights, {"hashes": "none"}, 0),
        (model_weights, {"hashes": "full"}, 24 * 3600),
        (smoke_test, {}, 1200),
        (smoke_test, {"timeout": 600}, 6000),
        (hccn_ping, {"targets": {"0": ["192.168.0.1"] * 112}, "timeout": 10}, 2240),
        (host_reach, {}, 0),
        (host_reach, {"pings": {"targets": {"0": ["192.168.0.1"], "1": []}, "timeout": 10}}, 20),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value)[:40],
)
def test_long_work_has_the_time_that_it_needs(
    action: ModuleType, arguments: dict[str, Any], seconds: float
) -> None:
    plugin = action.ActionModule.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(args=arguments)
    assert plugin._own_seconds() == seconds


def test_without_pipelining_the_module_runs() -> None:
    server = Server()
    server.pipelining = False
    assert server.piped(NAMED) is None
    assert server.commands == []


@pytest.mark.parametrize(("value", "piped"), [("0", False), ("false", False), ("1", True), ("", True)])
def test_one_switch_turns_it_off(value: str, piped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(p.SWITCH, value)
    assert (Server().piped(NAMED) == {"ok": True}) is piped


@pytest.mark.parametrize(
    "answer",
    [{"rc": 127, "stdout": ""}, {"rc": 0, "stdout": "no result\n"}],
    ids=["no interpreter", "something else answers"],
)
def test_the_module_says_why_nothing_works(answer: dict[str, Any]) -> None:
    server = Server()
    server.answer = answer
    assert server.piped(NAMED) is None
    assert len(server.commands) == 1


def test_wrong_arguments_go_nowhere() -> None:
    server = Server(args={"wrong": 1})
    with pytest.raises(AnsibleActionFail, match=r"hccn_check: .*wrong"):
        server.piped(NAMED)
    assert server.commands == []
