# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module hccn_ping, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils.hccn_server import PING_ARGUMENTS
from ..plugin_utils.piped_module import PipedModule


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    ENTRY = "hccn_server"
    FUNCTION = "ping"
    ARGUMENTS = PING_ARGUMENTS
