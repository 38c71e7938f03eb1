# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What prefillers and decoders must agree on, by release and connector: rules from both sides, and what the
plan writes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import ERROR
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import release_names
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.pipeline import even
from planner_inventories import codes, findings, many
from test_release_rules import LAYERWISE, MIDDLE, NEW, OLD, TP16, alone, args, env, kv, on, parallel

RELEASES = release_names()
LATER = RELEASES[1:]
PIPELINE = parallel(tensor=8, pipeline=2)
STAGES = "VLLM_PP_LAYER_PARTITION"
# A model with eight key/value heads, without MLA, and one that nothing is known of.
GQA = {"pd_profile": "qwen3-235b-a22b-w8a8"}
UNKNOWN = {"pd_profile": "generic"}
NO_CHUNKS = {
    "enable-chunked-prefill": False,
    "enable-prefix-caching": False,
    "max-num-batched-tokens": 136000,
}


def split(partition: str) -> dict[str, Any]:
    return {**PIPELINE, **env(**{STAGES: partition})}


def blocks(size: int) -> dict[str, Any]:
    return args(**{**NO_CHUNKS, "block_size": size})


def two_prefillers(
    release: str, first: Mapping[str, Any], second: Mapping[str, Any], **everywhere: Any
) -> RawInventory:
    return many(
        {
            "prefiller": [("pa", ["a"], first), ("pb", ["b"], second)],
            "decoder": [("d", ["c"], parallel(tensor=4))],
        },
        everywhere={
            "pd_release": release,
            "pd_image": f"r.example/vllm-ascend:{release}-a3",
            **everywhere,
        },
    )


