# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.front_drain; documented in plugins/modules."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils._findings import few
from ..module_utils._front.catalogue import FRONT_CHECKS
from ..module_utils._front.entry import REQUESTS_ARGUMENTS
from ..plugin_utils._run.deadlines import SOON
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

REQUESTS = ServerFunction("front_requests_info", "_front.entry", "requests", REQUESTS_ARGUMENTS)
# Seconds between two lines of progress.
SHOW_EVERY = 10.0


class ActionModule(Polling):
    """Polls M(ascend.pd_rollout.front_requests_info) until no request is left, or the time is up."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "front": {"type": "dict", "required": True},
        "colours": {"type": "list", "elements": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "nothing is awaited in check mode"}
        host, begun = task_vars["inventory_hostname"], time.monotonic()
        limit = float(options["front"]["drain_timeout"])
        left: list[dict[str, Any]] = []
        for colour in options["colours"]:
            left += self._drained(options["front"], colour, host, begun + limit, task_vars)
        seconds = round(time.monotonic() - begun, 1)
        result: dict[str, Any] = {"changed": False, "left": left, "seconds": seconds}
        if not left:
            return result
        count = f"{len(left)} request{'s' * (len(left) != 1)}"
        finding = FRONT_CHECKS.finding(
            "front-drain-late",
            f"{count} still ran through the replaced router after {limit:.0f} s, and will be cut",
            host=host,
            variable="pd_drain_timeout",
            seen=few([f"{one['client']} for {one['age']}" for one in left]),
        )
        return {**result, "findings": [finding.to_dict()], "warnings": [f"{host}: {finding.sentence}"]}

    def _drained(
        self, front: dict[str, Any], colour: str, host: str, until: float, task_vars: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the requests of one router that are left when the time is up; none if it has finished."""
        line = ProgressLine(f"{host} {colour} router", SHOW_EVERY)
        hold = 0.0
        while True:
            answer = self._poll(
                REQUESTS,
                {"front": front, "colour": colour, "hold": hold},
                about=f"the last requests of the {colour} router on {host}",
                answers="running",
                task_vars=task_vars,
                seconds=hold + SOON,
            )
            running = answer["running"]
            if not running:
                return []
            if time.monotonic() >= until:
                return list(answer["left"]) or [{"client": "unknown", "age": "unknown"}] * running
            hold = HOLD
            oldest = max((one["age"] for one in answer["left"]), key=len, default="")
            line.update(
                f"{running} request{'s' * (running != 1)} still running"
                + (f", the oldest for {oldest}" if oldest else "")
            )
