# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Modules as scripts: the same result, and the module where the script cannot run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ascend.pd_rollout.plugins.action.hccn_check import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import entry as hccn_server
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import fast_module as p

DEFAULTS = {name: one.get("default") for name, one in hccn_server.ARGUMENTS.items()}


def piped(options: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The script as a server runs it: from its input, in a directory that it must not import from."""
    (folder / "json.py").write_text("raise SystemExit('imported from the directory')")
    return subprocess.run(
        [sys.executable, *p.FLAGS.split(), "-"],
        input=p.script("_hccn.entry", "check", options),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("seconds", "msg")}


def test_the_script_gives_the_module_s_result(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho 'link status: 正常 \"'\n")
    tool.chmod(0o755)
    options = {**DEFAULTS, "chips": [0, 1], "hccn_tool": str(tool), "npu_smi": str(tool / "none")}
    done = piped(options, tmp_path)
    found = p.result_in(f"Welcome!\n{done.stdout}")
    assert found is not None, done.stderr
    assert without_time(found) == without_time(json.loads(json.dumps(hccn_server.check(options))))
    assert found["failed"]


@pytest.mark.parametrize(
    "entry", ["_hccn.entry", "_host.entry", "_serving.entry", "_docker.entry", "_transfer.image_entry"]
)
def test_the_script_needs_nothing_that_a_server_may_lack(entry: str) -> None:
    for name, text in p.sources(entry).items():
        for node in ast.walk(ast.parse(text or "")):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            assert {one.split(".")[0] for one in names} <= sys.stdlib_module_names, name


def test_the_other_scripts_start(tmp_path: Path) -> None:
    for entry, function, options, key in (
        (
            "_hccn.entry",
            "ping",
            {"targets": {}, "timeout": 1, "hccn_tool": "~/none", "kind": "ping"},
            "count",
        ),
        (
            "_host.entry",
            "reach",
            {"targets": [], "timeout": 1, **dict.fromkeys(("listener", "stop"))},
            "count",
        ),
    ):
        text = p.script(entry, function, {"name": "", "patience": 0, **options})
        done = subprocess.run(
            [sys.executable, *p.FLAGS.split(), "-"], input=text, capture_output=True, text=True, check=False
        )
        assert (p.result_in(done.stdout) or {}).get(key) == 0, done.stderr


@pytest.mark.parametrize("output", ["", "bash: python: not found\n", f"{p.MARK}[]\n"])
def test_no_result(output: str) -> None:
    assert p.result_in(output) is None


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
        self.answer = {"rc": 0, "stdout": f'{p.MARK}{{"ok": true}}\n'}

    def validate_argument_spec(self, spec: dict[str, Any]) -> tuple[None, dict[str, Any]]:
        if "wrong" in self._task.args:
            raise AnsibleActionFail("wrong is not an argument")
        return None, {**{name: one.get("default") for name, one in spec.items()}, **self._task.args}

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
    assert server._piped(variables) == {"ok": True}
    assert [one for one, _script in server.commands] == [command]
    compile(server.commands[0][1], "script", "exec")


@pytest.mark.parametrize(
    ("task", "variables"),
    [
        ({}, {}),
        ({}, {"ansible_python_interpreter": "auto"}),
        ({"async_val": 60}, NAMED),
        ({"environment": [{"PATH": "/x"}]}, NAMED),
        ({"delegate_to": "other"}, NAMED),
    ],
    ids=["unknown interpreter", "to be found", "async", "environment", "delegated"],
)
def test_the_module_runs_where_the_script_cannot(task: dict[str, Any], variables: dict[str, Any]) -> None:
    server = Server(**task)
    assert server._piped(variables) is None
    assert server.commands == []


def test_without_pipelining_the_module_runs() -> None:
    server = Server()
    server.pipelining = False
    assert server._piped(NAMED) is None
    assert server.commands == []


@pytest.mark.parametrize(("value", "piped"), [("0", False), ("false", False), ("1", True), ("", True)])
def test_one_switch_turns_it_off(value: str, piped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(p.SWITCH, value)
    assert (Server()._piped(NAMED) == {"ok": True}) is piped


@pytest.mark.parametrize(
    "answer",
    [{"rc": 127, "stdout": ""}, {"rc": 0, "stdout": "no result\n"}],
    ids=["no interpreter", "something else answers"],
)
def test_the_module_says_why_nothing_works(answer: dict[str, Any]) -> None:
    server = Server()
    server.answer = answer
    assert server._piped(NAMED) is None
    assert len(server.commands) == 1


def test_wrong_arguments_go_nowhere() -> None:
    server = Server(args={"wrong": 1})
    with pytest.raises(AnsibleActionFail):
        server._piped(NAMED)
    assert server.commands == []
