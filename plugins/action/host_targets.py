# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.host_targets; documented in plugins/modules."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils._checks import host_cluster as between
from ..plugin_utils._checks.results import registered
from ..plugin_utils._run.action import ControllerAction


class ActionModule(ControllerAction):
    """Chooses the ports that each server tests, for all servers at once, on the controller."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        results = {
            name: found
            for name in options["servers"]
            if (found := registered(task_vars, name, options["result"])) is not None and "facts" in found
        }
        targets = between.targets(options["plan"], results)
        result.update(changed=False, targets=targets, count=sum(len(found) for found in targets.values()))
        return result
