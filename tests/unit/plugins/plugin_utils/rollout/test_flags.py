# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Spellings of flags that vLLM's parser takes: underscores, `--no-…`, abbreviations."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.sizes import NODE_FLAGS
from planner_inventories import codes, findings, small


def argv(**flags: Any) -> list[str]:
    """The words of the decoder's command with these flags, by their names with underscores."""
    args = {name.replace("__", "."): value for name, value in flags.items()}
    raw = small({"pd_engine_args": args, "pd_profile": "generic"}, prefiller={"pd_parallel": {"tensor": 16}})
    words: list[str] = planner.make(raw).to_dict()["hosts"]["d1"]["engines"][0]["argv"]
    return words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"no_enable_prefix_caching": True}, ["--no-enable-prefix-caching"]),
        ({"no-enable-prefix-caching": True}, ["--no-enable-prefix-caching"]),
        ({"enable-prefix-caching": True, "no-enable-prefix-caching": True}, ["--no-enable-prefix-caching"]),
        ({"no-enable-chunked": True}, ["--no-enable-chunked-prefill"]),
        ({"max-model": 4096}, ["--max-model-len", "4096"]),
        ({"max_model_len": 4096}, ["--max_model_len", "4096"]),
        ({"compilation-c.mode": 3}, ["--compilation-config.mode", "3"]),
        # One value of JSON, where another option takes several words.
        (
            {"compilation-config.cudagraph_capture_sizes": [1, 2]},
            ["--compilation-config.cudagraph_capture_sizes", "[1, 2]"],
        ),
        (
            {"compilation-config.pass_config.enable_sp": True},
            ["--compilation-config.pass_config.enable_sp", "true"],
        ),
        (
            {"compilation-config.pass_config.enable_sp": False},
            ["--compilation-config.pass_config.enable_sp", "false"],
        ),
        ({"allowed_origins": ["a", "b"]}, ["--allowed_origins", '["a", "b"]']),
        ({"cudagraph-capture-sizes": [1, 2]}, ["--cudagraph-capture-sizes", "1", "2"]),
    ],
)
def test_what_the_parser_takes_is_planned(flags: dict[str, Any], words: list[str]) -> None:
    found = argv(**flags)
    start = found.index(words[0])
    assert found[start : start + len(words)] == words
    assert "--enable-prefix-caching" not in found


def test_rules_see_a_flag_however_it_is_spelt() -> None:
    """Without chunked prefill a prompt fits into a batch."""
    short = {"max-num-batched": 4096, "max-model": 8192}
    assert "PD407" in codes(small(decoder={"pd_engine_args": {**short, "no-enable-chunked": True}}))
    assert "PD407" not in codes(small(decoder={"pd_engine_args": short}))


def test_null_takes_a_switch_away_in_both_forms() -> None:
    with_profile = {"pd_parallel": {"tensor": 16}, "pd_engine_args": {"no-enable-prefix-caching": None}}
    raw = small(prefiller=with_profile)
    assert (
        "--no-enable-prefix-caching" not in planner.make(raw).to_dict()["hosts"]["p1"]["engines"][0]["argv"]
    )
    raw = small(prefiller={"pd_parallel": {"tensor": 16}})
    assert "--no-enable-prefix-caching" in planner.make(raw).to_dict()["hosts"]["p1"]["engines"][0]["argv"]


def test_flags_of_a_node_are_flags() -> None:
    known = {option for name in release_names() for option in load_release(name).options}
    assert known >= NODE_FLAGS


@pytest.mark.parametrize("name", release_names())
def test_a_whole_name_is_no_abbreviation(name: str) -> None:
    """Even where another begins with it."""
    release = load_release(name)
    for option in release.options:
        assert release.option(option) == (option, False)
    for option in release.switch_options:
        assert release.option(f"no_{option.replace('-', '_')}") == (option, True)
    assert release.option("max-num") == ("max-num", False)
    assert release.option("") == ("", False)


@pytest.mark.parametrize(
    ("release", "text", "code"),
    [
        ("v0.13.0", {"compilation-config": '{"use_inductor": false}'}, "PD448"),
        ("v0.13.0", {"compilation_config": '{"level": 3}'}, None),
        ("v0.18.0", {"compilation_config": '{"level": 3}'}, "PD448"),
        ("v0.23.0", {"additional-config": ' {"enable_cpu_bindings": true}'}, "PD422"),
        ("v0.23.0", {"additional-config": '{"enable_cpu_binding": true}'}, None),
        ("v0.23.0", {"additional-config": '{"layer_sharding": ["o_proj"]}'}, "PD423"),
        ("v0.23.0", {"kv-events-config": '{"buffer_steps": 10k}'}, None),
        ("v0.13.0", {"speculative-config": '{"methd": "mtp", "num_speculative_tokens": 1}'}, "PD449"),
        ("v0.18.0", {"speculative-config": '{"methd": "mtp", "num_speculative_tokens": 1}'}, "PD448"),
        ("v0.13.0", {"speculative-config": {"method": "mtp", "disable_by_batch_size": 8}}, None),
        ("v0.23.0", {"speculative-config": {"method": "mtp", "disable_by_batch_size": 8}}, "PD448"),
        (
            "v0.23.0",
            {"speculative-config": {"method": "eagle3", "model": "/x", "attention_backend": "X"}},
            None,
        ),
        # No JSON at all.
        ("v0.23.0", {"additional-config": "{'enable_cpu_binding': True}"}, "PD403"),
        ("v0.18.0", {"speculative-config": "mtp"}, "PD403"),
        ("v0.18.0", {"compilation-config": 3}, "PD403"),
        ("v0.18.0", {"limit-mm-per-prompt": "image=1"}, "PD403"),
        ("v0.18.0", {"hf-overrides": "my.module.override"}, None),
        ("v0.18.0", {"compilation-config": "[" * 100_000}, "PD403"),
        ("v0.18.0", {"compilation-config": '{"mode":' * 400 + "3" + "}" * 400}, "PD403"),
    ],
)
def test_a_text_of_json_is_read_as_a_mapping_is(release: str, text: dict[str, Any], code: str | None) -> None:
    """So launch scripts have it."""
    flags = {"PD403", "PD422", "PD423", "PD448", "PD449"}
    found = codes(small({"pd_release": release, "pd_engine_args": text}))
    assert found & flags == ({code} if code else set())


def test_a_computed_flag_is_one_finding() -> None:
    found = codes(small({"pd_engine_args": {"kv-transfer-config": {"no_such_key": 1}}}))
    assert found & {"PD402", "PD448", "PD449"} == {"PD402"}


def test_a_text_of_json_is_given_as_it_stands() -> None:
    text = '{"cudagraph_mode":"NONE"  }'
    assert text in argv(**{"compilation-config": text})


@pytest.mark.parametrize(
    ("short", "meant"),
    [
        ("tp", "tensor-parallel-size"),
        ("O", "optimization-level"),
        ("cc", "compilation-config"),
        ("n", "nnodes"),
    ],
)
def test_the_long_name_of_a_short_option_is_told(short: str, meant: str) -> None:
    (message,) = {f.message for f in findings(small({"pd_engine_args": {short: 2}})) if f.code == "PD401"}
    assert message.endswith(f"-{short} is short for --{meant}")
