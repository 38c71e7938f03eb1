# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How far a measurement is, by its log.

A line C(== …) is a heading that the commands print themselves. C(17/20) with a bar before it is tqdm's, which
both C(vllm bench serve) and AISBench draw.
"""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 65536
HEADING = re.compile(r"^== (.+?)\s*$", re.M)
BAR = re.compile(r"\|\s*(\d+)/(\d+)\s*\[")


def tail_of(path: str | Path, size: int = TAIL_BYTES) -> str:
    """The last C(size) bytes of a file as text; empty when there is no such file."""
    try:
        with Path(path).open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - size))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def progress(text: str) -> str:
    """The last heading and the last bar after it, in words; empty when there is neither."""
    headings = list(HEADING.finditer(text))
    start = headings[-1].end() if headings else 0
    words = [headings[-1].group(1)] if headings else []
    bars = BAR.findall(text[start:])
    if bars:
        words.append("{} of {}".format(*bars[-1]))
    return ", ".join(words)


def last_lines(text: str, count: int) -> list[str]:
    """The last lines that say something; of a bar only its last state."""
    lines = [line.split("\r")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line.strip()][-count:]
