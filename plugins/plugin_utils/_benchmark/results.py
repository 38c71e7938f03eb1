# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The results of ``vllm bench serve --save-detailed``: every request classified, the repeats combined.

The result file does not mark a request as successful. This is derived here from its data, more strictly than
in upstream's count: an answer that breaks off in the middle counts as failed too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = (50, 90, 99)
EMPTY = "empty answer with status 200: the decoder failed behind the proxy"
REQUIRED = ("completed", "failed", "duration", "input_lens", "output_lens", "ttfts", "itls", "errors")


class BadResult(Exception):
    """A file that is not a result of ``vllm bench serve``."""


@dataclass(frozen=True)
class Request:
    """One request. Times in seconds."""

    ttft: float
    gaps: tuple[float, ...]
    tokens: int
    failure: str | None

    @property
    def seconds(self) -> float:
        return self.ttft + sum(self.gaps)


@dataclass
class Point:
    """The measurements at one concurrency, over all repeats. Durations in seconds."""

    concurrency: int
    requests: list[Request] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    @property
    def good(self) -> list[Request]:
        return [request for request in self.requests if request.failure is None]

    @property
    def failures(self) -> dict[str, int]:
        """The number of failures of each kind."""
        return dict(Counter(request.failure for request in self.requests if request.failure is not None))


def failure_of(ttft: float, tokens: int, error: str, wanted: int, text: str | None) -> str | None:
    """Return why a request counts as failed, in a few words, or None.

    ttft: time to the first token in seconds, 0 without an answer.
    tokens, wanted: tokens of the answer, and tokens that it must have.
    error: the error that the tool recorded.
    text: the generated text, if the file has it.
    """
    if error.startswith("Never received a valid chunk"):
        return EMPTY
    if error:
        return error.strip().splitlines()[-1][:120]
    if ttft <= 0:
        return "no answer (HTTP error without a reason)"
    if tokens < wanted:
        return f"broken off: {tokens} of {wanted} tokens"
    if text is not None and not text.strip():
        return "an answer without text"
    return None


def requests_of(result: Mapping[str, Any], wanted: int) -> list[Request]:
    """Return all requests of a result file. ``wanted``: tokens that an answer must have. Raises BadResult."""
    missing = [key for key in REQUIRED if key not in result]
    if missing:
        raise BadResult(
            f"it has no {', '.join(missing)} (written without --save-detailed, or by another tool)"
        )
    count = len(result["ttfts"])
    columns = [result[key] for key in ("itls", "output_lens", "errors")]
    texts = result.get("generated_texts") or [None] * count
    if any(len(column) != count for column in (*columns, texts)):
        raise BadResult("its lists differ in length")
    return [
        Request(
            float(ttft),
            tuple(map(float, gaps)),
            int(tokens),
            failure_of(float(ttft), int(tokens), str(error), wanted, text),
        )
        for ttft, gaps, tokens, error, text in zip(result["ttfts"], *columns, texts, strict=True)
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, linear between the two nearest values as in numpy."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float] | None:
    """Return mean and percentiles, rounded; None without values."""
    if not values:
        return None
    named = {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}
    return {key: round(value, digits) for key, value in {"mean": sum(values) / len(values), **named}.items()}


def figures(point: Point) -> dict[str, Any]:
    """Return a point as JSON: latencies in seconds, throughputs in tokens or requests per second."""
    good = point.good
    total = sum(point.durations)
    tokens = sum(request.tokens for request in good)
    long = [request for request in good if request.tokens > 1]
    return {
        "concurrency": point.concurrency,
        "requests": len(point.requests),
        "failed": len(point.requests) - len(good),
        "failures": point.failures,
        "ttft": spread([request.ttft for request in good]),
        "tpot": spread([sum(request.gaps) / (request.tokens - 1) for request in long], 6),
        "itl": spread([gap for request in good for gap in request.gaps], 6),
        "e2el": spread([request.seconds for request in good]),
        "request_throughput": spread([r.tokens / r.seconds for r in good if r.seconds > 0]),
        "output_throughput": round(tokens / total, 3) if total else 0.0,
        "requests_per_second": round(len(good) / total, 4) if total else 0.0,
        "ttfts": [round(request.ttft, 4) if request.failure is None else None for request in point.requests],
    }


def collect(
    runs: Sequence[Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]], wanted: int
) -> list[Point]:
    """Return the points of a benchmark, in the order of their runs.

    runs: the runs.
    results: result files by the file names of the runs.
    wanted: tokens that each answer must have.

    Raises BadResult.
    """
    points: dict[int, Point] = {}
    for run in runs:
        result = results.get(run["file"])
        if result is None:
            continue
        point = points.setdefault(run["concurrency"], Point(run["concurrency"]))
        try:
            point.requests += requests_of(result, wanted)
        except BadResult as error:
            raise BadResult(f"{run['file']}: {error}") from None
        point.durations.append(float(result["duration"]))
    return list(points.values())
