# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module deployment_directory, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._serving.entry import FOLDER_ARGUMENTS, folder_refused
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("deployment_directory", "_serving.entry", "folder", FOLDER_ARGUMENTS)
    refused = staticmethod(folder_refused)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._task.args.get("state") == "named" and folder_refused(self._task.args) is None:
            return {"changed": False, "path": self._task.args["path"], "left": []}
        return super().run(tmp, task_vars)
