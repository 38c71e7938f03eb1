# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.host_targets; its documentation stands in plugins/modules."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils._checks import host_cluster as between
from ..plugin_utils._checks.results import registered


class ActionModule(ActionBase):
    """Chooses who tries which ports of whom, in one go, on the controller."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {
                "plan": {"type": "dict", "required": True},
                "servers": {"type": "list", "elements": "str", "required": True},
                "result": {"type": "str", "default": "__host_check_result"},
            }
        )
        results = {
            name: found
            for name in options["servers"]
            if (found := registered(task_vars, name, options["result"])) is not None and "facts" in found
        }
        targets = between.targets(options["plan"], results)
        result.update(changed=False, targets=targets, count=sum(len(found) for found in targets.values()))
        return result
