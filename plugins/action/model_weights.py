# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module model_weights, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._transfer.weights_verification import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("model_weights", "_transfer.weights_verification", "verify", ARGUMENTS)
