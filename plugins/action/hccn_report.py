# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.hccn_report; its documentation stands in plugins/modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..module_utils._findings import Finding, counted, errors_of, few, grouped, ordered, render_text
from ..module_utils._hccn.evaluate import FABRICS
from ..plugin_utils._checks import hccn_cluster as between
from ..plugin_utils._checks.results import own_findings, registered, servers_of
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import COLOURS, show


class ActionModule(ControllerAction):
    """Collects what every server registered, compares, prints one report, and fails on errors."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "mesh": {"type": "str", "choices": list(between.MESHES), "default": "none"},
        "pings": {"type": "str"},
        "plan": {"type": "dict"},
        "show": {"type": "bool", "default": True},
        "fail": {"type": "bool", "default": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        servers, missing = servers_of(task_vars, options["servers"], options["result"])
        found = {
            server.name: registered(task_vars, server.name, options["result"]) or {} for server in servers
        }
        findings = own_findings(found)
        findings += between.not_checked(missing, missing)
        findings += between.compare(servers)
        pings = 0
        if options["mesh"] != "none":
            results = {
                server.name: answer
                for server in servers
                if (answer := registered(task_vars, server.name, options["pings"] or "")) is not None
            }
            pings = sum(int(answer.get("count", 0)) for answer in results.values())
            findings += between.judge_mesh(
                between.mesh(servers, options["mesh"]),
                results,
                _peers(options["plan"]),
                between.fabric_of(servers),
            )
        findings = ordered(between.superseded(findings))
        shown = ordered(grouped(findings))
        head = _headline(servers, shown, pings)
        blocks = [("\n".join(render_text([one])), one.severity) for one in shown]
        if options["show"] and (servers or findings):
            show("\n".join([head, "", *(f"  {line}" for line in between.table(servers)), ""]))
        for text, severity in blocks if options["show"] else ():
            show(text, color=COLOURS[severity])

        errors = errors_of(findings)
        result.update(
            changed=False,
            ok=not errors,
            findings=[one.to_dict() for one in findings],
            fabric=between.fabric_of(servers),
            chips=sum(len(server.chips) for server in servers),
            pings=pings,
            table=between.table(servers) if servers else [],
            report="\n".join([head, "", *between.table(servers), "", *(text for text, _severity in blocks)]),
            msg=f"{head}{_worst(errors)}",
        )
        if errors and options["fail"]:
            result.update(
                failed=True, msg=f"{head}{_worst(errors)}. Every finding is printed above, with its cure."
            )
        return result


def _peers(plan: Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    hosts = (plan or {}).get("hosts")
    return {name: list(host.get("peers") or ()) for name, host in hosts.items()} if hosts else None


def _headline(servers: Sequence[between.Server], findings: Sequence[Finding], pings: int) -> str:
    chips = sum(len(server.chips) for server in servers)
    fabric = FABRICS[between.fabric_of(servers)]
    asked = f"{len(servers)} server{'s' if len(servers) != 1 else ''}, {chips} chips, {fabric}"
    pinged = f", {pings} pings" if pings else ""
    return f"HCCN check: {asked}{pinged}: {counted(findings)}"


def _worst(errors: Sequence[Finding]) -> str:
    """The errors in a few words, for the one line that says why the play stops."""
    named = [f"{one.code} at {few(one.hosts) or 'all'}" for one in grouped(errors)]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f" ({'; '.join(named[:3])}{more})" if named else ""
