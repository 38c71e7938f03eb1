# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Provides a router's modules on a server; documented in plugins/modules/router_modules.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._serving import router_modules
from ..plugin_utils._distribution.router_wheels import WheelError, provided
from ..plugin_utils._run.action import ServerAction
from ..plugin_utils._run.deadlines import LONGEST
from ..plugin_utils._run.fast_module import ServerFunction

UNPACK = ServerFunction("router_modules_unpack", "_serving.router_modules", "work", router_modules.ARGUMENTS)
# Bytes a second: what comes more slowly counts as hung.
SLOWEST = 1e5


class ActionModule(ServerAction):
    """Looks first, and fetches and copies only what is missing."""

    TRANSFERS_FILES = True

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "runtime": {"type": "dict", "required": True},
        "wheels": {"type": "str", "default": ""},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        runtime = options["runtime"]
        path, wheels = runtime["path"], runtime["wheels"]
        seen = self._stage("look", path, wheels, task_vars)
        if seen.get("failed") or seen["complete"] or self._task.check_mode:
            return {**seen, "path": path, "sent": 0}
        try:
            files = provided(wheels[seen["machine"]], options["wheels"])
        except WheelError as error:
            return error.failure(router_modules.FAILED)
        begun = self._stage("begin", path, wheels, task_vars)
        if begun.get("failed"):
            return begun
        sent = 0
        for name, file in files.items():
            size = file.stat().st_size
            with self._within(LONGEST + size / SLOWEST, f"{name} was copied there"):
                copied = self._copied(file, f"{begun['incoming']}/{name}", "0600", task_vars)
            if copied.get("failed"):
                return {"failed": True, "msg": f"{name} could not be copied: {copied.get('msg')}"}
            sent += size
        return {**self._stage("finish", path, wheels, task_vars), "path": path, "sent": sent}

    def _stage(
        self, stage: str, path: str, wheels: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        with self._within(LONGEST, "the modules of the router were looked at"):
            return self._call(UNPACK, {"path": path, "wheels": wheels, "stage": stage}, task_vars)
