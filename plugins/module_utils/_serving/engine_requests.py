# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module engine_requests_info: what an engine still has to do before it may end."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .completions import metric_sum
from .http_client import Http

# V@0.13.0:vllm/v1/metrics/loggers.py, and the same to v0.30.0.
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV = "vllm:kv_cache_usage_perc"
# Seconds between two looks, and for an answer.
PAUSE, TIMEOUT = 0.25, 5.0
NO_ANSWER = (OSError, http.client.HTTPException)

ARGUMENTS: dict[str, Any] = {
    "engines": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "container": {"type": "str", "required": True},
            "instance": {"type": "str", "required": True},
            "role": {"type": "str", "choices": ["prefiller", "decoder"], "required": True},
            "apis": {"type": "list", "elements": "str", "required": True},
        },
    },
    "model": {"type": "str", "required": True},
    "api_key_file": {"type": "path", "no_log": False},
    "nudge": {"type": "bool", "default": False},
    "hold": {"type": "float", "default": 0.0},
}


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result."""
    http = Http(TIMEOUT, _key(options["api_key_file"]))
    end = time.monotonic() + options["hold"]
    engines = [_look(http, engine) for engine in options["engines"]]
    if options["nudge"]:
        for engine in engines:
            _nudge(http, engine, options["model"])
    while any(not one["idle"] for one in engines) and time.monotonic() < end:
        time.sleep(PAUSE)
        engines = [_look(http, engine) for engine in options["engines"]]
    return {"changed": False, "engines": engines}


def _key(path: str | None) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else None
    except OSError:
        return None


def _look(http: Http, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one engine still has to do, over all of its APIs."""
    seen = [counts for counts in (_counts(http, api) for api in engine["apis"]) if counts is not None]
    requests = int(sum(running + waiting for running, waiting, _ in seen))
    held = max((kv for _, _, kv in seen), default=0.0)
    # A decoder's blocks are those of its requests.
    kept = held if engine["role"] == "prefiller" else 0.0
    return {
        "container": engine["container"],
        "instance": engine["instance"],
        "role": engine["role"],
        "apis": list(engine["apis"]),
        "requests": requests,
        "kv": round(kept, 4),
        "idle": requests == 0 and kept == 0.0,
    }


def _counts(http: Http, api: str) -> tuple[float, float, float] | None:
    """Return requests that run and that wait, and the part of the KV cache in use; None without an answer:
    an engine that has ended has nothing left to do."""
    try:
        text = http.get(f"http://{api}/metrics")
    except NO_ANSWER:
        return None
    running, waiting, kv = (metric_sum(text, name) or 0.0 for name in (RUNNING, WAITING, KV))
    return running, waiting, kv


def _nudge(http: Http, engine: Mapping[str, Any], model: str) -> None:
    """Have an idle prefiller look at what its decoders have fetched.

    Up to v0.18.0 it does so only when it has a request (V@0.13.0:vllm/v1/core/sched/scheduler.py:1420), so
    that the blocks of the last ones stay in use.
    """
    if engine["requests"] or not engine["kv"]:
        return
    body = {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0}
    for api in engine["apis"]:
        try:
            http.post(f"http://{api}/v1/completions", body)
        except NO_ANSWER:
            continue


def left(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is left of each engine that is not idle, for people."""
    return [
        f"{one['instance']} has "
        + (_count(one["requests"]) if one["requests"] else f"{one['kv']:.1%} of its KV cache in use")
        for one in engines
        if not one["idle"]
    ]


def _count(requests: int) -> str:
    return f"{requests} request{'s' * (requests != 1)}"
