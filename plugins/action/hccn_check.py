# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module hccn_check, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._hccn.entry import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Runs the module's work on the server."""

    WORK = ServerFunction("hccn_check", "_hccn.entry", "check", ARGUMENTS)
