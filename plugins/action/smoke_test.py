# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module smoke_test, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._serving.smoke_test import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("smoke_test", "_serving.smoke_test", "result", ARGUMENTS)

    def _own_seconds(self) -> float:
        # The requests, and after a failure one to each kind of engine for each of them.
        return 10 * float(self._task.args.get("timeout") or ARGUMENTS["timeout"]["default"])
