# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The results of AISBench, and whether they are good enough.

A run has ``<time>/summary/summary_<time>.csv``, with ``predictions/<model>/<data set>.jsonl`` beside it. The
table is ``dataset,version,metric,mode[,total_count],<model>``. Counts may follow a score, as in
``86.67 (26/30)``, and a missing score is ``-``.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUMMARY = "summary/summary_*.csv"
SCORE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:\((\d+)/(\d+)\))?\s*$")
COLUMNS = ("dataset", "version", "metric", "mode")


# Data sets known by name: their names in AISBench's summary, their configuration (as A@v0.13.0's page on
# AISBench names it), their folder below ais_bench/datasets, and the guide's result for DeepSeek-V3.1-w8a8.
KNOWN: dict[str, dict[str, Any]] = {
    "aime2024": {"config": "aime2024_gen_0_shot_chat_prompt.py", "folder": "aime", "reference": 86.67},
    "aime2025": {"config": "aime2025_gen_0_shot_chat_prompt.py", "folder": "aime2025"},
    "gsm8k": {"config": "gsm8k_gen_0_shot_cot_chat_prompt.py", "folder": "gsm8k"},
    "gpqa": {"name": "GPQA_diamond", "config": "gpqa_gen_0_shot_str.py", "folder": "gpqa"},
    "math500": {
        "name": "math_prm800k_500",
        "config": "math500_gen_0_shot_cot_chat_prompt.py",
        "folder": "math",
    },
}
FIELDS = {"name", "config", "folder", "reference", "tolerance", "url"}
PLACE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def datasets_of(wanted: Sequence[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the settings of data sets, and everything that is wrong with them.

    wanted: names, or mappings that override the settings of a known data set.
    """
    found: list[dict[str, Any]] = []
    problems = []
    for item in wanted:
        given = {"name": item} if isinstance(item, str) else dict(item) if isinstance(item, Mapping) else {}
        name = str(given.get("name", ""))
        dataset = {"name": name, **KNOWN.get(name, {}), **{k: v for k, v in given.items() if k != "name"}}
        unknown = sorted(set(given) - FIELDS)
        missing = sorted({"config", "folder"} - set(dataset))
        if not name:
            problems.append(f"{item!r} has no name")
        elif unknown:
            known = ", ".join(sorted(FIELDS))
            problems.append(f"{name} has unknown fields: {', '.join(unknown)}; known are {known}")
        elif missing:
            problems.append(
                f"{name} is not known ({', '.join(KNOWN)} are); set its {' and '.join(missing)} as well"
            )
        elif not all(PLACE.fullmatch(str(dataset[key])) for key in ("config", "folder")):
            places = f"{dataset['config']}, {dataset['folder']}"
            problems.append(f"{name}: config and folder must be plain names, not {places}")
        else:
            found.append({"key": name, **dataset})
    if not wanted:
        problems.append("the list of data sets is empty")
    return found, problems


class BadSummary(Exception):
    """A file that is not a summary of AISBench."""


@dataclass(frozen=True)
class Score:
    """One line of the summary. ``value``: percent, or None if AISBench has none."""

    dataset: str
    metric: str
    value: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "metric": self.metric, "value": self.value}


def read_summary(text: str) -> list[Score]:
    """Return the scores of a summary, in its order. Raises BadSummary."""
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0][: len(COLUMNS)]) != COLUMNS:
        raise BadSummary(f"it does not begin with {','.join(COLUMNS)}")
    scores = []
    for row in rows[1:]:
        if not row:
            continue
        if len(row) != len(rows[0]) or len(row) <= len(COLUMNS):
            raise BadSummary(f"a line has {len(row)} columns, the header {len(rows[0])}: {','.join(row)}")
        found = SCORE.match(row[-1])
        if found is None and row[-1].strip() != "-":
            raise BadSummary(f"{row[-1]!r} is not a score")
        scores.append(Score(row[0], row[2], float(found[1]) if found else None))
    return scores


def newest_run(folder: Path) -> Path | None:
    """Return the folder of the newest run with a summary, at any depth; runs are named by their time."""
    found = {path.parent.parent for path in folder.rglob(SUMMARY)}
    return max(found, key=lambda run: run.name) if found else None


def unanswered(run: Path) -> dict[str, tuple[int, int]]:
    """Return for each data set how many requests failed, and how many there were."""
    counted: dict[str, tuple[int, int]] = {}
    for path in sorted(run.glob("predictions/*/*.jsonl")):
        failed = total = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            total += 1
            # Not every version marks a failed request, but it has no text.
            failed += not (answer.get("success", True) and str(answer.get("prediction") or "").strip())
        counted[path.stem] = (failed, total)
    return counted


def headline(scores: Sequence[Score], dataset: str) -> Score | None:
    """Return the score of a data set: its first line, which has AISBench's main metric."""
    exact = [score for score in scores if score.dataset == dataset]
    return exact[0] if exact else None


@dataclass(frozen=True)
class Verdict:
    """The comparison of a data set's score with its reference, in percent."""

    dataset: str
    score: float | None
    reference: float | None
    tolerance: float
    failed: int = 0
    total: int = 0

    @property
    def problem(self) -> str | None:
        """What is wrong, or None."""
        if self.failed:
            return f"{self.dataset}: {self.failed} of {self.total} questions have no answer"
        if self.score is None:
            return f"{self.dataset}: AISBench has no score"
        if self.reference is not None and self.score < self.reference - self.tolerance:
            least = self.reference - self.tolerance
            return (
                f"{self.dataset}: {self.score:.2f} is below {least:.2f} (reference {self.reference:.2f},"
                f" tolerance {self.tolerance:g})"
            )
        return None

    def row(self) -> tuple[str, ...]:
        score = "—" if self.score is None else f"{self.score:.2f}"
        reference = "—" if self.reference is None else f"{self.reference:.2f}"
        both = self.score is not None and self.reference is not None
        difference = f"{self.score - self.reference:+.2f}" if both else "—"  # type: ignore[operator]
        return (self.dataset, score, reference, difference, f"{self.tolerance:g}", self.problem or "good")

    def to_dict(self) -> dict[str, Any]:
        fields = ("dataset", "score", "reference", "tolerance", "failed", "total")
        return {name: getattr(self, name) for name in fields} | {"problem": self.problem}


def judge(
    datasets: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    answers: Mapping[str, tuple[int, int]],
    tolerance: float,
) -> list[Verdict]:
    """Return a verdict for each data set.

    datasets: the data sets, with name and perhaps reference (percent) and tolerance.
    scores: the lines of the summary.
    answers: for each data set how many requests failed, of how many.
    tolerance: percentage points below the reference that are accepted by default.
    """
    verdicts = []
    for dataset in datasets:
        name = str(dataset["name"])
        score = headline(scores, name)
        reference = dataset.get("reference")
        failed, total = answers.get(name, (0, 0))
        verdicts.append(
            Verdict(
                name,
                score.value if score else None,
                None if reference in (None, "") else float(str(reference)),
                float(dataset.get("tolerance", tolerance)),
                failed,
                total,
            )
        )
    return verdicts


HEAD = ("data set", "score", "reference", "difference", "tolerance", "verdict")


def screen(verdicts: Sequence[Verdict]) -> list[tuple[str, str | None]]:
    """Return the lines of the table for the screen, each with a colour or None."""
    rows = [HEAD, *(verdict.row() for verdict in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    colours = [None, *("red" if verdict.problem else "green" for verdict in verdicts)]
    return [
        ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), colour)
        for row, colour in zip(rows, colours, strict=True)
    ]


def markdown(title: str, verdicts: Sequence[Verdict]) -> str:
    """Return the report as Markdown."""
    lines = [f"# {title}", "", "| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(verdict.row()) + " |" for verdict in verdicts]
    return "\n".join(lines) + "\n"
