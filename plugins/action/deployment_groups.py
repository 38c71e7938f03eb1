# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_groups; documented in plugins/modules."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils._checks.results import registered
from ..plugin_utils._run.screen import show
from ..plugin_utils._serving.groups import decide


class ActionModule(ActionBase):
    """Decides for all hosts at once, on the controller, what is to be stopped."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {
                "servers": {"type": "list", "elements": "str", "required": True},
                "result": {"type": "str", "default": "__container_deployed"},
            }
        )
        looks = {
            name: found
            for name in options["servers"]
            if (found := registered(task_vars, name, options["result"])) is not None and "nodes" in found
        }
        decision = decide(looks, options["servers"])
        if decision.refusal:
            return {**result, "failed": True, "changed": False, "msg": decision.refusal}
        for line in decision.reasons:
            show(line)
        return {**result, "changed": False, "stop": decision.stop, "reasons": decision.reasons}