# code, an inventory that breaks the rule, one that does not
CASES: list[tuple[str, RawInventory, RawInventory]] = [
    ("PD225", on(OLD, prefiller=split("30,30")), on(OLD, prefiller=split("30,31"))),
    ("PD225", on(MIDDLE, prefiller=split("61")), on(MIDDLE, prefiller=split("40,21"))),
    ("PD225", on(NEW, prefiller=split("30;31")), on(NEW, prefiller=split("30,31"))),
    (
        "PD225",
        on(NEW, env(VLLM_PP_LAYER_PARTITION="30,31"), PIPELINE),
        on(NEW, prefiller=split("30,31")),
    ),
    (
        "PD225",
        alone(NEW, **{**UNKNOWN, **split("30,31,1")}),
        alone(NEW, **{**UNKNOWN, **split("30,31")}),
    ),
    # What the connector asks for is asked of nobody who has none.
    (
        "PD209",
        on(NEW, prefiller=parallel(tensor=8, pipeline=2, prefill_context=2)),
        alone(NEW, **parallel(tensor=4, pipeline=2, prefill_context=2)),
    ),
    ("PD501", on(NEW, kv(prefill={"dp_size": 2})), on(NEW, decoder=kv(prefill={"dp_size": 2}))),
    (
        "PD501",
        on(NEW, {**LAYERWISE, **TP16, **kv(decode={"tp_size": 8})}),
        alone(NEW, **kv(decode={"tp_size": 8})),
    ),
    # A connector that a prefiller tells its tensor size needs no one size of all.
    (
        "PD502",
        two_prefillers(OLD, parallel(tensor=16), parallel(tensor=8)),
        two_prefillers(MIDDLE, parallel(tensor=16), parallel(tensor=8)),
    ),
    (
        "PD502",
        two_prefillers(NEW, parallel(tensor=4), parallel(tensor=4, pipeline=2)),
        two_prefillers(NEW, parallel(tensor=4), parallel(tensor=4, data=2)),
    ),
    (
        "PD502",
        two_prefillers(NEW, split("30,31"), split("31,30")),
        two_prefillers(NEW, split("30,31"), split("30,31")),
    ),
    (
        "PD502",
        two_prefillers(OLD, parallel(tensor=16), parallel(tensor=8), **LAYERWISE),
        two_prefillers(OLD, parallel(tensor=8), parallel(tensor=8, data=2), **LAYERWISE),
    ),
    (
        "PD502",
        two_prefillers(NEW, parallel(tensor=8), parallel(tensor=4), **LAYERWISE, **GQA),
        two_prefillers(NEW, parallel(tensor=8), parallel(tensor=4), **LAYERWISE),
    ),
    ("PD502", on(OLD, decoder=kv(prefill={"tp_size": 32})), on(OLD, decoder=kv(prefill={"dp_size": 32}))),
    # From v0.18.0 on the layerwise connector says nothing of the order at start; requests say it.
    (
        "PD503",
        on(OLD, LAYERWISE, parallel(tensor=8), TP16),
        on(MIDDLE, LAYERWISE, parallel(tensor=8), TP16),
    ),
    ("PD503", on(NEW, decoder=kv(prefill={"tp_size": 8})), on(NEW, decoder=kv(prefill={"tp_size": 32}))),
    (
        "PD504",
        on(MIDDLE, {**LAYERWISE, **GQA}, parallel(tensor=4), parallel(tensor=8)),
        on(MIDDLE, {**LAYERWISE, **GQA}, parallel(tensor=8), parallel(tensor=4)),
    ),
    (
        "PD506",
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=2), parallel(tensor=16, decode_context=4)),
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=4), parallel(tensor=4)),
    ),
    # Who splits blocks, and who does not.
    ("PD507", on(MIDDLE, {}, {**TP16, **blocks(64)}), on(NEW, {}, {**TP16, **blocks(64)})),
    (
        "PD507",
        on(OLD, LAYERWISE, {**TP16, **blocks(64)}),
        on(MIDDLE, LAYERWISE, {**TP16, **blocks(64)}),
    ),
    (
        "PD507",
        on(NEW, LAYERWISE, TP16, {**TP16, **blocks(64)}),
        on(NEW, {}, TP16, {**TP16, **blocks(64)}),
    ),
    ("PD507", on(NEW, {}, {**TP16, **blocks(48)}), on(NEW, {}, {**TP16, **blocks(128)})),
    ("PD514", on(OLD, decoder=kv(prefill={"tp_size": "x"})), on(OLD, decoder=kv(prefill={"dp_size": "x"}))),
    ("PD514", on(OLD, decoder=kv(prefill=None)), on(NEW, {**LAYERWISE, **TP16}, {}, kv(prefill=None))),
    ("PD514", on(NEW, {**LAYERWISE, **TP16}, {}, kv(decode=None)), on(NEW, {**LAYERWISE, **TP16})),
    (
        "PD514",
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=8), {**parallel(tensor=8), **kv(prefill=None)}),
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=8), parallel(tensor=8)),
    ),
    *(("PD516", on(release, LAYERWISE, PIPELINE), on(release, {}, PIPELINE)) for release in RELEASES),
    *(
        (
            "PD517",
            on(release, LAYERWISE, parallel(tensor=16, decode_context=8), parallel(tensor=4)),
            on(release, LAYERWISE, parallel(tensor=16, decode_context=8), parallel(tensor=2)),
        )
        for release in LATER
    ),
    (
        "PD517",
        on(MIDDLE, LAYERWISE, parallel(tensor=8), TP16),
        on(OLD, LAYERWISE, parallel(tensor=8), TP16),
    ),
    (
        "PD517",
        on(NEW, {**LAYERWISE, **UNKNOWN}, parallel(tensor=8), TP16),
        on(NEW, {**LAYERWISE, **UNKNOWN}, parallel(tensor=16, decode_context=2), TP16),
    ),
    (
        "PD517",
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=16, decode_context=2), parallel(tensor=16)),
        on(NEW, {**LAYERWISE, **GQA}, parallel(tensor=16, decode_context=2), parallel(tensor=8)),
    ),
    (
        "PD518",
        on(OLD, {}, parallel(tensor=8, pipeline=2, decode_context=2)),
        on(OLD, {}, parallel(tensor=16, prefill_context=2, decode_context=2)),
    ),
    (
        "PD518",
        on(NEW, {}, parallel(tensor=8, pipeline=2, decode_context=2)),
        alone(NEW, **parallel(tensor=8, pipeline=2, decode_context=2)),
    ),
    *(
        ("PD519", on(release, kv(prefill={"pp_size": told}), PIPELINE), on(release, {}, PIPELINE))
        for release in RELEASES
        for told in (1, None, 4)
    ),
    ("PD519", on(NEW, kv(prefill={"pp_size": 2})), on(NEW, kv(prefill={"pp_size": 1}))),
    (
        "PD519",
        on(OLD, kv(prefill={"pp_layer_partition": "30,31"}), PIPELINE),
        on(OLD, kv(prefill={"pp_layer_partition": "31,30"}), PIPELINE),
    ),
    (
        "PD519",
        on(MIDDLE, kv(prefill={"pp_layer_partition": "31,30"}), split("30,31")),
        on(MIDDLE, kv(prefill={"pp_layer_partition": "30,31"}), split("30,31")),
    ),
    (
        "PD519",
        on(NEW, {}, split("30,31"), kv(prefill={"pp_layer_partition": None})),
        on(NEW, {}, split("31,30"), kv(prefill={"pp_layer_partition": None})),
    ),
    (
        "PD527",
        on(OLD, LAYERWISE, parallel(tensor=16, decode_context=8), TP16),
        on(OLD, LAYERWISE, parallel(tensor=16, decode_context=8), parallel(tensor=16, decode_context=8)),
    ),
    (
        "PD527",
        on(OLD, LAYERWISE, parallel(tensor=16, decode_context=8), parallel(tensor=2)),
        on(OLD, {}, parallel(tensor=16, decode_context=8), parallel(tensor=2)),
    ),
]


