# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.guard_secret; documented in plugins/modules."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils._checks.results import registered
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._serving.guards import shared_secret


class ActionModule(ControllerAction):
    """Chooses the secret of a deployment among those of its servers, or makes one."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        found = [registered(task_vars, name, options["result"]) or {} for name in options["servers"]]
        secret = shared_secret(str(one.get("secret") or "") for one in found)
        return {"secret": secret, "_ansible_no_log": True}
