# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_groups; documented in plugins/modules."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._findings import RolloutError
from ..plugin_utils._checks.results import deployment_looks
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import show
from ..plugin_utils._serving.groups import decide


class ActionModule(ControllerAction):
    """Decides for all hosts at once, on the controller, which containers are stopped."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        looks = deployment_looks(task_vars, options["servers"], options["result"])
        decision = decide(looks, options["servers"])
        if decision.refusals:
            return RolloutError(decision.refusals).failure()
        for line in decision.reasons:
            show(line)
        each = len(looks) == len(options["servers"]) and all(look["settled"] for look in looks.values())
        # Nodes that serve alone may still be of different starts, so that all of them are started again.
        return {
            "stop": decision.stop,
            "reasons": decision.reasons,
            "settled": each and not decision.stop,
        }
