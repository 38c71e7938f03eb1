# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_wait; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils._distribution.weights_progress import progress
from ..plugin_utils._run.deadlines import SOON, Answering, Silence
from ..plugin_utils._run.parent import ParentRun
from ..plugin_utils._run.screen import show

# Seconds of one long poll, and between two lines of progress of one server.
HOLD = 2.0
SHOW_EVERY = 5.0


def failure(host: str, status: dict[str, Any]) -> str:
    """What the run ends with."""
    found = status.get("finding")
    if not found:
        lines = [
            f"The transfer of the weights on {host} has ended without a word: a reboot, or it was killed.",
            "    cure:     look at the log below and at the server; run again: it goes on where it was",
        ]
    else:
        lines = [
            f"The weights did not come to {host}; what has come stays, and the next run goes on with it.",
            f"- {found['code']}: {found['path']}",
            f"    seen:     {found['seen']}",
            f"    expected: {found['expected']}",
            f"    cure:     {found['cure']}",
        ]
    lines += [f"    log: {line}" for line in status.get("log") or []]
    return "\n".join(lines)


class ActionModule(Answering, ActionBase):
    """Polls M(ascend.pd_rollout.weights_transfer_info) until the server's transfer has ended."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            {"path": {"type": "str", "required": True}, "container": {"type": "str"}}
        )
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True, "msg": "nothing is awaited in check mode"}
        host, hold, shown, line = task_vars["inventory_hostname"], 0.0, time.monotonic(), ""
        begun, run, silence = shown, ParentRun(), Silence(f"the weights of {host}")
        while True:
            run.check(f"the weights of {host}")
            with self._within(hold + SOON, "the weights were awaited"):
                answer = self._execute_module(
                    module_name="ascend.pd_rollout.weights_transfer_info",
                    module_args={**args, "hold": hold},
                    task_vars=task_vars,
                )
            if answer.get("failed") or "status" not in answer:
                raise AnsibleError(answer.get("msg") or f"no report about the transfer: {answer}")
            status, hold = answer["status"], HOLD
            silence.hear({name: status.get(name) for name in ("state", "source", "done")})
            ended = status["state"] in ("complete", "failed", "absent")
            text = progress(status)
            if text != line and (ended or time.monotonic() - shown > SHOW_EVERY) and status.get("source"):
                show(f"{host} weights: {text}")
                line, shown = text, time.monotonic()
            if ended:
                break
        result.update(status=status, seconds=round(time.monotonic() - begun, 1))
        if status["state"] == "complete":
            return {**result, "changed": bool(status.get("source"))}
        message = failure(host, status)
        found, _log = status.pop("finding", None), status.pop("log", None)
        return {**result, "failed": True, "findings": [found] if found else [], "msg": message}
