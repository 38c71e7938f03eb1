# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""TTFT over time, as SVG and PNG: the requests of this benchmark, and the cluster's results so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MISSING = (
    "No plot was drawn, because this controller's Python has no matplotlib. Install it with `pip install"
    " matplotlib` (requirements-plot.txt pins the tested version). The figures are complete without it."
)

# Number of dates that fit below the plot.
MOST_DATES = 12
# Free space above the highest value, as a factor.
ROOM = 1.08


def title(concurrency: int) -> str:
    return f"{concurrency} at a time" if concurrency else "all at once"


def draw(
    folder: Path, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]], reference: float | None
) -> list[str]:
    """Write ttft.svg and ttft.png, and return their names.

    folder: where they are written.
    summary: the summary of this benchmark.
    history: summaries of the same load, oldest first, this one last.
    reference: TTFT to draw as a line, in seconds, or None.

    Raises ImportError without matplotlib.
    """
    # So that the same data give the same file.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    matplotlib.rcParams["svg.hashsalt"] = "ascend.pd_rollout"
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    requests, time = figure.subplots(1, 2)
    every = sorted({point["concurrency"] for result in history for point in result["points"]})
    colours = {concurrency: f"C{position}" for position, concurrency in enumerate(every)}
    for point in summary["points"]:
        style = {"label": title(point["concurrency"]), "color": colours[point["concurrency"]]}
        values = [(number, value) for number, value in enumerate(point["ttfts"], 1) if value is not None]
        requests.plot(*zip(*values, strict=True), marker="o", markersize=3, **style) if values else None
        for number, value in enumerate(point["ttfts"], 1):
            if value is None:
                requests.axvline(number, color="tab:red", alpha=0.3, linewidth=3)
    requests.set(title="Each request (red: failed)", xlabel="request", ylabel="TTFT (s)")
    requests.xaxis.set_major_locator(MaxNLocator(integer=True))
    # By position: with dates as names, those that one line lacks would come after those that it has.
    for concurrency in every:
        means = [
            (position, point["ttft"]["mean"])
            for position, result in enumerate(history)
            for point in result["points"]
            if point["concurrency"] == concurrency and point["ttft"]
        ]
        style = {"label": title(concurrency), "color": colours[concurrency]}
        time.plot(*zip(*means, strict=True), marker="o", **style) if means else None
    if reference is not None:
        time.axhline(reference, color="tab:gray", linestyle="--", label=f"reference {reference} s")
    time.set(title="Mean of each benchmark of this cluster", ylabel="TTFT (s)")
    shown = range(0, len(history), -(-len(history) // MOST_DATES) or 1)
    dates = [history[position]["date"] for position in shown]
    time.set_xticks(list(shown), dates, rotation=30, ha="right", rotation_mode="anchor")
    for axes in (requests, time):
        axes.set_ylim(0, axes.get_ylim()[1] * ROOM)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    names = ["ttft.svg", "ttft.png"]
    figure.savefig(folder / names[0], metadata={"Date": None})
    figure.savefig(folder / names[1], dpi=120)
    return names
