# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module docker_image_info, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._transfer.image_entry import ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("docker_image_info", "_transfer.image_entry", "state", ARGUMENTS)
