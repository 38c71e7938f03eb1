# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module host_reach, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._hccn.entry import longest_pings
from ..module_utils._host.reach import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction
from ..plugin_utils._run.run_token import run_token


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("host_reach", "_host.reach", "reach", ARGUMENTS)

    def _own_arguments(self) -> dict[str, Any]:
        """Return the run's token, without which its listeners do not answer."""
        return {"token": run_token()}

    def _own_seconds(self) -> float:
        return longest_pings(self.WORK.options(self._task.args)["pings"])
