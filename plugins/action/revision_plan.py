# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.revision_plan; documented in plugins/modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from ansible.errors import AnsibleActionFail

from ..module_utils._findings import RolloutError
from ..module_utils._serving import history
from ..plugin_utils._checks.results import registered
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._serving import deployed_hosts, revisions
from ..plugin_utils._serving.catalogue import CHANGE_CHECKS
from ..plugin_utils.rollout import plan as planner
from ..plugin_utils.rollout.plan_dict import KEYS, PlanDict
from .plan import names_of_deployments, servers_of


class ActionModule(ControllerAction):
    """Returns the plan of a revision as the action plan returns one."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "choice": {"type": "dict", "required": True},
        "result": {"type": "str", "required": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        choice = options["choice"]
        known = self._read(choice, options["result"], task_vars)
        if known.get("version") != planner.VERSION or not known.keys() >= {*KEYS}:
            return RolloutError(
                CHANGE_CHECKS.finding(
                    "change-revision-format",
                    f"revision {choice['revision']} was written by another version of this collection;"
                    " nothing was changed",
                    seen=f"version {known.get('version')}",
                    expected=f"version {planner.VERSION}",
                )
            ).failure()
        plan = cast("PlanDict", known)
        hostvars = task_vars["hostvars"]
        servers = {
            host: str(hostvars[host].get("ansible_host") or host)
            for host in servers_of(hostvars)
            if names_of_deployments(hostvars, [host]) == [plan["deployment"]]
        }
        if plan["api_key"] and not any(hostvars[host].get("pd_api_key") for host in servers):
            return RolloutError(
                CHANGE_CHECKS.finding(
                    "change-revision-key",
                    f"revision {choice['revision']} has an API key for its engines, and the inventory has"
                    " none; nothing was changed",
                    variable="pd_api_key",
                )
            ).failure()
        content = revisions.with_servers(plan, servers)
        directory = Path(choice["directory"])
        # As the plan, it is not shown with -v, and callbacks do not write down its secrets.
        hidden = {"_ansible_no_log": True} if _has_secrets(content) else {}
        return {
            **content,
            **hidden,
            "_ansible_verbose_override": True,
            "directory": str(directory),
            "outside": deployed_hosts.outside(deployed_hosts.read(directory), content),
            "unnoted": deployed_hosts.unnoted(directory, content),
            "revision": choice["revision"],
        }

    def _read(self, choice: Mapping[str, Any], result: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the plan, from the controller or from what a server has sent."""
        try:
            if choice["at"]:
                text = str((registered(task_vars, choice["at"], result) or {})["plan"])
            else:
                text = Path(choice["folder"], history.PLAN).read_text(encoding="utf-8")
            found = json.loads(text)
        except (OSError, ValueError, KeyError) as error:
            raise AnsibleActionFail(
                f"cannot read the plan of revision {choice['revision']}: {error}"
            ) from error
        return found if isinstance(found, dict) else {}


def _has_secrets(plan: Mapping[str, Any]) -> bool:
    """Return whether something in a plan looks like a secret."""
    return any(
        part["secrets"] for share in plan["hosts"].values() for part in (*share["engines"], *share["routers"])
    )
