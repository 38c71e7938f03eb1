"""What /metrics tells of the KV hand-over, by release."""

from __future__ import annotations

import signal

import pytest

from .harness import QUESTION, Lab, Pair, Running, post, start_pair

SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
TOKENS = 5
"""Of the question."""
TRANSFERRED = {"v0.13.0": [0, 0, 0], "v0.18.0": [1, 0, TOKENS], "v0.23.0": [0, 0, TOKENS]}
"""Prompt tokens of a decoder by source, when the KV cache was pulled: v0.18.0 counts the last token twice."""


def by_source(engine: Running) -> list[float]:
    """In the order of SOURCES; zeros where the release does not tell."""
    return [engine.metric("vllm:prompt_tokens_by_source_total", source=source) for source in SOURCES]


def external(engine: Running) -> tuple[float, float]:
    """(queries, hits) of the KV connector, in tokens."""
    names = ("queries", "hits")
    queries, hits = (engine.metric(f"vllm:external_prefix_cache_{name}_total") for name in names)
    return queries, hits


def small(lab: Lab, release: str) -> Pair:
    """Two chips each, one node."""
    return start_pair(lab, nodes=1, pcp=1, dcp=1, release=release)


@pytest.mark.parametrize("release", TRANSFERRED)
def test_where_prompt_tokens_come_from(lab: Lab, release: str) -> None:
    pair = small(lab, release)
    pair.answer()
    told = release != "v0.13.0"
    assert by_source(pair.prefiller) == ([TOKENS, 0, 0] if told else [0, 0, 0])
    assert external(pair.prefiller) == (TOKENS, 0)
    assert by_source(pair.decoder) == TRANSFERRED[release]
    assert external(pair.decoder) == (TOKENS, TOKENS)
    recomputed = release == "v0.18.0"
    assert pair.decoder.metric("vllm:prompt_tokens_recomputed_total") == recomputed
    assert pair.decoder.metric("vllm:prompt_tokens_cached_total") == (TOKENS - recomputed if told else 0)
    assert pair.decoder.metric("vllm:prompt_tokens_total") == TOKENS
    pair.decoder.complete()
    computed = TRANSFERRED[release][0] + TOKENS
    assert by_source(pair.decoder) == ([computed, 0, TOKENS] if told else [0, 0, 0])
    assert external(pair.decoder) == (2 * TOKENS, TOKENS)
    assert pair.decoder.metric("vllm:prompt_tokens_total") == 2 * TOKENS


@pytest.mark.parametrize("release", TRANSFERRED)
def test_names_are_the_releases(lab: Lab, release: str) -> None:
    text = small(lab, release).decoder.request("/metrics")[1]
    assert ("# TYPE vllm:prompt_tokens_by_source_total counter" in text) == (release != "v0.13.0")
    assert ("# TYPE vllm:prompt_tokens_cached_total counter" in text) == (release != "v0.13.0")
    assert ("# TYPE vllm:prompt_tokens_recomputed_total counter" in text) == (release == "v0.18.0")
    assert ("# TYPE vllm:num_requests_waiting_by_reason gauge" in text) == (release == "v0.23.0")
    if release != "v0.13.0":
        series = 'vllm:prompt_tokens_by_source_total{engine="0",source="external_kv_transfer",'
        assert f'{series}model_name="deepseek_v3"}} 0.0' in text


def test_a_request_waits_for_its_kv_cache(lab: Lab) -> None:
    pair = small(lab, "v0.23.0")
    given = pair.prefill()
    pair.prefiller.process.send_signal(signal.SIGSTOP)
    reasons = "vllm:num_requests_waiting_by_reason"
    with post(pair.decoder, {"prompt": QUESTION, "kv_transfer_params": given}):
        pair.decoder.wait_until(lambda: pair.decoder.metric(reasons, reason="deferred") == 1)
        assert pair.decoder.metric(reasons, reason="capacity") == 0
        assert pair.decoder.metric("vllm:num_requests_waiting") == 1
        assert pair.decoder.metric("vllm:num_requests_running") == 0
        pair.prefiller.process.send_signal(signal.SIGCONT)
        pair.decoder.wait_until(lambda: pair.decoder.metric(reasons) == 0)
