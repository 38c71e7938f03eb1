# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.hccn_mesh; its documentation stands in plugins/modules."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils._checks import hccn_cluster as between
from ..plugin_utils._checks.results import servers_of


class ActionModule(ActionBase):
    """Makes the targets of every server in one go, on the controller."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {
                "mesh": {"type": "str", "choices": list(between.MESHES), "default": "ring"},
                "servers": {"type": "list", "elements": "str", "required": True},
                "result": {"type": "str", "default": "__hccn_check_result"},
            }
        )
        servers, _missing = servers_of(task_vars, options["servers"], options["result"])
        targets: dict[str, dict[str, list[str]]] = {}
        for name, pings in between.mesh(servers, options["mesh"]).items():
            for ping in pings:
                targets.setdefault(name, {}).setdefault(str(ping.chip), []).append(ping.address)
        result.update(
            changed=False,
            kind=between.ping_kind(between.fabric_of(servers)),
            targets=targets,
            count=sum(len(addresses) for chips in targets.values() for addresses in chips.values()),
        )
        return result
