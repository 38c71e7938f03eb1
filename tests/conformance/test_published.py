"""What upstream publishes with a release is planned: nothing of it is refused but what cannot start."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from .planned import ERROR, RELEASE, inventory, ports, rules, small, topology
from .published import OWN, Pair, pairs, serves, variables

PAIRS = list(pairs())
# Fewer would say that the pages are written in another way, and not all of them are read.
AT_LEAST = {"v0.13.0": 36, "v0.18.0": 64, "v0.23.0": 96}
# What is wrong on a page itself, by the block of the decoder: a batch of 4 tokens for 8 sequences, which vLLM
# refuses (V@0.23.0:vllm/config/scheduler.py).
WRONG = {"v0.23.0 models/Kimi-K2.6.md:361": {"PD408"}}
# Facts of the models, by a part of the page's name, so that the rules about them are heard too.
MLA: dict[str, Any] = {"attention": "mla", "experts": True}
MODELS: dict[str, dict[str, Any]] = {
    "DeepSeek-R1": {**MLA, "heads": 128, "layers": 61},
    "DeepSeek-V3": {**MLA, "heads": 128, "layers": 61},
    "GLM4": {"attention": "gqa", "experts": True, "heads": 96, "kv_heads": 8, "layers": 92},
    "GLM5": {**MLA, "heads": 64, "layers": 78},
    "Kimi-K2": {**MLA, "heads": 64, "layers": 61},
    "MiniMax-M2": {"attention": "gqa", "experts": True, "heads": 48, "kv_heads": 8, "layers": 62},
    "Minimax_m2": {"attention": "gqa", "experts": True, "heads": 48, "kv_heads": 8, "layers": 62},
    "Qwen3-235B": {"attention": "gqa", "experts": True, "heads": 64, "kv_heads": 4, "layers": 94},
    "Qwen3-VL-235B": {"attention": "gqa", "experts": True, "heads": 64, "kv_heads": 4, "layers": 94},
    "long_sequence": {**MLA, "heads": 128, "layers": 61},
    "mooncake_multi_node": {**MLA, "heads": 128, "layers": 61},
}


def errors(pair: Pair, facts: dict[str, Any]) -> set[str]:
    """The codes of what stops the plan, but for connectors of the release that are not planned yet."""
    declaration, found = inventory.read(pair.inventory(RELEASE))
    groups = tuple(
        replace(
            group,
            members=tuple(
                replace(m, settings=replace(m.settings, profile=replace(m.settings.profile, **facts)))
                for m in group.members
            ),
        )
        for group in declaration.groups
    )
    cluster = topology.build(replace(declaration, groups=groups))
    said = [f for f in (*found, *rules.check(cluster, ports.table(cluster))) if f.severity == ERROR]
    planned = pair.prefiller.transfer["kv_connector"] in cluster.release.connectors
    return {f.code for f in said if planned or f.variable != "pd_kv_connector"}


def test_the_pages_are_read() -> None:
    assert len(PAIRS) >= AT_LEAST[RELEASE]
    assert all(serve.flags for serve in serves())


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_published_pair_is_planned(pair: Pair) -> None:
    facts = next((facts for part, facts in MODELS.items() if part in pair.prefiller.page), {})
    expected = WRONG.get(f"{RELEASE} {pair.decoder.page}:{pair.decoder.number}", set())
    for known in ({}, facts):
        assert errors(pair, known) == expected


def test_no_published_variable_is_refused() -> None:
    """Nor taken for a slip of another."""
    # Two of the tests' names have a dash, which no shell exports.
    names = sorted(name for name in variables() - OWN if name.isidentifier())
    assert len(names) > 30
    raw = small({"all": {"pd_engine_env": dict.fromkeys(names, "1")}})
    declaration, found = inventory.read(raw)
    cluster = topology.build(declaration)
    said = [f for f in (*found, *rules.check(cluster, ports.table(cluster))) if f.seen in names]
    assert not Counter(f"{f.code} {f.seen}" for f in said if f.severity == ERROR or f.code == "PD421")
