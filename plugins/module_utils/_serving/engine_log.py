# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Parses the log of ``vllm serve`` of release 0.13: the progress of its start, and why it ended.

Pure functions over text. The lines are those of V@0.13.0 (vllm/entrypoints/cli/serve.py,
vllm/model_executor/model_loader/, vllm/v1/engine/, vllm/v1/worker/) and A@v0.13.0 (model_runner_v1.py),
and those of PyTorch's and uvicorn's that they let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

STARTING = "starting"
WAITING = "waiting for peers"
LOADING = "loading shards"
LOADED = "weights loaded"
CAPTURING = "capturing graphs"
WARM = "engine initialised"
READY = "ready"
# In the order of a start. A phase after WAITING shows that the group has formed.
PHASES = (STARTING, WAITING, LOADING, LOADED, CAPTURING, WARM, READY)


class Progress(NamedTuple):
    """The progress of an engine: a phase, with ``done`` of ``total`` if the log counts, else None."""

    phase: str
    done: int | None = None
    total: int | None = None

    @property
    def text(self) -> str:
        if self.total is None:
            return self.phase
        return f"{self.phase} {self.done} of {self.total}"


_COUNT = r"(?P<done>\d+)/(?P<total>\d+)"
_LINES = tuple(
    (phase, re.compile(pattern))
    for phase, pattern in (
        (STARTING, r"vLLM API server version|non-default args:|Initializing a V1 LLM engine"),
        (WAITING, r"headless (?:multiproc executor|mode), with head node address"),
        (WAITING, r"distributed_init_method=\S+ backend="),
        (WAITING, r"\d+/\d+ clients joined|client socket (?:has failed|has timed out|cannot be initialized)"),
        (LOADING, r"Loading .*checkpoint shards:.*\|\s*" + _COUNT),
        (LOADING, r"Starting to load model|Loading drafter model"),
        (LOADED, r"Loading weights took|Model loading took|Loading model weights took"),
        (CAPTURING, r"Capturing (?:CUDA|ACL|NPU) graphs?.*?" + _COUNT),
        (CAPTURING, r"Capturing (?:CUDA|ACL|NPU) graphs?"),
        (WARM, r"Graph capturing finished|init engine \(profile, create kv cache, warmup model\) took"),
        (WARM, r"Starting vLLM (?:API )?server"),
        (READY, r"Application startup complete"),
    )
)

# `1/2 clients joined`: PyTorch's store counts the nodes of the group that have joined.
# vllm-router writes colours also where there is no terminal.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_JOINED = re.compile(r"(\d+)/(\d+) clients joined")
# `(EngineCore_DP0 pid=77) ERROR 11-24 09:00:00 [core.py:843] `, in part or not at all.
_PREFIX = re.compile(r"^(?:\([^()]*pid=\d+\)\s*)*(?:(?:ERROR|CRITICAL)\s+[\d: -]+\[[^\]]+\]\s*)?")
_REASON = re.compile(
    r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Timeout|Interrupt)\b\s*:|\S+(?: serve)?: error: |E[A-Z]\d{4}\b"
    r"|bash: |\S+\.sh: line \d+: |Fatal |Segmentation fault|Killed)"
)
# If each data-parallel rank has a server of its own, the launch script prefixes their lines with this, and
# reports which of them ended.
_RANK = re.compile(r"^\[rank (\d+)\] ")
_RANK_ENDED = re.compile(r"^Rank (\d+) has ended with exit code \d+: ")
# Raised further up: these only report that something below them has failed.
_ECHO = re.compile(r"initialization failed|See root cause above|Executor failed|EngineDeadError")


def split_lines(text: str) -> list[str]:
    """Split a log into lines without colours; the carriage return of a progress bar ends a line too."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", _COLOUR.sub("", text)) if line.strip()]


def progress(text: str) -> Progress | None:
    """Return the latest progress in a log, or None if it has no known line."""
    for line in reversed(split_lines(text)):
        for phase, pattern in _LINES:
            match = pattern.search(line)
            if match:
                counts = {k: int(v) for k, v in match.groupdict().items() if v is not None}
                return Progress(phase, counts.get("done"), counts.get("total"))
    return None


def by_rank(text: str, ranks: Iterable[int]) -> dict[int, str]:
    """Return for each of the ranks the part of a log that it has written, without its prefix."""
    parts: dict[int, list[str]] = {rank: [] for rank in ranks}
    for line in split_lines(text):
        match = _RANK.match(line)
        if match and int(match.group(1)) in parts:
            parts[int(match.group(1))].append(line[match.end() :])
    return {rank: "\n".join(lines) for rank, lines in parts.items()}


def slowest(found: Iterable[tuple[int, Progress]]) -> tuple[int, Progress]:
    """Return the (rank, progress) pair with the least progress; among equals, the lowest rank."""
    return min(found, key=lambda pair: (PHASES.index(pair[1].phase), pair[1].done or 0, pair[0]))


def clients_joined(text: str) -> tuple[int, int] | None:
    """Return the numbers of joined and expected nodes, as last counted by PyTorch's store, or None."""
    matches = _JOINED.findall(text)
    return (int(matches[-1][0]), int(matches[-1][1])) if matches else None


def reason(text: str) -> str | None:
    """Return the log line with the cause of an engine's end, or None.

    This is its last own error, not one that only reports an error below it. With several ranks it is the
    error of the rank that ended first, because the others only follow.
    """
    found = None
    lines = split_lines(text)
    ended = next((match for match in map(_RANK_ENDED.match, lines) if match), None)
    if ended:
        of_rank = reason(by_rank(text, [int(ended.group(1))])[int(ended.group(1))])
        return f"rank {ended.group(1)}: {of_rank}" if of_rank else ended.string
    for line in lines:
        bare = _PREFIX.sub("", line).strip()
        if _REASON.match(bare) and not _ECHO.search(bare):
            found = bare
    return found
