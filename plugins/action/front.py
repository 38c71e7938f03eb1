# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module front, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._front.entry import ARGUMENTS
from ..module_utils._front.present import RELOAD_TIMEOUT, ROUTER_TIMEOUT
from ..module_utils._systemd import TIMEOUT
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("front", "_front.entry", "result", ARGUMENTS)

    def _own_seconds(self) -> float:
        # The check of the configuration, and systemd's commands.
        options = self.WORK.options(self._task.args)
        return RELOAD_TIMEOUT + ROUTER_TIMEOUT + float(options["drain"]) + 6 * TIMEOUT
