# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module host_check, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._host.entry import CHECK_ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule
from ..plugin_utils._run.run_token import run_token


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    ENTRY = "_host.entry"
    FUNCTION = "check"
    ARGUMENTS = CHECK_ARGUMENTS

    def _own_arguments(self) -> dict[str, Any]:
        """The listeners of a run answer those who know its token."""
        return {"token": run_token()}
