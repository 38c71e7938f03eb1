# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.hccn_mesh; documented in plugins/modules."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._hccn.entry import PING_ARGUMENTS
from ..plugin_utils._checks import hccn_cluster as between
from ..plugin_utils._checks.results import servers_of
from ..plugin_utils._run.action import ControllerAction


class ActionModule(ControllerAction):
    """Computes the targets of all servers at once, on the controller."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "mesh": {"type": "str", "choices": list(between.MESHES), "default": "ring"},
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "timeout": PING_ARGUMENTS["timeout"],
        "hccn_tool": {**PING_ARGUMENTS["hccn_tool"], "type": "str"},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        servers, _missing = servers_of(task_vars, options["servers"], options["result"])
        targets: dict[str, dict[str, list[str]]] = {}
        for name, pings in between.mesh(servers, options["mesh"]).items():
            for ping in pings:
                targets.setdefault(name, {}).setdefault(str(ping.chip), []).append(ping.address)
        common = {
            "kind": between.ping_kind(between.fabric_of(servers)),
            "timeout": options["timeout"],
            "hccn_tool": options["hccn_tool"],
        }
        result.update(
            changed=False,
            mesh=options["mesh"],
            kind=common["kind"],
            targets=targets,
            pings={name: {"targets": chips, **common} for name, chips in targets.items()},
            count=sum(len(addresses) for chips in targets.values() for addresses in chips.values()),
        )
        return result
