# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Inventories at random, for properties that hold for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from hypothesis import strategies as st
from planner_inventories import many

# Variables that move ports, with a port near which they move them.
MOVED = [
    ("ASCEND_BASE_PORT", 20000),
    ("ASCEND_BASE_PORT", 30000),
    ("HCCL_IF_BASE_PORT", 36100),
    ("VLLM_PORT", 36100),
]


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
def clusters(draw: st.DrawFn) -> RawInventory:
    """Instances of every shape on every release, some of them beside others on their hosts."""
    release = draw(st.sampled_from(release_names()))
    switch = load_release(release).limits.context_switch
    colocated = draw(st.integers(0, 5)) == 0
    odd = draw(st.integers(0, 3)) == 0
    everywhere: dict[str, Any] = {
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
            variables: dict[str, Any] = {
                "pd_parallel": parallel,
                "pd_chips": draw(st.sampled_from(["0-7", "8-15", "0-15"])) if odd else "0-15",
                "pd_api_port": 8100 + draw(st.integers(0, 20)),
                "pd_master_port": 7000 + draw(st.integers(0, 20)),
                "pd_dp_rpc_port": 12300 + draw(st.integers(0, 20)),
            }
            if draw(st.integers(0, 3)) == 0:
                first = draw(st.sampled_from([36100, 40000]))
                variables["pd_kv_port"] = first + draw(st.integers(0, 300))
            if odd and draw(st.booleans()):
                port = draw(st.sampled_from(["pd_api_port", "pd_master_port", "pd_dp_rpc_port"]))
                variables[port] = 36100 + draw(st.integers(0, 300))
            if odd and draw(st.booleans()):
                name, first = draw(st.sampled_from(MOVED))
                variables["pd_engine_env"] = {
                    **everywhere["pd_engine_env"],
                    name: str(first + draw(st.integers(0, 300))),
                }
            if parallel.get("data", 1) > 1 and draw(st.booleans()):
                variables["pd_dp_mode"] = "external"
                variables["pd_api_port"] = 8100 + 32 * draw(st.integers(0, 3))
            instances[role].append((f"{role}{index}", hosts, variables))
    return many(instances, everywhere=everywhere, proxy=not colocated)
