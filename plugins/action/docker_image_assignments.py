# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Decides who gets an image from where; documented in plugins/modules/docker_image_assignments.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._findings import text_of
from ..plugin_utils._distribution.image_assignments import Request, decide
from ..plugin_utils._run.action import ControllerAction


class ActionModule(ControllerAction):
    """Reads what M(ascend.pd_rollout.docker_image_info) found on the hosts of this play."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "states": {"type": "str", "required": True},
        "source": {
            "type": "str",
            "choices": ["registry", "pull", "archive", "none"],
            "required": True,
        },
        "digest": {"type": "str", "default": ""},
        "archive": {"type": "str", "default": ""},
        "archive_on_server": {"type": "bool", "default": True},
        "spread": {"type": "bool", "default": True},
        "mirrors": {"type": "list", "elements": "str", "default": []},
        "allow_unqualified": {"type": "bool", "default": False},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        name = options.pop("states")
        request = Request(**{**options, "mirrors": tuple(options["mirrors"])})
        hostvars = task_vars["hostvars"]
        alive = set(task_vars["ansible_play_hosts"])
        states = {}
        for host in task_vars["ansible_play_batch"]:
            state = hostvars[host].get(name, {}) if host in alive else {}
            if "right" in state:
                states[str(host)] = state
        decision = decide(states, request)
        result.update(changed=False, assignments=decision.assignments)
        if decision.errors:
            result.update(
                failed=True,
                findings=[finding.to_dict() for finding in decision.errors],
                msg=text_of(decision.errors, "The image cannot be provided."),
            )
        return result
