# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module docker_image_state, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils.image_server import ARGUMENTS
from ..plugin_utils.piped_module import PipedModule


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    ENTRY = "image_server"
    FUNCTION = "state"
    ARGUMENTS = ARGUMENTS
