# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.hccn_report; documented in plugins/modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..module_utils._findings import Finding, counted, errors_of, few, grouped, ordered, render_text
from ..module_utils._hccn.evaluate import FABRICS
from ..plugin_utils._checks import hccn_cluster as between
from ..plugin_utils._checks.hccn_verdict import Verdict, judge
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
        verdict = judge(
            task_vars,
            options["servers"],
            result=options["result"],
            pings=[options["pings"] or ""],
            mesh=options["mesh"],
            plan=options["plan"],
        )
        findings = verdict.findings
        shown = ordered(grouped(findings))
        head = _headline(verdict, shown)
        blocks = [("\n".join(render_text([finding])), finding.severity) for finding in shown]
        table = between.table(verdict.servers)
        if options["show"] and (verdict.servers or findings):
            show("\n".join([head, "", *(f"  {line}" for line in table), ""]))
        for text, severity in blocks if options["show"] else ():
            show(text, color=COLOURS[severity])

        errors = errors_of(findings)
        result.update(
            changed=False,
            ok=not errors,
            findings=[finding.to_dict() for finding in findings],
            fabric=verdict.fabric,
            chips=verdict.chips,
            pings=verdict.pings,
            table=verdict.table,
            report="\n".join([head, "", *table, "", *(text for text, _severity in blocks)]),
            msg=f"{head}{_worst(errors)}",
        )
        if errors and options["fail"]:
            result.update(
                failed=True, msg=f"{head}{_worst(errors)}. Every finding is printed above, with its cure."
            )
        return result


def _headline(verdict: Verdict, findings: Sequence[Finding]) -> str:
    count = len(verdict.servers)
    fabric = FABRICS[verdict.fabric]
    asked = f"{count} server{'s' if count != 1 else ''}, {verdict.chips} chips, {fabric}"
    pinged = f", {verdict.pings} pings" if verdict.pings else ""
    return f"HCCN check: {asked}{pinged}: {counted(findings)}"


def _worst(errors: Sequence[Finding]) -> str:
    """Return the errors as a short text for the line that says why the play stops."""
    named = [f"{error.code} at {few(error.hosts) or 'all'}" for error in grouped(errors)]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f" ({'; '.join(named[:3])}{more})" if named else ""
