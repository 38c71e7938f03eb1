# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.benchmark_report; documented in plugins/modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from ansible.utils.display import Display

from ..plugin_utils._benchmark import plot, report, results, runs
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import show

display = Display()


def read_results(folder: Path, files: list[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The result files that can be read, and what is wrong with the others."""
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for name in files:
        try:
            loaded = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            problems.append(f"there is no result {name}: its run did not end")
        except (OSError, ValueError) as error:
            problems.append(f"{name} cannot be read: {error}")
        else:
            if isinstance(loaded, dict):
                found[name] = loaded
            else:
                problems.append(f"{name} is no result of vllm bench serve")
    return found, problems


class ActionModule(ControllerAction):
    """Reads, judges, prints, writes."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "runs": {"type": "list", "elements": "dict", "required": True},
        "case": {"type": "dict", "required": True},
        "directory": {"type": "path", "required": True},
        "outcome": {"type": "dict", "required": True},
        "reference": {"type": "dict", "default": {}},
        "max_failed": {"type": "int", "default": 0},
        "max_ttft": {"type": "float"},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "nothing is measured in check mode"}
        folder = Path(options["directory"]).expanduser().absolute()
        found, problems = read_results(folder, [run["file"] for run in options["runs"]])
        if not options["outcome"].get("ok"):
            problems.insert(0, str(options["outcome"].get("msg", "the benchmark did not run")))
        try:
            points = results.collect(options["runs"], found, int(options["case"]["output_len"]))
        except results.BadResult as error:
            problems.append(str(error))
            points = []
        if not points:
            text = "".join(f"\n- {problem}" for problem in problems or ["no result was fetched"])
            return {**result, "failed": True, "msg": f"The benchmark has no result:{text}"}
        summary = self._summary(options, folder, points)
        files = self._publish(options, folder, summary)
        failed = sum(point["failed"] for point in summary["points"])
        problems += self._limits(options, summary, failed)
        result.update(summary=summary, failed_requests=failed, files=files)
        if problems:
            text = "".join(f"\n- {problem}" for problem in problems)
            return {
                **result,
                "failed": True,
                "_ansible_verbose_override": True,
                "msg": f"The benchmark does not pass:{text}",
            }
        result["msg"] = f"The benchmark has passed; {folder / 'report.md'} has the report."
        return result

    def _summary(self, args: dict[str, Any], folder: Path, points: list[results.Point]) -> dict[str, Any]:
        plan, case = args["plan"], args["case"]
        date = folder.name
        return {
            "version": 1,
            "cluster": plan["cluster"],
            "date": date,
            "release": plan["release"]["name"],
            "image": plan["image"],
            "topology": plan["topology"],
            "plan": plan["hash"],
            "case": case,
            "load": f"random data, {case['prompts']} requests a run, {case['input_len']} tokens in,"
            f" {case['output_len']} out, rate {case['rate']}",
            "points": [results.figures(point) for point in points],
        }

    def _publish(self, args: dict[str, Any], folder: Path, summary: dict[str, Any]) -> list[str]:
        """Write everything and print the table; the names of the files."""
        text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        (folder / report.SUMMARY).write_text(text, encoding="utf-8")
        last = report.last_result(folder.parent, folder.name)
        said = report.comparisons(summary, args["reference"], last)
        said += runs.waiting(
            args["plan"], [point["concurrency"] for point in summary["points"]], int(args["case"]["prompts"])
        )
        names = self._plot(args, folder, summary)
        (folder / "report.md").write_text(report.markdown(summary, said, bool(names)), encoding="utf-8")
        for line, colour in report.screen(summary, said):
            show(line, color=colour)
        return [report.SUMMARY, "report.md", *names]

    def _plot(self, args: dict[str, Any], folder: Path, summary: dict[str, Any]) -> list[str]:
        reference = args["reference"]
        same = all(summary["case"].get(key) == reference.get(key) for key in ("input_len", "prompts"))
        try:
            return plot.draw(
                folder,
                summary,
                report.history(folder.parent, summary),
                float(reference["ttft"]) if same and reference.get("ttft") else None,
            )
        except ImportError:
            display.warning(plot.MISSING)
            return []

    def _limits(self, args: dict[str, Any], summary: dict[str, Any], failed: int) -> list[str]:
        problems = []
        if failed > args["max_failed"]:
            total = sum(point["requests"] for point in summary["points"])
            kinds = sorted({kind for point in summary["points"] for kind in point["failures"]})
            problems.append(
                f"{failed} of {total} requests failed ({'; '.join(kinds)}), {args['max_failed']} are put up"
                " with. Look at the logs of decoders, prefillers and proxy: playbooks/deploy.yml --tags"
                " smoke_test shows their ends"
            )
        limit = args["max_ttft"]
        for point in summary["points"]:
            if limit is not None and point["ttft"] and point["ttft"]["mean"] > limit:
                at_once = f"{point['concurrency'] or 'all requests'} at a time"
                problems.append(
                    f"TTFT is {point['ttft']['mean']:.2f} s with {at_once}, at most {limit:g} s were wanted"
                )
        return problems
