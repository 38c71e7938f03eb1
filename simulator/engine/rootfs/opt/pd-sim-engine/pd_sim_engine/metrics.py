"""Prometheus metrics under vLLM's names, as far as the release has them.

Source: V@0.13.0, 0.18.0, 0.23.0:vllm/v1/metrics/loggers.py and stats.py.
"""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from . import RELEASE

TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

GAUGES = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "vllm:kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
COUNTERS = {
    "vllm:num_preemptions": "Cumulative number of preemption from the engine.",
    "vllm:prompt_tokens": "Number of prefill tokens processed.",
    "vllm:generation_tokens": "Number of generation tokens processed.",
    "vllm:prefix_cache_queries": "Prefix cache queries, in tokens.",
    "vllm:prefix_cache_hits": "Prefix cache hits, in tokens.",
    "vllm:external_prefix_cache_queries": "Tokens queried from other instances through the KV connector.",
    "vllm:external_prefix_cache_hits": "Tokens got from other instances through the KV connector.",
}
SOURCES = "vllm:prompt_tokens_by_source"
CACHED, RECOMPUTED = "vllm:prompt_tokens_cached", "vllm:prompt_tokens_recomputed"
if RELEASE.counts_sources:
    COUNTERS |= {
        SOURCES: "Number of prompt tokens by source.",
        CACHED: "Number of cached prompt tokens (local + external).",
    }
if RELEASE.counts_recomputed:
    COUNTERS[RECOMPUTED] = "Number of cached tokens recomputed for forward pass."
WAITING, REASON = "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"
CAPACITY, DEFERRED = "capacity", "deferred"
if RELEASE.waiting_reasons:
    GAUGES[REASON] = "Number of waiting requests by reason."
LABELS = {
    SOURCES: ("source", ("local_compute", "local_cache_hit", "external_kv_transfer")),
    REASON: ("reason", (CAPACITY, DEFERRED)),
}
"""A label that a metric has beside the common ones, and its values."""
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": ("Time to first token in seconds.", FIRST_TOKEN),
    "vllm:inter_token_latency_seconds": ("Inter-token latency in seconds.", BETWEEN),
    "vllm:e2e_request_latency_seconds": ("End to end request latency in seconds.", REQUEST),
    "vllm:request_queue_time_seconds": ("Time spent in WAITING phase for request.", REQUEST),
    "vllm:request_prefill_time_seconds": ("Time spent in PREFILL phase for request.", REQUEST),
    "vllm:request_decode_time_seconds": ("Time spent in DECODE phase for request.", REQUEST),
    "vllm:request_inference_time_seconds": ("Time spent in RUNNING phase for request.", REQUEST),
    "vllm:request_prompt_tokens": ("Number of prefill tokens processed.", TOKENS),
    "vllm:request_generation_tokens": ("Number of generation tokens processed.", TOKENS),
    "vllm:request_params_max_tokens": ("The max_tokens request parameter.", TOKENS),
}
FINISHED = ("stop", "length", "abort", "error")


def series(name: str, value: str) -> str:
    """The name under which one value of a metric's label is kept."""
    return f"{name}/{value}"


