# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module deployment_info, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._serving.entry import ARGUMENTS, reduced, refused
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("deployment_info", "_serving.entry", "state", ARGUMENTS)
    refused = staticmethod(refused)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self._task.args = {**self._task.args, "planned": reduced(self._task.args.get("planned") or [])}
        return super().run(tmp, task_vars)
