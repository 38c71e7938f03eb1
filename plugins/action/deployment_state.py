# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module deployment_state, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils.deployment_server import ARGUMENTS, refused
from ..plugin_utils.piped_module import PipedModule


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    ENTRY = "deployment_server"
    FUNCTION = "state"
    ARGUMENTS = ARGUMENTS
    REFUSED = staticmethod(refused)
