# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What holds for every inventory: junk gives findings and never a traceback; plans keep their promises."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import planner_promises
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import render_text
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import (
    Finding,
    PlanError,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    Unreadable,
    raw_inventory,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.variables import VARIABLES
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_inventories import DECODER, PREFILLER, many, small
from planner_strategies import clusters

NAMES = [variable.name for variable in VARIABLES]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 70000)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["16", "0-7", "-1", "1g", "v0.13.0", "generic", "10.0.0.1", "::1", "MooncakeLayerwiseConnector"]
    )
    | st.just(Unreadable("no"))
    | st.just(object())
    | st.dates()
    | st.binary(max_size=4)
)
KEYS = (
    st.text(max_size=10)
    | st.integers()
    | st.none()
    | st.sampled_from(
        [
            *(
                "tensor",
                "prefill_context",
                "decode_context",
                "pipeline",
                "data",
                "data_local",
                "prefill",
                "decode",
            ),
            *(
                "tp_size",
                "dp_size",
                "block-size",
                "cp-kv-cache-interleave-size",
                "max_num_seqs",
                "max-model-len",
            ),
            *(
                "compilation-config",
                "cudagraph_capture_sizes",
                "max-cudagraph-capture-size",
                "speculative-config",
            ),
            *("distributed-executor-backend", "enable-expert-parallel", "api-key", "host", "VLLM_HOST_IP"),
            *("HCCL_IF_BASE_PORT", "HCCL_CONNECT_TIMEOUT", "ASCEND_LAUNCH_BLOCKING", "source", "target"),
            *("VLLM_ASCEND_ENABLE_FLASHCOMM1", "read_only", "max_cudagraph_capture_size", "enforce-eager"),
        ]
    )
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
VARIABLE_NAMES = st.sampled_from([*NAMES, "ansible_host"]) | st.text(max_size=8).map("pd_".__add__)
VARIABLES_OF_A_HOST = st.dictionaries(VARIABLE_NAMES, JUNK, max_size=6)


def outcome(raw: Any) -> dict[str, Any] | list[Finding]:
    """The plan, or the findings: nothing else may come out, and both can be shown."""
    try:
        plan = planner.make(raw)
    except PlanError as error:
        assert any(finding.severity == "error" for finding in error.findings)
        json.dumps([finding.to_dict() for finding in error.findings])
        assert "\n".join(render_text(error.findings))
        return error.findings
    content = plan.to_dict()
    for text in render.files(content).values():
        text.encode()
    return content


@settings(max_examples=250)
@given(VARIABLES_OF_A_HOST, VARIABLES_OF_A_HOST, VARIABLES_OF_A_HOST)
def test_junk_gives_findings(everywhere: dict[str, Any], p2: dict[str, Any], d1: dict[str, Any]) -> None:
    outcome(small(everywhere=everywhere, hosts={"p2": p2, "d1": d1}))


HOSTS = st.lists(st.sampled_from(["a", "b", "c", "10.0.0.1", "x y", ""]), max_size=4).map(tuple)
SHAPE = st.builds(
    lambda own, below, children: GroupShape(own, (*own, *below), children),
    HOSTS,
    HOSTS,
    st.lists(st.sampled_from(["g1", "g2", "proxy", "prefiller"]), max_size=3).map(tuple),
)


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["prefiller", "decoder", "proxy", "g1", "g2"]), SHAPE),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), VARIABLES_OF_A_HOST),
)
def test_odd_groups_give_findings(shapes: dict[str, GroupShape], hosts: dict[str, Mapping[str, Any]]) -> None:
    outcome(raw_inventory("odd", shapes, hosts))


@settings(max_examples=400)
@given(clusters())
def test_plans_keep_their_promises(raw: Any) -> None:
    plan = outcome(raw)
    if isinstance(plan, list):
        return
    planner_promises.check(plan)


def test_a_plan_is_the_same_every_time() -> None:
    assert planner.make(small()).to_dict() == planner.make(small()).to_dict()


def big(servers: int) -> Any:
    """Prefillers of two nodes and decoders of one, as many as fit."""
    third = servers // 3
    return many(
        {
            "prefiller": [(f"p{i}", [f"p{i}a", f"p{i}b"], PREFILLER) for i in range(third)],
            "decoder": [(f"d{i}", [f"d{i}a"], DECODER) for i in range(servers - 2 * third)],
        }
    )


def test_a_thousand_servers_take_linear_time() -> None:
    """The bound is loose for busy machines: alone it takes well under a second."""
    raw = big(1000)
    planner.make(small()).to_dict()
    start = time.process_time()
    plan = planner.make(raw)
    content = plan.to_dict()
    elapsed = time.process_time() - start
    assert len(content["hosts"]) == 1000
    assert elapsed < 5, f"{elapsed:.2f} s"
