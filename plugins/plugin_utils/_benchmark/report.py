# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a benchmark: one table, for the screen and as Markdown, with reference and last result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUMMARY = "summary.json"
ROWS = (
    ("ttft", "TTFT", "s", 1.0),
    ("tpot", "TPOT", "ms", 1000.0),
    ("itl", "ITL", "ms", 1000.0),
    ("e2el", "complete answer", "s", 1.0),
    ("request_throughput", "throughput per request", "tok/s", 1.0),
)
HEAD = ("", "mean", "p50", "p90", "p99")


def comparable(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Return whether two cases send the same load."""
    keys = ("input_len", "output_len", "prompts", "rate")
    return all(str(left.get(key)) == str(right.get(key)) for key in keys)


def summaries(folder: Path) -> list[dict[str, Any]]:
    """Return the readable summaries of this cluster, oldest first; each with the ``name`` of its folder."""
    found = []
    for path in sorted(folder.glob(f"*/{SUMMARY}")):
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(loaded, dict) and isinstance(loaded.get("points"), list):
            found.append({**loaded, "name": path.parent.name})
    return found


def last_result(folder: Path, before: str) -> dict[str, Any] | None:
    """Return the newest summary that is older than the folder ``before``, or None."""
    older = [result for result in summaries(folder) if result["name"] < before]
    return older[-1] if older else None


def history(folder: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cluster's results for the same load, up to this one."""
    return [
        result
        for result in summaries(folder)
        if result["name"] <= summary["date"] and comparable(result.get("case", {}), summary["case"])
    ]


def change(now: float, then: float) -> str:
    """Return the relative change of a figure, as text."""
    return f"{(now - then) / then:+.1%}" if then else "—"


def cells(point: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a point's table."""
    lines: list[tuple[str, ...]] = []
    for key, title, unit, scale in ROWS:
        values = point[key]
        if values is None:
            lines.append((f"{title} ({unit})", "—", "—", "—", "—"))
            continue
        shown = [f"{values[name] * scale:.2f}" for name in HEAD[1:]]
        lines.append((f"{title} ({unit})", *shown))
    return lines


def title_of(point: Mapping[str, Any]) -> str:
    at_once = f"{point['concurrency']} at a time" if point["concurrency"] else "all at once"
    failed = f"{point['failed']} FAILED" if point["failed"] else "none failed"
    return (
        f"{at_once}: {point['requests']} requests, {failed};"
        f" {point['output_throughput']:.2f} tok/s out, {point['requests_per_second']:.3f} requests/s"
    )


def failures(point: Mapping[str, Any]) -> list[str]:
    return [
        f"{count} × {kind}" for kind, count in sorted(point["failures"].items(), key=lambda item: -item[1])
    ]


def comparisons(
    summary: Mapping[str, Any], reference: Mapping[str, Any], last: Mapping[str, Any] | None
) -> list[str]:
    """Return sentences that compare a summary with the reference and the last result, or why they cannot."""
    said = []
    first = summary["points"][0] if summary["points"] else None
    if reference.get("ttft"):
        if not all(summary["case"].get(key) == reference.get(key) for key in ("input_len", "prompts")):
            said.append(
                f"The reference (TTFT {reference['ttft']} s) applies to {reference.get('input_len')} tokens"
                f" in and {reference.get('prompts')} requests, so it is not comparable with this load."
            )
        elif first and first["ttft"]:
            mean = first["ttft"]["mean"]
            said.append(
                f"TTFT {mean:.2f} s, reference {reference['ttft']} s ({change(mean, reference['ttft'])})."
            )
    if last is None:
        said.append("This is the first result of this cluster.")
        return said
    if not comparable(summary["case"], last.get("case", {})):
        said.append(f"The last result ({last['name']}) has another load, so it is not comparable.")
        return said
    before = {point["concurrency"]: point for point in last["points"]}
    for point in summary["points"]:
        old = before.get(point["concurrency"])
        if not old or not old.get("ttft") or not point["ttft"]:
            continue
        at_once = f"{point['concurrency']} at a time" if point["concurrency"] else "all at once"
        ttft = change(point["ttft"]["mean"], old["ttft"]["mean"])
        out = change(point["output_throughput"], old["output_throughput"])
        failed = f", failed {old['failed']} → {point['failed']}" if old["failed"] or point["failed"] else ""
        said.append(
            f"Since {last['name']}, {at_once}: TTFT {old['ttft']['mean']:.2f} →"
            f" {point['ttft']['mean']:.2f} s ({ttft}), {old['output_throughput']:.2f} →"
            f" {point['output_throughput']:.2f} tok/s ({out}){failed}."
        )
    return said


def screen(summary: Mapping[str, Any], said: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the lines for the screen, each with a colour or None."""
    lines: list[tuple[str, str | None]] = [(f"Benchmark of {summary['cluster']}: {summary['load']}", None)]
    width = max(len(f"{title} ({unit})") for _, title, unit, _ in ROWS)
    for point in summary["points"]:
        lines.append((title_of(point), "red" if point["failed"] else "green"))
        lines += [(f"    {text}", "red") for text in failures(point)]
        table = [HEAD, *cells(point)]
        for name, *numbers in table:
            lines.append((f"  {name:<{width}}" + "".join(f"{number:>11}" for number in numbers), None))
    return lines + [(sentence, None) for sentence in said]


def markdown(summary: Mapping[str, Any], said: Sequence[str], plot: bool) -> str:
    """Return the report as Markdown."""
    lines = [f"# Benchmark of {summary['cluster']}", "", f"{summary['date']}: {summary['load']}.", ""]
    rows = (("release", summary["release"]), ("image", summary["image"]), ("topology", summary["topology"]))
    lines += [f"- {name}: {value}" for name, value in rows]
    for point in summary["points"]:
        lines += ["", f"## {title_of(point)}", ""]
        lines += [f"- {text}" for text in failures(point)] + ([""] if point["failed"] else [])
        lines += ["| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|"]
        lines += ["| " + " | ".join(row) + " |" for row in cells(point)]
    lines += ["", "## Compared", "", *[f"- {sentence}" for sentence in said]]
    if plot:
        lines += ["", "![TTFT over time](ttft.svg)"]
    return "\n".join(lines) + "\n"
