# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_hosts; documented in plugins/modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._serving import deployed_hosts
from .plan import plan_folder


def folders(hostvars: Any, servers: Sequence[str], deployment: str) -> list[Path]:
    """Where servers may be noted: beside the plan of an inventory with one deployment, or of theirs.

    Of an inventory with several deployments each has a folder of its own, and one run can stop all of them.
    """
    found: dict[Path, None] = {}
    for server in servers or [""]:
        own = hostvars[server].get("pd_deployment") if server else None
        folder = plan_folder(hostvars, server)
        found.update(dict.fromkeys([folder, folder / str(own or deployment)]))
    return list(found)


class ActionModule(ControllerAction):
    """Notes on the controller which servers a deployment is launched on."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "plan": {"type": "dict"},
        "servers": {"type": "list", "elements": "str", "required": True},
        "deployment": {"type": "str", "default": "pd"},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {}
        plan, servers = options["plan"], options["servers"]
        try:
            if options["state"] == "present":
                if not plan:
                    raise AnsibleActionFail("state=present needs the plan")
                left = plan.get("outside") or {}
                noted = [deployed_hosts.note(Path(plan["directory"]), plan, servers, left)]
            else:
                noted = [
                    deployed_hosts.forget(folder, servers)
                    for folder in folders(task_vars["hostvars"], servers, options["deployment"])
                ]
        except OSError as error:
            if options["state"] == "present":
                raise AnsibleActionFail(f"cannot note where it is deployed: {error}") from error
            # The plan's folder may be somebody else's, who has deployed; what was stopped is stopped.
            why = f"{error.filename}: {error.strerror}. The servers stay in it, and may be reported later."
            return {"noted": False, "warnings": [why]}
        # What counts as changed is what changes on a server.
        return {"noted": any(noted)}
