# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The quick way to the module guard_secret_info, which is documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ..module_utils._serving.guard_unit import SECRET_ARGUMENTS
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does."""

    WORK = ServerFunction("guard_secret_info", "_serving.guard_unit", "secret", SECRET_ARGUMENTS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return {**super().run(tmp, task_vars), "_ansible_no_log": True}
