# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_hosts; documented in plugins/modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils import deployed_hosts
from .plan import plan_folder


class ActionModule(ActionBase):
    """Notes on the controller which servers a deployment is launched on."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "plan": {"type": "dict"},
                "servers": {"type": "list", "elements": "str", "required": True},
                "deployment": {"type": "str", "default": "pd"},
            }
        )
        result["changed"] = False
        if self._task.check_mode:
            return result
        plan, servers = options["plan"], options["servers"]
        try:
            if options["state"] == "present":
                if not plan:
                    raise AnsibleActionFail("state=present needs the plan")
                left = plan.get("outside") or {}
                noted = [deployed_hosts.note(Path(plan["directory"]), plan, servers, left)]
            else:
                folder = plan_folder(task_vars["hostvars"], servers[0] if servers else "")
                # Of an inventory with several deployments each has a folder of its own.
                noted = [
                    deployed_hosts.forget(one, servers) for one in (folder, folder / options["deployment"])
                ]
        except OSError as error:
            raise AnsibleActionFail(f"cannot note where it is deployed: {error}") from error
        # What counts as changed is what changes on a server.
        return {**result, "noted": any(noted)}
