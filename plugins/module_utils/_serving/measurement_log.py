# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The progress of a measurement, from its log.

A line ``== …`` is a heading that the commands print themselves. ``17/20`` after a bar is the output of tqdm,
which both ``vllm bench serve`` and AISBench use.
"""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 65536
HEADING = re.compile(r"^== (.+?)\s*$", re.M)
BAR = re.compile(r"\|\s*(\d+)/(\d+)\s*\[")


def tail_of(path: str | Path, size: int = TAIL_BYTES) -> str:
    """Return the last ``size`` bytes of a file as text; empty if there is no such file."""
    try:
        with Path(path).open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - size))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def progress(text: str) -> str:
    """Return the last heading and the last bar after it, in words; empty if there is neither."""
    headings = list(HEADING.finditer(text))
    start = headings[-1].end() if headings else 0
    words = [headings[-1].group(1)] if headings else []
    bars = BAR.findall(text[start:])
    if bars:
        words.append("{} of {}".format(*bars[-1]))
    return ", ".join(words)


def last_lines(text: str, count: int) -> list[str]:
    """Return the last ``count`` lines that are not empty; of a progress bar only its last state."""
    lines = [line.split("\r")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line.strip()][-count:]
