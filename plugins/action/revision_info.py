# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module revision_info, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._serving.history import INFO_ARGUMENTS, refused
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("revision_info", "_serving.history", "info", INFO_ARGUMENTS)
    refused = staticmethod(refused)
