# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The script where it can run, else the module."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.ascend.pd_rollout.plugins.action import (
    canary,
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


ENGINE = {"host": "10.0.0.3", "port": 8004}
ASKED = {"proxy_url": "http://10.0.0.1:8005", "model": "m", "prefillers": [ENGINE]}
INSTANCE = {"instance": "d", "apis": [ENGINE]}
PAIRS = {"protocol": "none", "release": "v0.13.0", "model": "m", "prefillers": [], "decoders": [INSTANCE]}
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


@pytest.mark.parametrize("mode", [None, "auto"])
def test_ansible_looks_for_the_interpreter_once_and_later_tasks_are_told(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def discover(_action: object, _name: str, how: str, _variables: object) -> str:
        looked.append(how)
        return "/usr/bin/python3.9"

    monkeypatch.setattr(p, "discover_interpreter", discover)
    server = Server()
    variables = {"ansible_python_interpreter": mode} if mode else {}
    for _again in range(2):
        assert server.piped(variables) == {
            "ok": True,
            "ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.9"},
        }
    assert [command for command, _script in server.commands] == ["/usr/bin/python3.9 -I -"] * 2
    # Ansible says nothing of what it finds where ansible.cfg has it so.
    assert looked == [mode or "auto_silent"]
    assert server.piped(FOUND)


def test_a_server_that_is_lost_while_ansible_looks_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        raise error

    server = Server()
    monkeypatch.setattr(p, "discover_interpreter", lambda *_: fail(ValueError("unexpected output")))
    assert server.piped({}) is None
    monkeypatch.setattr(p, "discover_interpreter", lambda *_: fail(AnsibleConnectionFailure("lost")))
    with pytest.raises(AnsibleConnectionFailure):
        server.piped({})


def test_an_interpreter_that_is_too_old_is_named() -> None:
    server = Server()
    server.answer = {"rc": 0, "stdout": f'{MARK}{{"failed": true, "python": "3.6.15"}}\n'}
    assert "Python 3.6.15 at" in (server.piped(NAMED) or {})["msg"]


@pytest.mark.parametrize(
    ("action", "arguments", "seconds"),
    [
        (model_weights, {"path": "/w", "hashes": "none"}, 0),
        (model_weights, {"path": "/w", "hashes": "full"}, 24 * 3600),
        (smoke_test, {**ASKED, "decoders": []}, 2400),
        (smoke_test, {**ASKED, "decoders": [ENGINE] * 2, "timeout": 600}, 24000),
        # Three prompts: alone, and four times as a pair.
        (canary, PAIRS, 900),
        (canary, {**PAIRS, "prefillers": [INSTANCE] * 2, "timeout": 10}, 270),
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
