# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Every rule from both sides: the inventory that breaks it, and its nearest neighbour that keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import (
    Finding,
    Rule,
    catalogue,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    RawInventory,
    Unreadable,
    read,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.model import Cluster
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules import sizes as size_rules
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules import (
    transfer_sizes as transfer_rules,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.base import Context, number
from planner_inventories import codes, findings, many, small
from test_front import CASES as FRONT_CASES
from test_release_rules import CASES as RELEASE_CASES
from test_release_rules import ELSEWHERE as RELEASE_ELSEWHERE
from test_router import CASES as ROUTER_CASES
from test_transfer_rules import CASES as TRANSFER_CASES

TP16 = {"pd_parallel": {"tensor": 16}}
LAYERWISE = {"pd_kv_connector": "MooncakeLayerwiseConnector"}


def parallel(**sizes: int) -> dict[str, Any]:
    return {"pd_parallel": sizes}


def args(**flags: Any) -> dict[str, Any]:
    return {"pd_engine_args": {name.replace("_", "-"): value for name, value in flags.items()}}


def env(**variables: Any) -> dict[str, Any]:
    return {"pd_engine_env": variables}


def two_on_one_host(first: dict[str, Any], second: dict[str, Any]) -> RawInventory:
    return many(
        {
            "prefiller": [("p", ["a"], {**parallel(tensor=8), "pd_chips": "0-7", **first})],
            "decoder": [
                ("d", ["a"], {**parallel(tensor=8), "pd_chips": "8-15", "pd_api_port": 8014, **second})
            ],
        }
    )


def apart(first: dict[str, Any], second: dict[str, Any]) -> RawInventory:
    """Two prefillers and a decoder on hosts of their own."""
    return many(
        {
            "prefiller": [("pa", ["a"], {**TP16, **first}), ("pb", ["b"], {**TP16, **second})],
            "decoder": [("d", ["c"], TP16)],
        }
    )


BLOCKING = env(ASCEND_LAUNCH_BLOCKING="1")

# code, an inventory that breaks the rule, one that does not
CASES: list[tuple[str, RawInventory, RawInventory]] = [
    ("PD101", small({"pd_paralell": 1}), small({"pd_proxy_port": 8006})),
    ("PD102", small({"pd_api_port": 65536}), small({"pd_api_port": "8104"})),
    ("PD103", small({"pd_model_path": ...}), small()),
    ("PD104", small({"pd_api_port": Unreadable("'x' is undefined")}), small()),
    ("PD105", small({"pd_release": "v0.13"}), small({"pd_release": "v0.13.0"})),
    ("PD106", small({"pd_profile": "deepseek"}), small({"pd_profile": "deepseek-v3.1-w8a8-guide"})),
    (
        "PD107",
        small({"pd_proxy_port": 8005}, hosts={"p2": {"pd_proxy_port": 9000}}),
        small({"pd_proxy_port": 9000}),
    ),
    ("PD108", small(hosts={"p2": {"pd_master_port": 7002}}), small(prefiller={"pd_master_port": 7002})),
    ("PD108", small(hosts={"p2": {"pd_kv_port": 40000}}), small(prefiller={"pd_kv_port": 40000})),
    (
        "PD108",
        small(hosts={"p2": args(max_model_len=4096)}),
        small(hosts={"p2": args(host="198.51.100.2", gpu_memory_utilization=0.8, max_log_len=10)}),
    ),
    (
        "PD108",
        small(hosts={"p1": args(enable_prefix_caching=True), "p2": args(enable_prefix_caching=False)}),
        small(hosts={"p1": args(no_enable_prefix_caching=True), "p2": args(enable_prefix_caching=False)}),
    ),
    ("PD109", small({"pd_api_port": "8104"}), small({"pd_api_port": 8104})),
    ("PD110", many({"prefiller": [("p", ["a"], TP16)], "decoder": []}), small()),
    ("PD110", many({"decoder": [("d", ["a"], TP16)], "prefiller": []}), small()),
    (
        "PD111",
        many({"prefiller": [("p", ["a"], TP16), ("q", [], {})], "decoder": [("d", ["b"], TP16)]}),
        many({"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
    ),
    (
        "PD113",
        many({"prefiller": [("p", ["a"], TP16)], "decoder": [("p", ["b"], TP16)]}),
        many({"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
    ),
    ("PD114", small(proxy=()), small(proxy=("d1",))),
    (
        "PD116",
        many({"prefiller": [("proxy", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
        many({"prefiller": [("proxies", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
    ),
    (
        "PD117",
        many({"prefiller": [("p", ["../a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
        many({"prefiller": [("p", ["a.b"], TP16)], "decoder": [("d", ["b"], TP16)]}),
    ),
    ("PD121", small(hosts={"p2": {"ansible_host": ...}}), small()),
    (
        "PD122",
        small(hosts={"p2": {"ansible_host": "server2"}}),
        small(hosts={"p2": {"pd_node_ip": "198.51.100.9"}}),
    ),
    ("PD122", small(hosts={"p2": {"ansible_host": "127.0.0.1"}}), small()),
    ("PD123", small(hosts={"p2": {"ansible_host": "2001:db8::2"}}), small()),
    ("PD124", small(hosts={"p2": {"ansible_host": "198.51.100.1"}}), small()),
    ("PD125", small(env(VLLM_HOST_IP="198.51.100.77")), small(env(VLLM_HOST_IP="$local_ip"))),
    ("PD125", small(env(VLLM_HOST_IP=None)), small()),
    ("PD201", small(prefiller=parallel(tensor=5)), small(prefiller=parallel(tensor=4))),
    ("PD202", small(prefiller=parallel(tensor=1, prefill_context=4)), small(prefiller=parallel(tensor=2))),
    ("PD203", small(decoder=parallel(tensor=32)), small(decoder=parallel(tensor=16))),
    ("PD203", small({"pd_chips_per_node": 8}), small()),
    ("PD204", small(decoder=parallel(tensor=8)), small(decoder={**parallel(tensor=8), "pd_chips": "0-7"})),
    ("PD205", two_on_one_host({"pd_chips": "0-8"}, {}), two_on_one_host({}, {})),
    ("PD206", small(decoder={"pd_chips": "1-16"}), small(decoder={"pd_chips": "0-15"})),
    ("PD222", small(env(ASCEND_RT_VISIBLE_DEVICES="0,1")), small({"pd_chips": "0-15"})),
    (
        "PD222",
        small(env(ASCEND_RT_VISIBLE_DEVICES=",".join(map(str, range(1, 16))))),
        small(env(ASCEND_RT_VISIBLE_DEVICES=",".join(map(str, range(16))))),
    ),
    (
        "PD419",
        small(args(**{"gpu-memory-utilization": "90%"})),
        small(args(**{"gpu-memory-utilization": 0.9})),
    ),
    ("PD419", small(args(max_num_seqs="50%")), small(args(chat_template="50%"))),
    ("PD403", small(args(seed="1,2")), small(args(seed="-1", max_num_seqs="1_000", max_model_len=" 4096 "))),
    (
        "PD207",
        small(decoder=parallel(tensor=8, data=2, data_local=1)),
        small(decoder=parallel(tensor=8, data=2)),
    ),
    (
        "PD207",
        small(decoder=parallel(tensor=8, data_local=2)),
        small(decoder=parallel(tensor=8, data=2, data_local=2)),
    ),
    (
        "PD208",
        many(
            {
                "prefiller": [("p", ["a"], TP16)],
                "decoder": [("d", ["b", "c", "e"], parallel(tensor=8, data=2))],
            }
        ),
        many(
            {
                "prefiller": [("p", ["a"], TP16)],
                "decoder": [("d", ["b", "c", "e"], parallel(tensor=8, data=6))],
            }
        ),
    ),
    (
        "PD209",
        small(prefiller=parallel(tensor=8, pipeline=2, prefill_context=2)),
        small(prefiller=parallel(tensor=16, pipeline=2)),
    ),
    ("PD210", small(decoder=parallel(tensor=8, pipeline=2)), small(decoder=parallel(tensor=8))),
    ("PD211", small(prefiller=parallel(tensor=16, prefill_context=2, decode_context=3)), small()),
    (
        "PD211",
        small(decoder=parallel(tensor=8, decode_context=16)),
        small(decoder=parallel(tensor=8, decode_context=8)),
    ),
    ("PD212", small(decoder=parallel(tensor=3)), small(decoder=parallel(tensor=4))),
    ("PD301", small({"pd_proxy_port": 8004}), small({"pd_proxy_port": 8003})),
    (
        "PD301",
        small({"pd_master_port": 36107}, {"pd_kv_port": 36100}),
        small({"pd_master_port": 36107}),
    ),
    ("PD301", two_on_one_host({}, {"pd_api_port": 8004}), two_on_one_host({}, {})),
    (
        "PD301",
        two_on_one_host({"pd_kv_port": 40000}, {"pd_kv_port": 40007}),
        two_on_one_host({"pd_kv_port": 40000}, {"pd_kv_port": 40008}),
    ),
    ("PD302", small(prefiller={"pd_kv_port": 36000}), small(prefiller={"pd_kv_port": 36001})),
    ("PD302", small({"pd_api_port": 17000}), small({"pd_api_port": 17001})),
    (
        "PD302",
        small({"pd_api_port": 16000}),
        small({**env(MC_MIN_PRC_PORT=17100, MC_MAX_PRC_PORT=18000), "pd_api_port": 16000}),
    ),
    ("PD303", small({"pd_api_port": 60031}), small({"pd_api_port": 60032})),
    (
        "PD303",
        small({**env(HCCL_IF_BASE_PORT=50000), "pd_api_port": 50031}),
        small({**env(HCCL_IF_BASE_PORT=50000), "pd_api_port": 60031}),
    ),
    ("PD305", small(prefiller={"pd_kv_port": 65505}), small(prefiller={"pd_kv_port": 65504})),
    (
        "PD306",
        apart({"pd_kv_port": 40000}, {"pd_kv_port": 40015}),
        apart({"pd_kv_port": 40000}, {"pd_kv_port": 40016}),
    ),
    ("PD306", apart({"pd_kv_port": 36110}, {"pd_kv_port": 36100}), apart({"pd_kv_port": 36110}, {})),
    ("PD401", small(args(max_modellen=1)), small(args(max_model_len=136000))),
    (
        "PD401",
        small({"pd_engine_args": {"no-enable-chunked-prefill": False}}),
        small({"pd_engine_args": {"no-enable-chunked-prefill": True, "compilation-config.mode": 3}}),
    ),
    # The parser takes the beginning of a name that no other has: max-model-len, and max-num-….
    ("PD401", small({"pd_engine_args": {"max-num": 8}}), small({"pd_engine_args": {"max_model": 136000}})),
    ("PD402", small({"pd_engine_args": {"tensor-par": 8}}), small({"pd_engine_args": {"see": 1}})),
    (
        "PD403",
        small({"pd_engine_args": {"max-model": "x"}}),
        small({"pd_engine_args": {"max-model": 136000}}),
    ),
    (
        "PD447",
        small({"pd_engine_args": {"speculative_config": {"method": "mtp"}, "speculative-config.x": 1}}),
        small({"pd_engine_args": {"speculative_config": None, "speculative-config.x": 1}}),
    ),
    ("PD404", small({"pd_engine_args": {"api-k": "x"}}), small({"pd_engine_args": {"api-k": None}})),
    ("PD402", small(args(tensor_parallel_size=8)), small(args(seed=1))),
    ("PD402", small({"pd_engine_args": {"kv_transfer_config": {}}}), small()),
    ("PD403", small(args(enforce_eager="yes")), small(args(enforce_eager=True))),
    ("PD403", small(args(seed=True)), small(args(seed=7))),
    ("PD403", small(args(max_num_seqs="many")), small(args(max_num_seqs=2))),
    ("PD404", small(args(api_key="s3cret")), small({"pd_api_key": "s3cret"})),
    ("PD404", small(env(VLLM_API_KEY="s3cret")), small(env(VLLM_LOGGING_LEVEL="DEBUG"))),
    (
        "PD405",
        small(prefiller=args(cp_kv_cache_interleave_size=64)),
        small(
            prefiller=args(block_size=64, cp_kv_cache_interleave_size=64),
            decoder=args(block_size=64, enable_chunked_prefill=False, max_num_batched_tokens=136000),
        ),
    ),
    (
        "PD405",
        small(prefiller=args(cp_kv_cache_interleave_size=None)),
        small(decoder=args(cp_kv_cache_interleave_size=1)),
    ),
    ("PD406", small(prefiller=args(cp_kv_cache_interleave_size=256)), small()),
    (
        "PD407",
        small(prefiller=args(max_num_batched_tokens=135999)),
        small(decoder=args(max_num_batched_tokens=64)),
    ),
    ("PD408", small(decoder=args(max_num_seqs=129)), small(decoder=args(max_num_seqs=128))),
    (
        "PD409",
        small(decoder={**env(VLLM_ASCEND_ENABLE_FLASHCOMM1=1), **parallel(tensor=1)}),
        small(decoder=parallel(tensor=1)),
    ),
    ("PD410", small(prefiller=args(enable_expert_parallel=None)), small()),
    (
        "PD411",
        small(decoder=env(VLLM_ASCEND_ENABLE_FLASHCOMM1="1")),
        small(decoder={**env(VLLM_ASCEND_ENABLE_FLASHCOMM1="1"), **args(enforce_eager=True)}),
    ),
    (
        "PD412",
        small(decoder=env(ASCEND_LAUNCH_BLOCKING="1")),
        small(prefiller=env(ASCEND_LAUNCH_BLOCKING="1")),
    ),
    *(
        ("PD412", small(decoder={**BLOCKING, **args(**on)}), small(decoder={**BLOCKING, **args(**off)}))
        for on, off in (
            (
                {"compilation_config": {"cudagraph_mode": "piecewise"}},
                {"compilation_config": {"cudagraph_mode": "none"}},
            ),
            ({"compilation_config": {"mode": 3}}, {"compilation_config": {"mode": 0}}),
            (
                {"compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}},
                {"compilation_config": {"mode": 1}},
            ),
            (
                {"compilation_config": None, "compilation-config.mode": 3},
                {"compilation-config.cudagraph_mode": "NONE"},
            ),
            (
                {"compilation_config": None, "optimization_level": 1},
                {"compilation_config": None, "optimization_level": 0},
            ),
        )
    ),
    (
        "PD413",
        small(prefiller=args(distributed_executor_backend="ray")),
        small(prefiller=args(distributed_executor_backend="mp")),
    ),
    (
        "PD414",
        small(
            decoder=args(
                compilation_config={"cudagraph_capture_sizes": [1, 4], "max_cudagraph_capture_size": 8}
            )
        ),
        small(
            decoder=args(
                compilation_config={"cudagraph_capture_sizes": [1, 8], "max_cudagraph_capture_size": 8}
            )
        ),
    ),
    (
        "PD415",
        small(prefiller=args(enable_expert_parallel=False)),
        small(decoder=args(enable_expert_parallel=False)),
    ),
    (
        "PD438",
        small(prefiller=env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL=None)),
        small(decoder=env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL=None)),
    ),
    ("PD417", small(decoder={"pd_served_model_name": "other"}), small({"pd_served_model_name": "other"})),
    ("PD500", small({"pd_kv_connector": "MooncakeConnector"}), small()),
    (
        "PD501",
        small(prefiller={"pd_kv_extra_config": {"prefill": {"tp_size": 8}}}),
        small(prefiller={"pd_kv_extra_config": {"prefill": {"tp_size": 16}}}),
    ),
    (
        "PD502",
        small(decoder={"pd_kv_extra_config": {"prefill": {"tp_size": 8}}}),
        small({"pd_kv_extra_config": {"x": 1}}),
    ),
    ("PD502", apart(parallel(tensor=16), parallel(tensor=8)), apart({}, {})),
    ("PD503", small(prefiller=parallel(tensor=8)), small(decoder=parallel(tensor=8))),
    (
        "PD505",
        small(prefiller=TP16, decoder=parallel(tensor=16, decode_context=2)),
        small(decoder=parallel(tensor=16, decode_context=2)),
    ),
    ("PD507", small(prefiller=args(block_size=64, cp_kv_cache_interleave_size=64)), small()),
    (
        "PD508",
        small(hosts={"p1": {"pd_engine_id": 7}, "d1": {"pd_engine_id": "7"}}),
        small(hosts={"p1": {"pd_engine_id": 7}}),
    ),
    (
        "PD508",
        apart({"pd_engine_id": "x"}, {"pd_engine_id": "x"}),
        apart({"pd_engine_id": "x"}, {"pd_engine_id": "y"}),
    ),
    ("PD509", small(prefiller={"pd_engine_id": "9"}), small(decoder={"pd_engine_id": "9"})),
    ("PD510", small(decoder=LAYERWISE), small({**LAYERWISE, **TP16})),
    ("PD511", small(LAYERWISE), small({**LAYERWISE, **TP16})),
    ("PD512", small(decoder=parallel(tensor=1)), small(decoder=parallel(tensor=2))),
    ("PD513", small(decoder=args(max_model_len=130000)), small(decoder=args(max_model_len="136k"))),
    (
        "PD514",
        small(prefiller={"pd_kv_extra_config": {"decode": {"tp_size": None}}}),
        small(prefiller={"pd_kv_extra_config": {"decode": {"dp_size": None}}}),
    ),
    (
        "PD601",
        small({"pd_image": ...}),
        small({"pd_image": ..., "pd_image_registry": "registry.example:5000/mirror"}),
    ),
    (
        "PD602",
        small({"pd_image": "r.example/vllm-ascend:v0.13.0"}),
        small({"pd_image": "r.example/vllm-ascend:v0.13.0-a3-openeuler"}),
    ),
    (
        "PD602",
        small({"pd_server": "atlas-a2", "pd_image": "r.example/vllm-ascend:v0.13.0-a3"}),
        small({"pd_server": "atlas-a2", "pd_image": "r.example/vllm-ascend:v0.13.0"}),
    ),
    (
        "PD603",
        small(prefiller=env(HCCL_CONNECT_TIMEOUT="399")),
        small(prefiller=env(HCCL_CONNECT_TIMEOUT="400"), decoder=env(HCCL_CONNECT_TIMEOUT=None)),
    ),
    ("PD604", small({"pd_expected_concurrency": 5}), small({"pd_expected_concurrency": 4})),
    ("PD605", small(env(VLLM_USE_V1="1")), small()),
    ("PD605", small(env(ASCEND_BASE_PORT="40000")), small()),
    ("PD606", small({"pd_kv_extra_config": {"use_ascend_direct": True}}), small()),
    ("PD607", small(), small(prefiller=args(speculative_config={"num_speculative_tokens": 1}))),
    ("PD626", small(decoder=env(MC_DISABLE_METACACHE=None)), small()),
    ("PD626", small(LAYERWISE), small(LAYERWISE, prefiller=env(MC_DISABLE_METACACHE="1"))),
    (
        "PD626",
        small({"pd_release": "v0.13.0"}, decoder=env(MC_DISABLE_METACACHE=None)),
        small({"pd_release": "v0.18.0"}),
    ),
]


@pytest.mark.parametrize(
    ("code", "broken", "kept"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_rule_from_both_sides(code: str, broken: RawInventory, kept: RawInventory) -> None:
    assert code in codes(broken)
    assert code not in codes(kept)


def test_topology_is_the_wanted_one() -> None:
    assert "PD115" in codes(small(), "2P1D")
    assert "PD115" not in codes(small(), "1p1d")


def test_stray_host() -> None:
    raw = many({"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]})
    assert "PD112" in codes(replace(raw, stray={"prefiller": ("c",)}))
    assert "PD112" not in codes(raw)


def test_reserving_is_advised_only_in_linux_range() -> None:
    (hint,) = [f for f in findings(small()) if f.code == "PD304" and f.host == "p1"]
    assert "36100-36115" in str(hint.expected)
    assert "8004" not in str(hint.expected)


def _context(change: Callable[[Any], Any], prefiller: dict[str, Any], decoder: dict[str, Any]) -> Context:
    """A cluster whose profile is changed: the shipped profiles are all of one kind of model."""
    declaration, _ = read(small(prefiller=prefiller, decoder=decoder))
    groups = tuple(
        replace(
            group,
            members=tuple(
                replace(m, settings=replace(m.settings, profile=change(m.settings.profile)))
                for m in group.members
            ),
        )
        for group in declaration.groups
    )
    cluster: Cluster = topology.build(replace(declaration, groups=groups))
    return Context(cluster, {})


def _rule(code: str) -> Rule:
    return next(rule for rule in catalogue() if rule.code == code)


@pytest.mark.parametrize(
    ("check", "code", "broken", "kept", "kv_heads"),
    [
        (size_rules.decode_context_fits_heads, "PD213", (16, 8, 16), (16, 2, 16), 8),
        (size_rules.decode_context_fits_heads, "PD213", (8, 2, 8), (16, 2, 8), 8),
        (transfer_rules.tensor_multiple, "PD504", (16, 1, 3), (16, 1, 4), 8),
        (transfer_rules.heads_multiple, "PD506", (2, 2, 4), (16, 2, 4), 8),
    ],
)
def test_rules_of_models_without_mla(
    check: Callable[[Rule, Context], Any],
    code: str,
    broken: tuple[int, int, int],
    kept: tuple[int, int, int],
    kv_heads: int,
) -> None:
    def found(sizes: tuple[int, int, int]) -> list[Finding]:
        context = _context(
            lambda profile: replace(profile, attention="gqa", kv_heads=kv_heads, heads=64),
            parallel(tensor=sizes[0], decode_context=sizes[1]),
            parallel(tensor=sizes[2]),
        )
        return list(check(_rule(code), context))

    assert found(broken)
    assert not found(kept)


def test_every_rule_has_a_case() -> None:
    covered = {case[0] for case in CASES} | {
        "PD112",
        "PD115",
        "PD118",
        "PD119",
        "PD130",
        "PD450",
        "PD213",
        "PD304",
        "PD418",
        "PD504",
        "PD506",
    }
    covered |= {case[0] for case in RELEASE_CASES} | RELEASE_ELSEWHERE
    covered |= {case[0] for case in TRANSFER_CASES} | {case[0] for case in ROUTER_CASES}
    covered |= {case[0] for case in FRONT_CASES}
    # test_addresses.py, test_port_limits.py, test_expansion.py
    covered |= {"PD126", "PD127", "PD128", "PD129", "PD307"}
    covered |= {"PD440", "PD441", "PD442", "PD443", "PD444", "PD445", "PD446"}
    assert {rule.code for rule in catalogue()} == covered


def test_all_findings_come_at_once() -> None:
    """The broken inventory of the issue: every trouble is told in one run, each with its place and cure."""
    raw = small(
        everywhere={"pd_paralell": {"tensor": 8}},
        prefiller={
            "pd_parallel": {"tensor": 16, "prefill_context": 2, "decode_context": 3},
            "pd_engine_args": {"cp-kv-cache-interleave-size": 64},
            "pd_kv_port": 40000,
        },
        decoder={"pd_kv_port": 40016},
        hosts={"p2": {"ansible_host": ..., "pd_engine_id": "5"}, "d1": {"pd_engine_id": "5"}},
    )
    found = findings(raw)
    assert {"PD101", "PD121", "PD211", "PD306", "PD405", "PD508"} <= {f.code for f in found}
    assert all(f.cure and f.source and f.message for f in found)
    (unknown,) = [f for f in found if f.code == "PD101"]
    assert "did you mean pd_parallel?" in unknown.message


def test_messages_carry_upstream_numbers() -> None:
    messages = " ".join(
        f.message
        for f in findings(
            small(
                prefiller={**parallel(tensor=16, prefill_context=2, decode_context=3), **args(block_size=64)}
            )
        )
    )
    assert "tp_size=16 must be divisible bydcp_size=3." in messages
    assert "cp_kv_cache_interleave_size(128) and block_size(64) needs to be equal" in messages


def test_secrets_are_in_no_finding() -> None:
    raw = small(
        {
            "pd_api_key": "s3cret with spaces",
            "pd_engine_args": {"api-key": "s3cret", "hf-token": ["s3cret"], "seed": True},
            "pd_engine_env": {"VLLM_API_KEY": "s3cret", "A": True},
        }
    )
    found = findings(raw)
    assert found
    assert "s3cret" not in str(found)


def test_the_same_trouble_everywhere_is_one_finding() -> None:
    (finding,) = [f for f in findings(small({"pd_api_port": 0})) if f.code == "PD102"]
    assert finding.host is None
    assert "p1, p2, d1" in finding.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("136k", 136000),
        ("25.6k", 25600),
        ("1.5K", None),
        ("1K", 1024),
        (True, None),
        ("x", None),
        (1.5, None),
        (None, None),
    ],
)
def test_numbers_as_vllm_reads_them(value: object, expected: int | None) -> None:
    assert number(value) == expected
