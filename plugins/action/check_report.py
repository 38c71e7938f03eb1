# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.check_report; documented in plugins/modules."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..module_utils._findings import Finding, few
from ..plugin_utils._checks import host_cluster as between
from ..plugin_utils._checks import report as reports
from ..plugin_utils._checks.drained import eased, unexplained
from ..plugin_utils._checks.hccn_verdict import Verdict, asked, judge
from ..plugin_utils._checks.results import own_findings, registered
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import COLOURS, show
from ..plugin_utils.rollout.render import make_folder, private


class ActionModule(ControllerAction):
    """Collects the findings of all checks, prints and writes them, and fails on errors."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "chips": {"type": "str"},
        "pings": {"type": "list", "elements": "str", "default": []},
        "mesh": {"type": "str"},
        "result": {"type": "str", "required": True},
        "reached": {"type": "str"},
        "weights": {"type": "str"},
        "certificate": {"type": "str"},
        "image_source": {"type": "str", "default": "registry"},
        "image_archive": {"type": "str", "default": ""},
        "weights_source": {"type": "str", "default": "present"},
        "clock_seconds": {"type": "float", "default": 2.0},
        "repairs": {"type": "bool", "default": False},
        "waivers": {"type": "list", "elements": "raw", "default": []},
        "dest": {"type": "path"},
        "fail": {"type": "bool", "default": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        plan = options["plan"]
        verdict = self._verdict(task_vars, options)
        findings = list(verdict.findings) if verdict else []
        results, missing = self._results(task_vars, options)
        # Without any result of host_check, that role has not run.
        if results or any(missing.values()) or verdict is None:
            findings += self._host_findings(task_vars, options, results, missing)
        if options["repairs"]:
            findings = [reports.repaired(finding) for finding in findings]
        findings += between.outside(plan)
        seen = self._registered(task_vars, options, "weights", "fingerprint")
        findings += between.weights(seen, str(plan["model"]["path"]), options["weights_source"])
        # Checked once for all servers.
        certificate = self._registered(task_vars, options, "certificate", "findings")
        for found in [*certificate.values()][:1]:
            findings += [Finding.from_dict(finding) for finding in found["findings"]]
        reached = self._registered(task_vars, options, "reached", "count")
        connections = sum(int(trials["count"]) for trials in reached.values())
        report = reports.make(
            _title(options["servers"], verdict, connections),
            eased(findings, results),
            options["waivers"],
            datetime.date.today(),
            verdict.table if verdict else (),
        )
        directory = Path(options["dest"]).expanduser().absolute() if options["dest"] else None
        written = directory is not None and not self._task.check_mode
        if directory is not None and written:
            self._write(directory, plan, report, results)
        for text, severity in reports.screen(report, str(directory) if written else None):
            show(text, color=COLOURS.get(severity or ""))
        errors = report.errors
        named = "; ".join(f"{error.code} at {few(error.hosts) or 'all'}" for error in errors[:3])
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        result.update(
            changed=False,
            ok=not errors,
            findings=[finding.to_dict() for finding in report.findings],
            waived=[finding.to_dict() for finding in report.waived],
            msg=f"{report.headline}{f' ({named}{more})' if errors else ''}",
        )
        if errors and options["fail"]:
            result.update(failed=True, msg=f"{result['msg']}. Every finding is printed above, with its cure.")
            # The screen already shows it.
            result["_ansible_verbose_override"] = True
            del result["findings"], result["waived"]
        return result

    def _verdict(self, task_vars: Mapping[str, Any], options: Mapping[str, Any]) -> Verdict | None:
        """Return the evaluation of all servers' chips; None if no chip was checked."""
        if not asked(task_vars, options["servers"], options["chips"] or ""):
            return None
        meshes = self._registered(task_vars, options, "mesh", "mesh")
        return judge(
            task_vars,
            options["servers"],
            result=options["chips"],
            pings=options["pings"],
            mesh=next((str(mesh["mesh"]) for mesh in meshes.values()), "none"),
            plan=options["plan"],
        )

    def _results(
        self, task_vars: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
        """Return the results of host_check, and why some servers have none; empty if none was checked."""
        results: dict[str, Mapping[str, Any]] = {}
        missing: dict[str, str] = {}
        for name in options["servers"]:
            found = registered(task_vars, name, options["result"])
            reached = registered(task_vars, name, options["reached"] or "")
            # A server that was lost while it connected and pinged has left the play: its part is not checked.
            lost = reached is not None and "count" not in reached
            if found is not None and "facts" in found and not lost:
                results[name] = found
            else:
                missing[name] = str(((reached if lost else found) or {}).get("msg", ""))
        return results, missing

    def _registered(
        self, task_vars: Mapping[str, Any], options: Mapping[str, Any], option: str, key: str
    ) -> dict[str, Mapping[str, Any]]:
        """Return the results that servers registered in the variable of an option, if they have that key."""
        return {
            name: found
            for name in options["servers"]
            if (found := registered(task_vars, name, options[option] or "")) is not None and key in found
        }

    def _host_findings(
        self,
        task_vars: Mapping[str, Any],
        options: Mapping[str, Any],
        results: Mapping[str, Mapping[str, Any]],
        missing: Mapping[str, str],
    ) -> list[Finding]:
        found = unexplained(own_findings(results), options["plan"], results)
        reached = self._registered(task_vars, options, "reached", "count")
        return [
            *found,
            *between.not_checked(missing, missing),
            *between.compare(results),
            *between.images(
                results, options["plan"]["image"], options["image_source"], options["image_archive"]
            ),
            *between.judge_reach(options["plan"], results, reached),
            *between.judge_clocks(reached, options["clock_seconds"]),
        ]

    def _write(
        self,
        directory: Path,
        plan: Mapping[str, Any],
        report: reports.Report,
        results: Mapping[str, Mapping[str, Any]],
    ) -> None:
        head = {
            "cluster": plan.get("cluster"),
            "plan": plan.get("hash"),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        }
        servers = {name: dict(result["facts"]) for name, result in results.items()}
        texts = {
            "check.json": json.dumps(
                reports.document(report, {**head, "servers": servers}), indent=2, ensure_ascii=False
            )
            + "\n",
            "check.md": reports.markdown(report, head),
        }
        try:
            make_folder(directory)
            for name, text in texts.items():
                private(directory / name, text)
        except OSError as error:
            raise AnsibleActionFail(f"cannot write the report to {directory}: {error.strerror}") from error


def _title(servers: list[str], verdict: Verdict | None, connections: int) -> str:
    parts = [f"{len(servers)} server{'s' * (len(servers) != 1)}"]
    if verdict and verdict.chips:
        parts.append(f"{verdict.chips} chips, {'RoCE' if verdict.fabric == 'roce' else 'HCCS'}")
    if verdict and verdict.pings:
        parts.append(f"{verdict.pings} pings")
    if connections:
        parts.append(f"{connections} connections")
    return f"Checks: {', '.join(parts)}"
