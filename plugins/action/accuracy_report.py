# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.accuracy_report; documented in plugins/modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from ..plugin_utils._benchmark import accuracy
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import show


class ActionModule(ControllerAction):
    """Reads, judges, prints, writes."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "cluster": {"type": "str", "required": True},
        "datasets": {"type": "list", "elements": "dict", "required": True},
        "directory": {"type": "path", "required": True},
        "outcome": {"type": "dict", "default": {"ok": True}},
        "tolerance": {"type": "float", "default": 3.4},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "nothing is evaluated in check mode"}
        folder = Path(options["directory"]).expanduser().absolute()
        problems = (
            [] if options["outcome"].get("ok") else [str(options["outcome"].get("msg", "it did not run"))]
        )
        verdicts: list[accuracy.Verdict] = []
        run = accuracy.newest_run(folder)
        if run is None:
            problems.append(f"there is no {accuracy.SUMMARY} below {folder}")
        else:
            try:
                verdicts = self._judge(run, options)
            except (OSError, ValueError, accuracy.BadSummary) as error:
                problems.append(f"the summary of {run} cannot be used: {error}")
        if verdicts:
            self._publish(folder, options, verdicts)
        problems += [verdict.problem for verdict in verdicts if verdict.problem]
        result["verdicts"] = [verdict.to_dict() for verdict in verdicts]
        if problems:
            text = "".join(f"\n- {problem}" for problem in problems)
            return {
                **result,
                "failed": True,
                "_ansible_verbose_override": True,
                "msg": f"The evaluation does not pass:{text}",
            }
        result["msg"] = f"The evaluation has passed; {folder / 'report.md'} has the report."
        return result

    def _judge(self, run: Path, args: dict[str, Any]) -> list[accuracy.Verdict]:
        path = sorted(run.glob(accuracy.SUMMARY))[-1]
        scores = accuracy.read_summary(path.read_text(encoding="utf-8"))
        return accuracy.judge(args["datasets"], scores, accuracy.unanswered(run), args["tolerance"])

    def _publish(self, folder: Path, args: dict[str, Any], verdicts: list[accuracy.Verdict]) -> None:
        title = f"Accuracy of {args['cluster']}"
        (folder / "report.md").write_text(accuracy.markdown(title, verdicts), encoding="utf-8")
        found = {"cluster": args["cluster"], "datasets": [verdict.to_dict() for verdict in verdicts]}
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (folder / "accuracy.json").write_text(text, encoding="utf-8")
        show(title)
        for line, colour in accuracy.screen(verdicts):
            show(line, color=colour)
