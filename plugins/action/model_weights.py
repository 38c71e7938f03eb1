# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module model_weights, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._transfer.weights_verification import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    # Hashing the weights of a large model on a slow shared file system.
    HASHING = 24 * 3600.0

    WORK = ServerFunction("model_weights", "_transfer.weights_verification", "verify", ARGUMENTS)

    def _own_seconds(self) -> float:
        return self.HASHING if self.WORK.options(self._task.args)["hashes"] == "full" else 0.0