@pytest.mark.parametrize(
    ("code", "broken", "kept"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_rule_from_both_sides(code: str, broken: RawInventory, kept: RawInventory) -> None:
    assert code in codes(broken)
    assert code not in codes(kept)


def transfer_configs(raw: RawInventory) -> dict[str, dict[str, Any]]:
    """--kv-transfer-config of each engine, by host."""
    plan = planner.make(raw).to_dict()
    found = {}
    for host, share in plan["hosts"].items():
        for engine in share["engines"]:
            argv = engine["argv"]
            found[host] = json.loads(argv[argv.index("--kv-transfer-config") + 1])
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_both_sides_are_told_the_prefillers_pipeline(release: str) -> None:
    """A decoder that is not told takes one stage, and fetches all layers from it."""
    for config in transfer_configs(on(release, {}, PIPELINE, parallel(tensor=8))).values():
        sizes = config["kv_connector_extra_config"]
        assert sizes["prefill"] == {"dp_size": 1, "tp_size": 8, "pp_size": 2}
        assert sizes["decode"] == {"dp_size": 1, "tp_size": 8}


@pytest.mark.parametrize("release", RELEASES)
def test_both_sides_are_told_the_split_of_the_layers(release: str) -> None:
    for config in transfer_configs(on(release, {}, split("40,21"), parallel(tensor=8))).values():
        assert config["kv_connector_extra_config"]["prefill"]["pp_layer_partition"] == "40,21"


@pytest.mark.parametrize("release", RELEASES)
def test_without_a_pipeline_nothing_is_said_of_it(release: str) -> None:
    for config in transfer_configs(on(release, {}, TP16, parallel(tensor=8))).values():
        assert config["kv_connector_extra_config"]["prefill"].keys() == {"dp_size", "tp_size"}


def test_no_cure_takes_a_pipeline_away() -> None:
    """What the plan computes can be left out of pd_kv_extra_config, and the plan then says the pipeline."""
    raw = on(NEW, kv(prefill={"tp_size": 4, "pp_size": 2}), PIPELINE, parallel(tensor=8))
    (finding,) = [f for f in findings(raw) if f.code == "PD501"]
    assert finding.severity == ERROR
    assert "computed" in finding.cure
    assert "pp_size" not in finding.cure


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (61, 1, (61,)),
        (61, 2, (31, 30)),
        (62, 4, (15, 16, 16, 15)),
        (63, 4, (16, 16, 16, 15)),
        (8, 4, (2,) * 4),
    ],
)
def test_an_even_split_is_vllms(layers: int, stages: int, expected: tuple[int, ...]) -> None:
    assert even(layers, stages) == expected
