# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One cause is one finding, also with three hundred servers; different causes stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import render_text
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import (
    ERROR,
    Finding,
    PlanError,
    few,
    grouped,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from planner_inventories import DECODER, PREFILLER, findings, many

PAIRS = 100


def large(
    everywhere: Mapping[str, Any], prefillers: Mapping[str, Mapping[str, Any]] | None = None
) -> RawInventory:
    """A hundred prefillers of two servers and a hundred decoders of one, with settings of all."""
    own = prefillers or {}
    return many(
        {
            "prefiller": [
                (f"p{i:02}", [f"p{i:02}a", f"p{i:02}b"], {**PREFILLER, **own.get(f"p{i:02}", {})})
                for i in range(PAIRS)
            ],
            "decoder": [(f"d{i:02}", [f"d{i:02}a"], DECODER) for i in range(PAIRS)],
        },
        everywhere=everywhere,
    )


def env(**variables: str | None) -> dict[str, Any]:
    return {"pd_engine_env": variables}


def args(**flags: Any) -> dict[str, Any]:
    return {"pd_engine_args": {name.replace("_", "-"): value for name, value in flags.items()}}


@pytest.mark.parametrize(
    ("code", "everywhere"),
    [
        ("PD102", {"pd_api_port": 0}),
        ("PD103", {"pd_served_model_name": ""}),
        ("PD109", {"pd_api_port": "8104"}),
        ("PD125", env(VLLM_HOST_IP=None)),
        ("PD206", {"pd_chips": "0-16"}),
        ("PD301", {"pd_api_port": 7001}),
        ("PD303", env(HCCL_IF_BASE_PORT="7001")),
        ("PD401", args(seeed=1)),
        ("PD402", args(tensor_parallel_size=4)),
        ("PD403", args(seed="x")),
        ("PD404", env(HF_TOKEN="x")),
        ("PD405", args(cp_kv_cache_interleave_size=64)),
        ("PD407", args(max_num_batched_tokens=200)),
        ("PD437", env(VLLM_NOPE="1")),
        ("PD420", env(VLLM_LOGING_LEVEL="DEBUG")),
        ("PD440", env(A="$(id)")),
        ("PD603", env(HCCL_CONNECT_TIMEOUT="1")),
        ("PD606", {"pd_kv_extra_config": {"use_ascend_direct": True}}),
    ],
)
def test_a_setting_of_all_is_one_finding(code: str, everywhere: dict[str, Any]) -> None:
    found = [f for f in findings(large(everywhere)) if f.code == code]
    assert len(list(grouped(found))) == 1
    assert len(list(render_text(found))) <= 12


def test_all_findings_of_three_hundred_servers_fit_a_screen() -> None:
    everywhere = {
        **args(seeed=1, seed="x", cp_kv_cache_interleave_size=64),
        **env(VLLM_HOST_IP=None, HF_TOKEN="x", VLLM_NOPE="1", HCCL_CONNECT_TIMEOUT="1"),
        "pd_api_port": 7001,
    }
    with pytest.raises(PlanError) as error:
        planner.make(large(everywhere))
    found = error.value.findings
    assert len(found) > 1000
    lines = list(render_text(found))
    assert len(lines) < 100
    # The number that is told is the number that is printed.
    blocks = [line for line in lines if line.startswith("ERROR")]
    assert str(error.value).startswith(f"{len(blocks)} errors in the inventory: ")


def test_the_place_names_some_and_counts_the_others() -> None:
    found = [f for f in findings(large(args(cp_kv_cache_interleave_size=64))) if f.code == "PD405"]
    assert next(render_text(found)) == "ERROR PD405  p00, p01 and 98 more / pd_engine_args"
    assert [few("abcdefgh"[:n]) for n in (0, 1, 2, 8)] == ["", "a", "a, b", "a, b, c, d, e, f, g, h"]
    assert few("abcdefghi") == "a, b and 7 more"


def test_a_message_with_a_name_says_that_the_others_are_alike() -> None:
    found = [f for f in findings(large({"pd_api_port": 7001})) if f.code == "PD301"]
    (group,) = grouped(found)
    assert group.message.endswith("both have port 7001 (and likewise the others)")
    assert group.to_dict()["message"] == group.message
    assert group.message in " ".join(" ".join(render_text(found)).split())
    assert grouped(found[:1])[0].message == found[0].message


def test_plan_json_has_every_place_and_topology_md_some() -> None:
    plan = planner.make(large(env(VLLM_HOST_IP=None))).to_dict()
    (finding,) = [f for f in plan["findings"] if f["code"] == "PD125"]
    assert len(finding["host"].split(", ")) == 3 * PAIRS
    assert len(finding["instance"].split(", ")) == 2 * PAIRS
    # Addresses differ, and none is lost.
    assert "p99b: VLLM_HOST_IP=10.1." in finding["expected"]
    (line,) = [line for line in render.markdown(plan).splitlines() if "PD125" in line]
    assert "(d00a, d01a and 298 more / d00, d01 and 198 more / pd_engine_env)" in line


@pytest.mark.parametrize("release", ["0.23.0", "v0.25.1rc1", 0.18])
def test_a_release_that_nobody_knows_is_one_cause(release: object) -> None:
    """What it has, and another has not, is no finding."""
    image = {"pd_image": "registry.example/vllm-ascend:v0.23.0-a3"}
    own = {**args(moe_backend="auto", kernel_config={"x": 1}), **env(VLLM_ENGINE_READY_TIMEOUT_S="3600")}
    found = [f for f in findings(large({**image, **own, "pd_release": release})) if f.severity != "hint"]
    assert {f.variable for f in found} == {"pd_release"}
    assert len(grouped(found)) == 1
    known = findings(large({**image, **own, "pd_release": "v0.13.0"}))
    assert {"PD401", "PD437", "PD608"} <= {f.code for f in known}


def test_other_numbers_are_another_cause() -> None:
    own = {"p07": args(cp_kv_cache_interleave_size=64), "p08": args(cp_kv_cache_interleave_size=32)}
    found = [f for f in findings(large({}, own)) if f.code == "PD405"]
    assert [group.instances for group in grouped(found)] == [("p07",), ("p08",)]


def test_what_was_seen_is_told_apart() -> None:
    own = {name: env(VLLM_HOST_IP="10.9.9.9") for name in ("p07", "p08")}
    found = [f for f in findings(large(env(VLLM_HOST_IP="10.8.8.8"), own)) if f.code == "PD126"]
    (group,) = grouped(found, 3)
    seen = group.seen
    assert seen is not None
    assert "p00a, p00b and 194 more: VLLM_HOST_IP=10.8.8.8" in seen
    assert "p07a, p07b, p08a, p08b: VLLM_HOST_IP=10.9.9.9" in seen


def finding(message: str, instance: str | None, seen: str | None = None) -> Finding:
    return Finding(
        "PD999", ERROR, message, instance=instance, variable="pd_x", seen=seen, cure="cure", source="source"
    )


@pytest.mark.parametrize(
    ("first", "second", "groups"),
    [
        (finding("is wrong", "p00"), finding("is wrong", "p01"), 1),
        (finding("API of p00 is wrong", "p00"), finding("API of p01 is wrong", "p01"), 1),
        (finding("p00 and p01 clash", "p00", "7001"), finding("p01 and p00 clash.", "p01", "7001"), 2),
        (finding("p00 and p01 clash", "p00", "7001"), finding("p01 and p00 clash", "p01", "7001"), 1),
        (finding("p00 and p01 clash", "p00", "7001"), finding("p01 and p00 clash", "p01", "7002"), 2),
        (finding("p00.a is wrong", "p00.a"), finding("p00 is wrong", "p00"), 1),
        (finding("--seed is wrong", "p00"), finding("--sead is wrong", "p01"), 2),
        # The word for a role is not always a name.
        (finding("a decoder is wrong", "decoder"), finding("a prefiller is wrong", "p00"), 2),
        (finding("the decoder alone", "decoder"), finding("the prefiller alone", "prefiller"), 1),
        (
            finding("nobody is in decoder: a prefiller alone", "decoder"),
            finding("nobody is in prefiller: a decoder alone", "prefiller"),
            2,
        ),
        (finding("is wrong", "p00"), replace(finding("is wrong", "p01"), variable="pd_y"), 2),
        (finding("is wrong", "p00"), replace(finding("is wrong", "p01"), cure="other"), 2),
        (finding("is wrong", "p00"), replace(finding("is wrong", "p01"), severity="warning"), 2),
        (finding("is wrong", "p00"), finding("is wrong", None), 2),
    ],
)
def test_what_is_one_cause(first: Finding, second: Finding, groups: int) -> None:
    assert len(grouped([first, second])) == groups
