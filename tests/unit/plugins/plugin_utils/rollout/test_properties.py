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
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.variables import VARIABLES
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_inventories import DECODER, PREFILLER, many, small

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


@st.composite
def fitting(draw: st.DrawFn, tensors: tuple[int, ...]) -> tuple[dict[str, int], int]:
    """Sizes that fill their servers, and the number of servers."""
    tensor, nodes = draw(st.sampled_from(tensors)), draw(st.integers(1, 3))
    decode = {"decode_context": draw(st.sampled_from([1, 1, min(tensor, 2), tensor]))}
    rest = 16 * nodes // tensor
    if draw(st.booleans()):
        return {"tensor": tensor, "data": rest, **decode}, nodes
    return {"tensor": tensor, "prefill_context": rest, **decode}, nodes


FREE = st.tuples(
    st.fixed_dictionaries(
        {
            "tensor": st.sampled_from([1, 2, 4, 8, 16]),
            "prefill_context": st.sampled_from([1, 2, 4]),
            "decode_context": st.sampled_from([1, 2]),
            "data": st.sampled_from([1, 2, 4, 8, 16]),
        }
    ),
    st.integers(1, 4),
)


@st.composite
def clusters(draw: st.DrawFn) -> Any:
    """Instances of every shape on every release, some of them beside others on their hosts."""
    release = draw(st.sampled_from(release_names()))
    switch = load_release(release).limits.context_switch
    colocated = draw(st.integers(0, 5)) == 0
    odd = draw(st.integers(0, 3)) == 0
    everywhere = {
        "pd_profile": "generic",
        "pd_release": release,
        "pd_image": f"registry.example/vllm-ascend:{release}-a3",
        "pd_mode": "colocated" if colocated else "disaggregated",
        "pd_kv_connector": draw(st.sampled_from(["MooncakeConnectorV1", "MooncakeLayerwiseConnector"])),
        "pd_engine_env": {switch: "1"} if switch else {},
        "pd_engine_args": {"block-size": 128, "cp-kv-cache-interleave-size": 128},
    }
    instances: dict[str, list[tuple[str, list[str], Mapping[str, Any]]]] = {}
    number = 0
    tensors = (16, 8, 4)
    for role in ["decoder"] if colocated else ["prefiller", "decoder"]:
        instances[role] = []
        sizes = draw(fitting(tensors))
        # A decoder has no more tensor ranks than a prefiller.
        tensors = tuple(tensor for tensor in (16, 8, 4, 2, 1) if tensor <= sizes[0]["tensor"])
        for index in range(1 if colocated else draw(st.integers(1, 3))):
            parallel, nodes = draw(FREE) if odd else sizes
            beside = odd and number > 0 and draw(st.booleans())
            start = draw(st.integers(0, number - 1)) if beside else number
            hosts = [f"h{start + i}" for i in range(nodes)]
            number = max(number, start + nodes)
            variables = {
                "pd_parallel": parallel,
                "pd_chips": draw(st.sampled_from(["0-7", "8-15", "0-15"])) if odd else "0-15",
                "pd_api_port": 8100 + draw(st.integers(0, 20)),
                "pd_master_port": 7000 + draw(st.integers(0, 20)),
                "pd_dp_rpc_port": 12300 + draw(st.integers(0, 20)),
            }
            if draw(st.integers(0, 3)) == 0:
                variables["pd_kv_port"] = 40000 + draw(st.integers(0, 300))
            if parallel.get("data", 1) > 1 and draw(st.booleans()):
                variables["pd_dp_mode"] = "external"
                variables["pd_api_port"] = 8100 + 32 * draw(st.integers(0, 3))
            instances[role].append((f"{role}{index}", hosts, variables))
    return many(instances, everywhere=everywhere, proxy=not colocated)


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
