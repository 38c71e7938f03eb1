# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module engine_requests_info, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._serving.engine_requests import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("engine_requests_info", "_serving.engine_requests", "result", ARGUMENTS)

    def _own_seconds(self) -> float:
        return float(self.WORK.options(self._task.args)["hold"])
