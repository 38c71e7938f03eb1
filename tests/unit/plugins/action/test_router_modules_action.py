# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the action brings to the server, and when it brings nothing."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.router_modules import ActionModule

NAME = "router-1-cp38-abi3-any_aarch64.whl"
PINS = {NAME: hashlib.sha256(b"a wheel").hexdigest()}
RUNTIME = {"path": "/etc/pd_rollout/pd/vllm-router-1-0", "wheels": {"aarch64": PINS}}


class Action(ActionModule):
    """With a server that answers as told, and notes what is asked of it."""

    def __init__(self, answers: dict[str, dict[str, Any]], check_mode: bool = False) -> None:
        self._task = SimpleNamespace(check_mode=check_mode)
        self.answers = answers
        self.done: list[str] = []

    def _stage(self, stage: str, path: str, wheels: Any, task_vars: Any) -> dict[str, Any]:
        self.done.append(stage)
        return self.answers[stage]

    def _copied(self, source: Path, destination: str, mode: str, task_vars: Any) -> dict[str, Any]:
        self.done.append(destination)
        return self.answers.get("copy", {"changed": True})

    def _within(self, *_arguments: Any, **_options: Any) -> Any:
        return contextlib.nullcontext()


LOOK = {"complete": False, "machine": "aarch64", "changed": True}
BEGIN = {**LOOK, "incoming": "/draft/wheels"}
ANSWERS = {"look": LOOK, "begin": BEGIN, "finish": {"changed": True, "complete": True}}


def run(action: Action, wheels: Path) -> dict[str, Any]:
    return action.work({"runtime": RUNTIME, "wheels": str(wheels)}, {})


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (tmp_path / NAME).write_bytes(b"a wheel")
    return tmp_path


def test_the_wheels_are_brought_and_unpacked(wheels: Path) -> None:
    action = Action(ANSWERS)
    assert run(action, wheels) == {"changed": True, "complete": True, "path": RUNTIME["path"], "sent": 7}
    assert action.done == ["look", "begin", f"/draft/wheels/{NAME}", "finish"]


def test_nothing_is_brought_that_is_there(tmp_path: Path) -> None:
    """No wheels are needed on the controller then."""
    action = Action({"look": {**LOOK, "complete": True, "changed": False}})
    assert run(action, tmp_path)["sent"] == 0
    assert action.done == ["look"]


def test_check_mode_only_looks(tmp_path: Path) -> None:
    action = Action(ANSWERS, check_mode=True)
    assert run(action, tmp_path)["changed"]
    assert action.done == ["look"]


def test_without_the_wheels_nothing_is_begun(tmp_path: Path) -> None:
    action = Action(ANSWERS)
    result = run(action, tmp_path)
    assert [finding["code"] for finding in result["findings"]] == ["router-wheel-missing"]
    assert action.done == ["look"]


@pytest.mark.parametrize("stage", ["look", "begin", "finish", "copy"])
def test_a_failure_ends_it(wheels: Path, stage: str) -> None:
    action = Action({**ANSWERS, stage: {"failed": True, "msg": "no space left"}})
    result = run(action, wheels)
    assert result["failed"]
    assert "no space left" in result["msg"]
