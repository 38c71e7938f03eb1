# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module docker_info, which is documented in plugins/modules."""

from __future__ import annotations

from ..module_utils._docker.entry import INFO_ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("docker_info", "_docker.entry", "docker_info", INFO_ARGUMENTS)
