# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_wait; its documentation stands in plugins/modules."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils._findings import text_of
from ..module_utils._transfer.status import COMPLETE, ENDED, WeightsStatus
from ..module_utils._transfer.weights_entry import INFO_ARGUMENTS
from ..plugin_utils._distribution.progress import failure, progress
from ..plugin_utils._run.deadlines import SOON, Silence
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

TRANSFER_INFO = ServerFunction(
    "weights_transfer_info", "_transfer.weights_entry", "transfer_info", INFO_ARGUMENTS
)
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
        answer: dict[str, Any] = {}
        status = WeightsStatus()
        line, silence = ProgressLine(f"{host} weights", SHOW_EVERY), Silence(about)
        while status.phase not in ENDED:
            answer = self._poll(
                TRANSFER_INFO,
                {**options, "hold": hold},
                about=about,
                answers="status",
                task_vars=task_vars,
                seconds=hold + SOON,
            )["status"]
            status = WeightsStatus.from_dict(answer)
            hold = HOLD
            silence.hear({name: getattr(status, name) for name in ("phase", "source", "done")})
            if status.source:
                line.update(progress(status), final=status.phase in ENDED)
        result.update(status=answer, seconds=round(time.monotonic() - begun, 1))
        if status.phase == COMPLETE:
            return {**result, "changed": bool(status.source)}
        finding = failure(host, status, "weights-transfer-gone")
        # These two are in the findings and in the message.
        result["status"] = {name: answer[name] for name in answer if name not in ("finding", "log")}
        head = f"{host} did not get the weights. What has arrived is kept; the next run resumes."
        message = text_of([finding], head, status.log or [])
        return {**result, "failed": True, "findings": [finding.to_dict()], "msg": message}
