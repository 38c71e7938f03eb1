# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.revision_record; documented in plugins/modules."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar, cast

from ansible.errors import AnsibleActionFail

from ..module_utils._files.safe_paths import HISTORY
from ..module_utils._serving import history
from ..plugin_utils._checks.results import deployment_looks, registered
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.lock_owner import describe
from ..plugin_utils._serving import revisions
from ..plugin_utils.rollout.plan_dict import KEYS, PlanDict


class ActionModule(ControllerAction):
    """Writes what is deployed as a revision on the controller, unless it is the newest one."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "texts": {"type": "list", "elements": "str", "default": []},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        plan = cast("PlanDict", {key: options["plan"][key] for key in KEYS})
        looks = deployment_looks(task_vars, options["servers"], options["result"])
        texts: dict[str, Any] = {}
        for variable in options["texts"]:
            for name in options["servers"]:
                texts.update(registered(task_vars, name, variable) or {})
        owner = describe(os.getppid(), plan["deployment"])
        record = revisions.of_plan(
            plan,
            looks,
            texts,
            who=f"{owner['user']}@{owner['controller']}",
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        folder = Path(options["plan"]["directory"]) / HISTORY
        stored = [look.get("revision") for look in looks.values()]
        try:
            known = revisions.newest([*stored, *history.records(folder)], plan["deployment"])
            if known is None or not revisions.same(known, record):
                highest = [one["revision"] for one in stored if one] + history.numbers(folder)
                known = {"revision": 1 + max(highest, default=0), **record}
            if not self._task.check_mode:
                history.write(folder, known, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise AnsibleActionFail(f"cannot write a revision to {folder}: {error.strerror}") from error
        return {
            "record": dict(known),
            "folder": str(history.folder_of(folder, known["revision"])),
            "keepers": revisions.keepers(plan),
        }
