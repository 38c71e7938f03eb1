# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The fast path of the module revision, which is documented in plugins/modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from ..module_utils._serving.history import ARGUMENTS, PLAN, refused
from ..plugin_utils._run.fast_module import PipedModule, ServerFunction


class ActionModule(PipedModule):
    """Does on the server what the module does, with the plan from the controller."""

    WORK = ServerFunction("revision", "_serving.history", "keep", ARGUMENTS)
    refused = staticmethod(refused)

    def _own_arguments(self) -> dict[str, Any]:
        # No argument of the task, which is shown with -v: a plan may hold secrets.
        path = Path(self._task.args["folder"], PLAN)
        try:
            return {"plan": path.read_text(encoding="utf-8")}
        except OSError as error:
            raise AnsibleActionFail(f"cannot read {path}: {error.strerror}") from error