class Metrics:
    """All series of the server, one set an engine (data parallel rank)."""

    def __init__(self, model_name: str, engines: range) -> None:
        self.model_name = model_name
        self.engines = engines
        self.created = time.time()
        self.gauges: dict[tuple[str, int], float] = defaultdict(float)
        self.counters: dict[tuple[str, int], float] = defaultdict(float)
        self.finished: dict[tuple[str, int], int] = defaultdict(int)
        self.told: Callable[[str, str, float, int], None] | None = None
        """Where to tell every change too: the front end of a rank that has none of its own."""
        self.sums: dict[tuple[str, int], float] = defaultdict(float)
        self.buckets = {
            (name, engine): [0] * (len(bounds) + 1)
            for name, (_, bounds) in HISTOGRAMS.items()
            for engine in engines
        }

    def take(self, what: str, name: str, value: float, engine: int) -> None:
        """One change, by the name of its method."""
        if what == "add":
            self.counters[name, engine] += value
        elif what == "change":
            self.gauges[name, engine] += value
        elif what == "set":
            self.gauges[name, engine] = value
        elif what == "finish":
            self.finished[name, engine] += int(value)
        else:
            self.buckets[name, engine][bisect.bisect_left(HISTOGRAMS[name][1], value)] += 1
            self.sums[name, engine] += value
        if self.told is not None:
            self.told(what, name, value, engine)

    def add(self, name: str, amount: float, engine: int) -> None:
        self.take("add", name, amount, engine)

    def change(self, name: str, amount: float, engine: int) -> None:
        self.take("change", name, amount, engine)

    def set(self, name: str, value: float, engine: int) -> None:
        self.take("set", name, value, engine)

    def finish(self, reason: str, engine: int) -> None:
        self.take("finish", reason, 1, engine)

    def observe(self, name: str, value: float, engine: int) -> None:
        self.take("observe", name, value, engine)

    def wait(self, reason: str, amount: int, engine: int) -> None:
        """So many requests more wait for capacity, or are deferred until their KV cache has come."""
        self.change(WAITING, amount, engine)
        if RELEASE.waiting_reasons:
            self.change(series(REASON, reason), amount, engine)

    def prefilled(self, tokens: int, engine: int, *, transferred: bool) -> None:
        """A prompt is computed here, or its KV cache came from another instance. Of the latter the last
        token is computed all the same, which v0.18.0 counts twice."""
        self.add("vllm:prompt_tokens", tokens, engine)
        if not RELEASE.counts_sources:
            return
        external = tokens if transferred else 0
        recomputed = 1 if transferred and RELEASE.counts_recomputed else 0
        self.add(series(SOURCES, "local_compute"), tokens - external + recomputed, engine)
        self.add(series(SOURCES, "external_kv_transfer"), external, engine)
        self.add(CACHED, external - recomputed, engine)
        if RELEASE.counts_recomputed:
            self.add(RECOMPUTED, recomputed, engine)

    def asked_others(self, tokens: int, hits: int, engine: int) -> None:
        """What the KV connector was asked for, and what it had."""
        self.add("vllm:external_prefix_cache_queries", tokens, engine)
        self.add("vllm:external_prefix_cache_hits", hits, engine)

    def render(self) -> str:
        """The text format of Prometheus."""
        lines: list[str] = []

        def head(name: str, help_text: str, kind: str) -> None:
            lines.extend((f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"))

        def labels(engine: int, more: str = "") -> str:
            return f'{{engine="{engine}",{more}model_name="{self.model_name}"}}'

        def each(name: str) -> Iterator[tuple[str, tuple[str, int]]]:
            """The labels of each series of a metric, and where its value is."""
            label, values = LABELS.get(name, ("", ("",)))
            for engine in self.engines:
                for value in values:
                    key = series(name, value) if label else name
                    yield labels(engine, f'{label}="{value}",' if label else ""), (key, engine)

        for name, help_text in GAUGES.items():
            head(name, help_text, "gauge")
            lines += [f"{name}{found} {float(self.gauges[key])}" for found, key in each(name)]
        for name, help_text in COUNTERS.items():
            head(f"{name}_total", help_text, "counter")
            lines += [f"{name}_total{found} {float(self.counters[key])}" for found, key in each(name)]
            head(f"{name}_created", help_text, "gauge")
            lines += [f"{name}_created{found} {self.created}" for found, _ in each(name)]
        name = "vllm:request_success"
        head(f"{name}_total", "Count of successfully processed requests.", "counter")
        for engine in self.engines:
            for reason in FINISHED:
                more = f'finished_reason="{reason}",'
                lines.append(f"{name}_total{labels(engine, more)} {float(self.finished[reason, engine])}")
        for name, (help_text, bounds) in HISTOGRAMS.items():
            head(name, help_text, "histogram")
            for engine in self.engines:
                total = 0
                for bound, count in zip((*bounds, float("inf")), self.buckets[name, engine], strict=True):
                    total += count
                    le = "+Inf" if bound == float("inf") else str(float(bound))
                    lines.append(
                        f"{name}_bucket{labels(engine, f'le={chr(34)}{le}{chr(34)},')} {float(total)}"
                    )
                lines.append(f"{name}_count{labels(engine)} {float(total)}")
                lines.append(f"{name}_sum{labels(engine)} {self.sums[name, engine]}")
        head("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", "gauge")
        return "\n".join(lines) + "\n"
