# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_wait; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

from ..module_utils._findings import Finding, text_of
from ..module_utils._transfer.catalogue import TRANSFER_CHECKS
from ..plugin_utils._distribution.weights_progress import progress
from ..plugin_utils._run.deadlines import SOON, Silence
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

# Seconds between two lines of progress of one server.
SHOW_EVERY = 5.0
ENDED = ("complete", "failed", "absent")


def failure(host: str, status: dict[str, Any]) -> Finding:
    """What has ended the transfer to a server; a process that left no result is gone."""
    found = status.get("finding")
    if found:
        return replace(Finding.from_dict(found), host=host)
    return TRANSFER_CHECKS.finding("weights-transfer-gone", host=host, seen=f"its state is {status['state']}")


class ActionModule(Polling):
    """Polls M(ascend.pd_rollout.weights_transfer_info) until the server's transfer has ended."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "path": {"type": "str", "required": True},
        "container": {"type": "str"},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True, "msg": "nothing is awaited in check mode"}
        host = task_vars["inventory_hostname"]
        about, begun, hold = f"the weights of {host}", time.monotonic(), 0.0
        status: dict[str, Any] = {"state": ""}
        line, silence = ProgressLine(f"{host} weights", SHOW_EVERY), Silence(about)
        while status["state"] not in ENDED:
            status = self._poll(
                "weights_transfer_info",
                {**options, "hold": hold},
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
        finding = failure(host, status)
        log = status.pop("log", None) or []
        status.pop("finding", None)
        head = f"{host} did not get the weights. What has arrived is kept; the next run resumes."
        message = text_of([finding], head, log)
        return {**result, "failed": True, "findings": [finding.to_dict()], "msg": message}
