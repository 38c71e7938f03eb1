# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.engine_drain; documented in plugins/modules."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils._findings import few
from ..module_utils._serving.catalogue import ENGINE_CHECKS
from ..module_utils._serving.engine_requests import ARGUMENTS, left
from ..plugin_utils._run.deadlines import SOON
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.polling import HOLD, Polling, ProgressLine

REQUESTS = ServerFunction("engine_requests_info", "_serving.engine_requests", "result", ARGUMENTS)
# Seconds between two lines of progress.
SHOW_EVERY = 10.0


class ActionModule(Polling):
    """Polls M(ascend.pd_rollout.engine_requests_info) until nothing is left, or the time is up."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        **{name: ARGUMENTS[name] for name in ("engines", "model", "api_key_file")},
        "timeout": {"type": "float", "default": 600.0},
        "kv_timeout": {"type": "float", "default": 30.0},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "nothing is awaited in check mode"}
        host, begun = task_vars["inventory_hostname"], time.monotonic()
        engines = self._drained(options, host, task_vars) if options["engines"] else []
        result: dict[str, Any] = {
            "changed": False,
            "left": left(engines),
            "seconds": round(time.monotonic() - begun, 1),
        }
        running = [one for one in engines if one["requests"]]
        if not running:
            return result
        finding = ENGINE_CHECKS.finding(
            "engine-drain-late",
            f"requests still ran after {options['timeout']:.0f} s, and are cut",
            host=host,
            instance=", ".join(one["instance"] for one in running),
            variable="pd_drain_timeout",
            seen=few(left(running)),
        )
        return {**result, "findings": [finding.to_dict()], "warnings": [f"{host}: {finding.sentence}"]}

    def _drained(self, options: dict[str, Any], host: str, task_vars: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the engines that are not idle when the time is up; none if all are.

        What a prefiller keeps for decoders that have given up is awaited for a shorter time: no router is
        left that could have it fetched.
        """
        line = ProgressLine(f"{host} engines", SHOW_EVERY)
        end = time.monotonic() + options["timeout"]
        kv_end: float | None = None
        hold = 0.0
        while True:
            answer = self._poll(
                REQUESTS,
                {
                    **{name: options[name] for name in ("engines", "model", "api_key_file")},
                    "nudge": kv_end is not None,
                    "hold": hold,
                },
                about=f"the last requests of the engines on {host}",
                answers="engines",
                task_vars=task_vars,
                seconds=hold + SOON,
            )
            busy = [one for one in answer["engines"] if not one["idle"]]
            now = time.monotonic()
            if not any(one["requests"] for one in busy):
                kv_end = now + options["kv_timeout"] if kv_end is None else kv_end
            if not busy or now >= end or (kv_end is not None and now >= kv_end):
                return busy
            hold = HOLD
            line.update("; ".join(left(busy)))
