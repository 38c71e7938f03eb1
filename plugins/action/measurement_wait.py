# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.measurement_wait; documented in plugins/modules."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils._serving.measurement_status import ARGUMENTS as INFO_ARGUMENTS
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.polling import Polling, ProgressLine

MEASUREMENT_INFO = ServerFunction("measurement_info", "_serving.measurement_status", "info", INFO_ARGUMENTS)
# Seconds between two lines about the same run, so that hours of progress stay readable.
SHOW_EVERY = 10.0


def verdict(title: str, code: int | None, seconds: float, log: list[str]) -> str:
    """What to say at the end."""
    if code == 0:
        return f"The {title} has ended after {seconds:.0f} s."
    how = "its container ended without leaving word" if code is None else f"it ended with exit code {code}"
    lines = "".join(f"\n    {line}" for line in log) or " (its log is empty)"
    return f"The {title} failed after {seconds:.0f} s: {how}. The last lines of its log:{lines}"


def too_long(title: str, timeout: int, progress: str, log: list[str]) -> str:
    """What to say of a measurement that is stopped after `timeout` seconds."""
    lines = "".join(f"\n    {line}" for line in log)
    return (
        f"The {title} has not ended after {timeout} s: {progress or 'no progress yet'}. It is stopped."
        f" The last lines of its log:{lines}"
    )


class ActionModule(Polling):
    """Asks M(ascend.pd_rollout.measurement_info) until the end."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "title": {"type": "str", "default": "measurement"},
        "directory": {"type": "path", "required": True},
        "container": {"type": "str", "required": True},
        "timeout": {"type": "int", "default": 14400},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"skipped": True, "msg": "nothing is awaited in check mode"}
        title, begun, known = options["title"], time.monotonic(), ""
        line = ProgressLine(f"{task_vars.get('inventory_hostname', '')} {title}", SHOW_EVERY)
        asked = {"directory": options["directory"], "container": options["container"]}
        while True:
            seen = self._poll(
                MEASUREMENT_INFO,
                {**asked, "known": known},
                about=f"the {title}",
                answers="running",
                task_vars=task_vars,
            )
            seconds, known = time.monotonic() - begun, seen["progress"]
            line.update(known, known.split(",")[0], note=f" ({seconds:.0f} s)")
            if not seen["running"]:
                ok = seen["exit_code"] == 0
                message = verdict(title, seen["exit_code"], seconds, seen["log"])
                break
            if seconds > options["timeout"]:
                ok, message = False, too_long(title, options["timeout"], known, seen["log"])
                break
        exit_code = seen["exit_code"]
        return {"ok": ok, "msg": message, "exit_code": exit_code, "seconds": round(seconds, 1)}
