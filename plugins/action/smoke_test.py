# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module smoke_test, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._serving.smoke_test import ARGUMENTS, RATE_SECONDS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("smoke_test", "_serving.smoke_test", "result", ARGUMENTS)

    def _own_seconds(self) -> float:
        # The requests, each engine's metrics ten times, and after a failure a request to each engine.
        options = self.WORK.options(self._task.args)
        engines = len(options["prefillers"]) + len(options["decoders"])
        # Before a front each of two requests may wait for the next minute.
        waits = 2 * RATE_SECONDS if options["front"] else 0.0
        return float(options["timeout"]) * 10 * (1 + engines) + waits
