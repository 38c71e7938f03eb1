# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_stopped; documented in plugins/modules."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from ..module_utils._findings import RolloutError
from ..plugin_utils._checks.results import deployment_looks
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._serving.catalogue import CHANGE_CHECKS
from ..plugin_utils._serving.groups import decide
from ..plugin_utils.rollout.change.seen import seen
from ..plugin_utils.rollout.change.table import state
from ..plugin_utils.rollout.plan_dict import PlanDict


class ActionModule(ControllerAction):
    """Fails with what stands where after a step has failed."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "step": {"type": "str", "required": True},
        "why": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        plan = cast("PlanDict", options["plan"])
        looks = deployment_looks(task_vars, options["servers"], options["result"])
        stands = state(seen(plan, looks, decide(looks, options["servers"]).why))
        finding = CHANGE_CHECKS.finding(
            "change-stopped",
            f"the change has stopped in step {options['step']}",
            seen="; ".join(stands),
        )
        failure = RolloutError([finding]).failure()
        return {**failure, "msg": "\n".join([options["why"], failure["msg"]]).strip()}
