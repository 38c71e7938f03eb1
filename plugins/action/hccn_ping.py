# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module hccn_ping, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._hccn.entry import PING_ARGUMENTS, longest_pings
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("hccn_ping", "_hccn.entry", "ping", PING_ARGUMENTS)

    def _own_seconds(self) -> float:
        return longest_pings(self.WORK.options(self._task.args))
