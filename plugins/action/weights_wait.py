# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_wait; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from typing import Any

from ..plugin_utils._distribution.weights_progress import progress
from ..plugin_utils._run.deadlines import SOON, Silence
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

# Seconds between two lines of progress of one server.
SHOW_EVERY = 5.0
ENDED = ("complete", "failed", "absent")


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


class ActionModule(Polling):
    """Polls M(ascend.pd_rollout.weights_transfer_info) until the server's transfer has ended."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            {"path": {"type": "str", "required": True}, "container": {"type": "str"}}
        )
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True, "msg": "nothing is awaited in check mode"}
        host = task_vars["inventory_hostname"]
        about, begun, hold, status = f"the weights of {host}", time.monotonic(), 0.0, {"state": ""}
        line, silence = ProgressLine(f"{host} weights", SHOW_EVERY), Silence(about)
        while status["state"] not in ENDED:
            status = self._poll(
                "weights_transfer_info",
                {**args, "hold": hold},
                about=about,
                answers="status",
                task_vars=task_vars,
                seconds=hold + SOON,
            )["status"]
            hold = HOLD
            silence.hear({name: status.get(name) for name in ("state", "source", "done")})
            if status.get("source"):
                line.update(progress(status), final=status["state"] in ENDED)
        result.update(status=status, seconds=round(time.monotonic() - begun, 1))
        if status["state"] == "complete":
            return {**result, "changed": bool(status.get("source"))}
        message = failure(host, status)
        found, _log = status.pop("finding", None), status.pop("log", None)
        return {**result, "failed": True, "findings": [found] if found else [], "msg": message}
