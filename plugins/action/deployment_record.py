# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module deployment_record, which is documented in plugins/modules."""

from __future__ import annotations

import os
from typing import Any

from ..module_utils._serving.entry import reduced
from ..module_utils._serving.nodes import RECORD_ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction
from ..plugin_utils._run.lock_owner import describe


class ActionModule(PipedModule):
    """Does on the server what the module does, in the name of this run."""

    WORK = ServerFunction("deployment_record", "_serving.nodes", "record", RECORD_ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # Tasks run in workers; the run itself is their parent, the same one for all servers.
        own = {"generation": describe(os.getppid(), "")["run"]}
        self._task.args = {**own, **self._task.args, "planned": reduced(self._task.args.get("planned") or [])}
        return super().run(tmp, task_vars)
