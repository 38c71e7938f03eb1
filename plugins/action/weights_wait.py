# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_wait; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils._findings import text_of
from ..module_utils._transfer.status import COMPLETE, ENDED
from ..module_utils._transfer.status import begun as begun_status
from ..plugin_utils._distribution.progress import failure, progress
from ..plugin_utils._run.deadlines import SOON, Silence
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

# Seconds between two lines of progress of one server.
SHOW_EVERY = 5.0


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
        status = begun_status()
        line, silence = ProgressLine(f"{host} weights", SHOW_EVERY), Silence(about)
        while status["phase"] not in ENDED:
            status = self._poll(
                "weights_transfer_info",
                {**options, "hold": hold},
                about=about,
                answers="status",
                task_vars=task_vars,
                seconds=hold + SOON,
            )["status"]
            hold = HOLD
            silence.hear({name: status.get(name) for name in ("phase", "source", "done")})
            if status.get("source"):
                line.update(progress(status), final=status["phase"] in ENDED)
        result.update(status=status, seconds=round(time.monotonic() - begun, 1))
        if status["phase"] == COMPLETE:
            return {**result, "changed": bool(status.get("source"))}
        finding = failure(host, status, "weights-transfer-gone")
        log = status.pop("log", None) or []
        status.pop("finding", None)
        head = f"{host} did not get the weights. What has arrived is kept; the next run resumes."
        message = text_of([finding], head, log)
        return {**result, "failed": True, "findings": [finding.to_dict()], "msg": message}
