# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a benchmark: the ``vllm bench serve`` command of each measurement.

Every release's ``vllm bench serve`` has the options; a conformance test checks them against each parser.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = (50, 90, 99)


class BadBenchmark(Exception):
    """Everything that is wrong with a benchmark."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Case:
    """The load. Lengths in tokens, the rate in requests per second."""

    input_len: int = 131072
    output_len: int = 128
    prompts: int = 20
    rate: str = "inf"
    warmups: int = 1
    seed: int = 0

    def words(self) -> str:
        return f"{self.prompts} requests, {self.input_len} tokens in, {self.output_len} out, rate {self.rate}"


@dataclass(frozen=True)
class Run:
    """One command. ``concurrency``: concurrent requests, 0 for no limit."""

    concurrency: int
    repeat: int
    file: str
    argv: tuple[str, ...]

    def to_dict(self, number: int, total: int) -> dict[str, Any]:
        at_once = f"{self.concurrency} at a time" if self.concurrency else "all at once"
        again = f", repeat {self.repeat}" if self.repeat > 1 else ""
        title = f"run {number} of {total} ({at_once}{again})"
        return {
            "concurrency": self.concurrency,
            "repeat": self.repeat,
            "file": self.file,
            "argv": list(self.argv),
            "commands": [f"echo '== {title}'", shlex.join(self.argv)],
        }


def flag_value(argv: Sequence[str], flag: str) -> int | None:
    """Return the number that follows a flag on an engine's command line, or None."""
    for position, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == flag:
            text = value if equals else argv[position + 1] if position + 1 < len(argv) else ""
            return int(text) if text.isdigit() else None
    return None


def _engines(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [engine for share in plan["hosts"].values() for engine in share["engines"]]


def problems_of(plan: Mapping[str, Any], case: Case, concurrency: Sequence[int], repeats: int) -> list[str]:
    """Return everything for which the engines would refuse requests, before any is sent.

    plan: the plan.
    case: the load.
    concurrency: numbers of concurrent requests.
    repeats: number of repeats of each run.
    """
    found = []
    for name in ("input_len", "output_len", "prompts"):
        if getattr(case, name) < 1:
            found.append(f"{name} is {getattr(case, name)}, expected at least 1")
    if repeats < 1:
        found.append(f"repeats is {repeats}, expected at least 1")
    if not concurrency or any(number < 0 for number in concurrency):
        found.append(
            f"concurrency is {list(concurrency)}, expected numbers from 0 (no limit) up, at least one"
        )
    try:
        positive = float(case.rate) > 0
    except ValueError:
        positive = False
    if not positive:
        found.append(
            f"rate is {case.rate}, expected a number of requests per second above 0, or inf for all at once:"
            " at 0, which the guide uses, vllm bench serve stops with 'Obtained non-positive request rate'"
        )
    for engine in _engines(plan):
        limit = flag_value(engine["argv"], "--max-model-len")
        if limit is not None and case.input_len + case.output_len > limit:
            found.append(
                f"{case.input_len} tokens in and {case.output_len} out do not fit into --max-model-len"
                f" {limit} of {engine['instance']}: every request would be refused"
            )
    return list(dict.fromkeys(found))


def waiting(plan: Mapping[str, Any], concurrency: Sequence[int], prompts: int) -> list[str]:
    """Return warnings about requests that wait for their turn, which counts in TTFT.

    The guide has a notice about this at max-num-seqs.
    """
    rooms: dict[str, int] = {}
    for role in ("prefiller", "decoder"):
        instances = {e["instance"]: e for e in _engines(plan) if e["role"] == role}
        sizes = []
        for instance in instances.values():
            seats = flag_value(instance["argv"], "--max-num-seqs")
            ranks = flag_value(instance["argv"], "--data-parallel-size") or 1
            sizes.append(seats * ranks if seats else None)
        if sizes and all(sizes):
            rooms[role] = sum(size for size in sizes if size)
    most = max((min(number or prompts, prompts) for number in concurrency), default=0)
    return [
        f"Up to {most} requests are sent at a time, but the {role}s process only {seats} together"
        " (--max-num-seqs x data parallel size). The others wait, and their TTFT includes the wait."
        for role, seats in rooms.items()
        if seats < most
    ]


def make_runs(
    plan: Mapping[str, Any],
    case: Case,
    concurrency: Sequence[int],
    repeats: int,
    folder: str,
    url: str,
    options: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Return the commands, in their order.

    plan: the plan.
    case: the load.
    concurrency: numbers of concurrent requests, 0 for no limit; one run for each.
    repeats: number of repeats of each run.
    folder: folder for the result files, as seen by the command.
    url: base URL of the proxy.
    options: further long options by name, True for a flag.

    Raises BadBenchmark with all problems.
    """
    problems = problems_of(plan, case, concurrency, repeats)
    if problems:
        raise BadBenchmark(problems)
    weights = plan["model"]["path"]
    runs: list[Run] = []
    for number in concurrency:
        for repeat in range(1, repeats + 1):
            file = f"concurrency-{number or 'all'}-{repeat}.json"
            argv = ["vllm", "bench", "serve", "--backend", "openai", "--base-url", url]
            argv += ["--endpoint", "/v1/completions", "--model", weights, "--tokenizer", weights]
            argv += ["--served-model-name", plan["model"]["served_name"], "--dataset-name", "random"]
            argv += ["--random-input-len", str(case.input_len), "--random-output-len", str(case.output_len)]
            argv += ["--num-prompts", str(case.prompts), "--request-rate", case.rate]
            if number:
                argv += ["--max-concurrency", str(number)]
            # A different seed each time: a prefix cache would answer the repeats of the same prompts.
            argv += ["--num-warmups", str(case.warmups), "--seed", str(case.seed + len(runs))]
            # The default up to V@0.13.0. Since V@0.18.0 the server would choose, and runs would differ.
            argv += ["--temperature", "0"]
            argv += ["--percentile-metrics", "ttft,tpot,itl,e2el"]
            argv += ["--metric-percentiles", ",".join(map(str, PERCENTILES))]
            argv += ["--save-result", "--save-detailed", "--result-dir", folder, "--result-filename", file]
            for name, value in (options or {}).items():
                argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
            runs.append(Run(number, repeat, file, tuple(argv)))
    return runs
