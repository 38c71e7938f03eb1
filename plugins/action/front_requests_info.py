# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module front_requests_info, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._front.entry import REQUESTS_ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("front_requests_info", "_front.entry", "requests", REQUESTS_ARGUMENTS)

    def _own_seconds(self) -> float:
        return float(self.WORK.options(self._task.args)["hold"])
