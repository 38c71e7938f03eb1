# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.measurement_wait; documented in plugins/modules."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils._run.deadlines import SOON, Answering
from ..plugin_utils._run.parent import ParentRun
from ..plugin_utils._run.screen import show

# Seconds between two lines about the same run, so that hours of progress stay readable.
SHOW_EVERY = 10.0


def verdict(title: str, code: int | None, seconds: float, log: list[str]) -> str:
    """What to say at the end."""
    if code == 0:
        return f"The {title} has ended after {seconds:.0f} s."
    how = "its container ended without leaving word" if code is None else f"it ended with exit code {code}"
    lines = "".join(f"\n    {line}" for line in log) or " (its log is empty)"
    return f"The {title} failed after {seconds:.0f} s: {how}. The last lines of its log:{lines}"


class ActionModule(Answering, ActionBase):
    """Asks M(ascend.pd_rollout.measurement_info) until the end."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            {
                "title": {"type": "str", "default": "measurement"},
                "directory": {"type": "path", "required": True},
                "container": {"type": "str", "required": True},
                "timeout": {"type": "int", "default": 14400},
            }
        )
        result.update(changed=False)
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "nothing is awaited in check mode"}
        host, title = task_vars.get("inventory_hostname", ""), args["title"]
        begun = time.monotonic()
        known, shown, shown_at = "", "", 0.0
        run = ParentRun()
        while True:
            run.check(f"the {title}")
            seen = self._look(args, known, task_vars)
            seconds, known = time.monotonic() - begun, seen["progress"]
            heading = known.split(",")[0]
            if known != shown and (
                heading != shown.split(",")[0] or time.monotonic() - shown_at >= SHOW_EVERY
            ):
                show(f"{host} {title}: {known} ({seconds:.0f} s)")
                shown, shown_at = known, time.monotonic()
            if not seen["running"]:
                ok, message = (
                    seen["exit_code"] == 0,
                    verdict(title, seen["exit_code"], seconds, seen["log"]),
                )
                break
            if seconds > args["timeout"]:
                lines = "".join(f"\n    {line}" for line in seen["log"])
                message = (
                    f"The {title} has not ended after {args['timeout']} s: {known or 'no progress yet'}."
                )
                ok, message = False, f"{message} It is stopped. The last lines of its log:{lines}"
                break
        return {
            **result,
            "ok": ok,
            "msg": message,
            "exit_code": seen["exit_code"],
            "seconds": round(seconds, 1),
        }

    def _look(self, args: dict[str, Any], known: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        given = {"directory": args["directory"], "container": args["container"], "known": known}
        with self._within(SOON, f"the {args['title']} was awaited"):
            seen: dict[str, Any] = self._execute_module(
                module_name="ascend.pd_rollout.measurement_info", module_args=given, task_vars=task_vars
            )
        if seen.get("failed") or "running" not in seen:
            raise AnsibleError(seen.get("msg") or f"no report about the {args['title']}: {seen}")
        return seen
