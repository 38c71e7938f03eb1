# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""When a line of progress is printed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ascend.pd_rollout.plugins.action.engine_wait import ENGINE_INFO
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import polling
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_module import SWITCH
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_script import MARK
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.polling import ProgressLine


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(polling, "show", lines.append)
    return lines


def test_a_new_phase_is_printed_at_once_and_the_same_one_now_and_then(
    printed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(polling.time, "monotonic", lambda: clock[0])
    line = ProgressLine("decode1 image", every=5.0)
    for second, text, phase in (
        (0, "1 MB", "getting"),
        (1, "2 MB", "getting"),
        (2, "loading 1 MB", "loading"),
        (3, "loading 2 MB", "loading"),
        (7, "loading 3 MB", "loading"),
    ):
        clock[0] = second
        line.update(text, phase)
    assert printed == ["decode1 image: 1 MB", "decode1 image: loading 1 MB", "decode1 image: loading 3 MB"]


def test_the_last_line_is_always_printed_but_nothing_twice(printed: list[str]) -> None:
    line = ProgressLine("decode1 weights", every=3600.0)
    line.update("9 of 10 MB", "copying")
    line.update("9 of 10 MB", "copying", note=" (3 s)", final=True)
    line.update("", "copying", final=True)
    line.update("10 of 10 MB", "copying", note=" (4 s)", final=True)
    assert printed == ["decode1 weights: 9 of 10 MB", "decode1 weights: 10 of 10 MB (4 s)"]


def test_a_module_that_failed_hands_its_findings_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"code": "docker-silent", "message": "the Docker Engine does not answer"}
    action = polling.Polling.__new__(polling.Polling)
    monkeypatch.setenv(SWITCH, "0")
    action._task = SimpleNamespace(delegate_to=None, async_val=0)
    monkeypatch.setattr(polling.ParentRun, "check", lambda *_: None)
    monkeypatch.setattr(
        action,
        "_execute_module",
        lambda **_: {"failed": True, "msg": "no answer", "findings": [found]},
        raising=False,
    )
    with pytest.raises(AnsibleActionFail, match="no answer") as raised:
        action._poll(ENGINE_INFO, {}, about="the engines", answers="targets", task_vars={})
    assert raised.value.result["findings"] == [found]


def test_a_poll_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def execute(command: str, in_data: bytes) -> dict[str, object]:
        sent.append(command)
        assert b"_serving.engine_status" in in_data
        return {"rc": 0, "stdout": f'{MARK}{{"targets": []}}\n'}

    action = polling.Polling.__new__(polling.Polling)
    monkeypatch.setattr(polling.ParentRun, "check", lambda *_: None)
    action._task = SimpleNamespace(delegate_to=None, async_val=0, environment=None, check_mode=False)
    action._templar = SimpleNamespace(template=lambda text: text)
    monkeypatch.setattr(action, "_is_pipelining_enabled", lambda _style: True, raising=False)
    monkeypatch.setattr(action, "_low_level_execute_command", execute, raising=False)
    variables = {"ansible_python_interpreter": "/usr/bin/python3"}
    answer = action._poll(
        ENGINE_INFO, {"targets": []}, about="the engines", answers="targets", task_vars=variables
    )
    assert answer == {"targets": []}
    assert sent == ["/usr/bin/python3 -I -"]
