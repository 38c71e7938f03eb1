# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules that differ by release, and those about vllm-ascend's own settings, from both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import topology
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import Finding, catalogue
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    RawInventory,
    raw_inventory,
    read,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules import config, release_sizes
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.base import Context
from planner_inventories import codes, findings, small

OLD, MIDDLE, NEW = "v0.13.0", "v0.18.0", "v0.23.0"
LAYERWISE = {"pd_kv_connector": "MooncakeLayerwiseConnector"}
TP16 = {"pd_parallel": {"tensor": 16}}


def on(
    release: str,
    everywhere: dict[str, Any] | None = None,
    prefiller: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> RawInventory:
    """The guide's topology on a release, with that release's image."""
    base = {"pd_release": release, "pd_image": f"registry.example/vllm-ascend:{release}-a3"}
    return small({**base, **(everywhere or {})}, prefiller, decoder)


def parallel(**sizes: int) -> dict[str, Any]:
    return {"pd_parallel": sizes}


def args(**flags: Any) -> dict[str, Any]:
    return {"pd_engine_args": {name.replace("_", "-"): value for name, value in flags.items()}}


def env(**variables: Any) -> dict[str, Any]:
    return {"pd_engine_env": variables}


def config_keys(**keys: Any) -> dict[str, Any]:
    return args(additional_config=keys)


def kv(**extra: Any) -> dict[str, Any]:
    return {"pd_kv_extra_config": extra}


def oproj() -> dict[str, Any]:
    return config_keys(
        finegrained_tp_config={"oproj_tensor_parallel_size": 1}, recompute_scheduler_enable=True
    )


# FlashComm1 gathers on its own, whatever the switch.
WITHOUT_SWITCH = env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL=None, VLLM_ASCEND_ENABLE_FLASHCOMM1=None)
WITHOUT_EXPERT_PARALLEL = {"enable_expert_parallel": False}
ON_A2 = {"pd_server": "atlas-a2", "pd_chips_per_node": 16}
SPECULATION = {"num_speculative_tokens": 1, "method": "mtp"}
STATIC_KERNEL = config_keys(
    ascend_compilation_config={"enable_static_kernel": True, "enable_npugraph_ex": False}
)
PIPELINE = parallel(tensor=16, pipeline=2)
DATA = parallel(tensor=8, data=2)
CONTEXT_DATA = parallel(tensor=8, prefill_context=2, data=2)


def alone(release: str, **changes: Any) -> RawInventory:
    """One engine for prefill and decode on a server."""
    variables = {
        "ansible_host": "198.51.100.1",
        "pd_mode": "colocated",
        "pd_profile": "generic",
        "pd_model_path": "/weights/model",
        "pd_served_model_name": "model",
        "pd_parallel": {"tensor": 16},
        "pd_release": release,
        "pd_image": f"registry.example/vllm-ascend:{release}-a3",
        **changes,
    }
    return raw_inventory("alone", {"decoder": GroupShape(("s",), ("s",), ())}, {"s": variables})


# code, an inventory that breaks the rule, its nearest neighbour that keeps it
CASES: list[tuple[str, RawInventory, RawInventory]] = [
    ("PD220", on(NEW, prefiller=CONTEXT_DATA), on(MIDDLE, prefiller=CONTEXT_DATA)),
    ("PD220", on(NEW, prefiller=CONTEXT_DATA), on(NEW, prefiller=parallel(tensor=16, prefill_context=2))),
    ("PD302", on(MIDDLE, prefiller={"pd_kv_port": 36000}), on(MIDDLE, prefiller={"pd_kv_port": 36001})),
    (
        "PD302",
        on(OLD, {**env(ASCEND_BASE_PORT=40000), "pd_kv_port": 30000}),
        on(MIDDLE, {**env(ASCEND_BASE_PORT=40000), "pd_kv_port": 30000}),
    ),
    ("PD401", on(MIDDLE, args(swap_space=4)), on(OLD, args(swap_space=4))),
    ("PD401", on(OLD, args(moe_backend="auto")), on(MIDDLE, args(moe_backend="auto"))),
    (
        "PD401",
        on(NEW, args(disable_frontend_multiprocessing=True)),
        on(MIDDLE, args(disable_frontend_multiprocessing=True)),
    ),
    ("PD403", on(MIDDLE, args(moe_backend="fastest")), on(MIDDLE, args(moe_backend="deep-gemm"))),
    ("PD403", on(OLD, args(dtype="int8")), on(OLD, args(dtype="bfloat16"))),
    ("PD403", on(OLD, args(gpu_memory_utilization="most")), on(OLD, args(gpu_memory_utilization="0.9"))),
    ("PD403", on(OLD, args(max_lora_rank="big")), on(OLD, args(max_lora_rank=64))),
    ("PD409", on(NEW, prefiller=parallel(tensor=1)), on(NEW)),
    (
        "PD411",
        on(NEW, decoder=config_keys(enable_flashcomm1=True)),
        on(NEW, decoder=config_keys(enable_flashcomm1=False)),
    ),
    (
        "PD416",
        on(MIDDLE, prefiller={**WITHOUT_SWITCH, **args(**WITHOUT_EXPERT_PARALLEL)}),
        on(NEW, prefiller={**WITHOUT_SWITCH, **args(**WITHOUT_EXPERT_PARALLEL)}),
    ),
    (
        "PD416",
        on(MIDDLE, prefiller={**WITHOUT_SWITCH, **args(**WITHOUT_EXPERT_PARALLEL)}),
        on(MIDDLE, prefiller=WITHOUT_SWITCH),
    ),
    (
        "PD416",
        on(OLD, {**ON_A2, "pd_image": f"r.example/vllm-ascend:{OLD}"}, prefiller=WITHOUT_SWITCH),
        on(OLD, prefiller=WITHOUT_SWITCH),
    ),
    ("PD438", on(OLD, prefiller=WITHOUT_SWITCH), on(OLD)),
    (
        "PD448",
        on(OLD, args(compilation_config={"cudagraph_capture_size": [1]})),
        on(OLD, args(compilation_config={"cudagraph_capture_sizes": [16]})),
    ),
    (
        "PD448",
        on(NEW, {"pd_engine_args": {"compilation-config.modes": 3}}),
        on(NEW, {"pd_engine_args": {"compilation-config.pass_config.enable_sp": True}}),
    ),
    (
        "PD448",
        on(MIDDLE, args(profiler_config={"folder": "/x"})),
        on(OLD, args(profiler_config={"folder": "/x"})),
    ),
    (
        "PD449",
        on(OLD, args(profiler_config={"folder": "/x"})),
        on(OLD, args(profiler_config={"profiler": "torch"})),
    ),
    (
        "PD439",
        on(MIDDLE, args(fail_on_environ_validation=True)),
        on(MIDDLE, args(fail_on_environ_validation=False)),
    ),
    (
        "PD439",
        alone(NEW, **args(fail_on_environ_validation=True), **env(VLLM_RPC_TIMEOUT="1")),
        alone(NEW, **args(fail_on_environ_validation=True), **env(VLLM_LOGGING_LEVEL="INFO")),
    ),
    ("PD438", on(MIDDLE, prefiller=WITHOUT_SWITCH), on(NEW, prefiller=WITHOUT_SWITCH)),
    ("PD420", on(OLD, env(VLLM_LOGING_LEVEL="DEBUG")), on(OLD, env(VLLM_LOGGING_LEVEL="DEBUG"))),
    (
        "PD437",
        on(NEW, env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL="1")),
        on(MIDDLE, env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL="1")),
    ),
    (
        "PD437",
        on(OLD, env(VLLM_ENGINE_READY_TIMEOUT_S="3600")),
        on(MIDDLE, env(VLLM_ENGINE_READY_TIMEOUT_S="3600")),
    ),
    (
        "PD451",
        on(OLD, env(VLLM_ASCEND_ENABLE_FLASHCOMM1="true")),
        on(OLD, env(VLLM_ASCEND_ENABLE_FLASHCOMM1=" 1")),
    ),
    ("PD451", on(OLD, env(VLLM_ASCEND_ENABLE_NZ="")), on(OLD, env(VLLM_ASCEND_ENABLE_NZ="$NZ"))),
    (
        "PD451",
        on(MIDDLE, env(VLLM_ENGINE_READY_TIMEOUT_S="1h")),
        on(OLD, env(VLLM_ENGINE_READY_TIMEOUT_S="1h")),
    ),
    ("PD451", on(NEW, env(VLLM_ASCEND_ENABLE_MLAPO="on")), on(MIDDLE, env(VLLM_ASCEND_ENABLE_MLAPO="on"))),
    ("PD437", on(NEW, env(ASCEND_BUFFER_POOL="4:8")), on(MIDDLE, env(ASCEND_BUFFER_POOL="4:8"))),
    ("PD437", on(NEW, env(VLLM_USE_V2="1")), on(NEW, env(VLLM_USE_V1="1", MY_OWN="1"))),
    ("PD421", on(OLD, env(HCCL_BUFSIZE="768")), on(OLD, env(HCCL_BUFFSIZE="768", HCCL_ZZZ="1"))),
    ("PD422", on(MIDDLE, config_keys(enable_flashcomm1=True)), on(NEW, config_keys(enable_flashcomm1=True))),
    ("PD422", on(NEW, config_keys(enable_cpu_bindings=True)), on(NEW, config_keys(enable_cpu_binding=True))),
    (
        "PD423",
        on(MIDDLE, decoder=config_keys(layer_sharding=["o_proj"])),
        on(MIDDLE, prefiller=config_keys(layer_sharding=["o_proj"])),
    ),
    ("PD423", on(OLD, config_keys(enable_kv_nz=True)), on(OLD, decoder=config_keys(enable_kv_nz=True))),
    (
        "PD423",
        on(NEW, prefiller=config_keys(enable_reduce_sample=True)),
        on(NEW, decoder=config_keys(enable_reduce_sample=True)),
    ),
    (
        "PD424",
        on(NEW, prefiller=config_keys(recompute_scheduler_enable=True)),
        on(MIDDLE, prefiller=config_keys(recompute_scheduler_enable=True)),
    ),
    (
        "PD425",
        on(NEW, env(VLLM_ASCEND_ENABLE_FLASHCOMM1="1")),
        on(MIDDLE, env(VLLM_ASCEND_ENABLE_FLASHCOMM1="1")),
    ),
    (
        "PD426",
        on(MIDDLE, env(VLLM_ASCEND_BALANCE_SCHEDULING="1")),
        on(OLD, env(VLLM_ASCEND_BALANCE_SCHEDULING="1")),
    ),
    (
        "PD426",
        on(NEW, config_keys(enable_balance_scheduling=True)),
        on(NEW, config_keys(enable_balance_scheduling=False)),
    ),
    (
        "PD427",
        on(MIDDLE, decoder={**DATA, **config_keys(finegrained_tp_config={"lmhead_tensor_parallel_size": 4})}),
        on(MIDDLE, decoder={**DATA, **config_keys(finegrained_tp_config={"lmhead_tensor_parallel_size": 2})}),
    ),
    (
        "PD427",
        on(NEW, decoder={**DATA, **config_keys(finegrained_tp_config={"olora_tensor_parallel_size": 4})}),
        on(MIDDLE, decoder={**DATA, **config_keys(finegrained_tp_config={"olora_tensor_parallel_size": 4})}),
    ),
    (
        "PD428",
        on(MIDDLE, prefiller=config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
        on(MIDDLE, decoder=config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
    ),
    (
        "PD428",
        on(
            MIDDLE,
            decoder=args(
                enforce_eager=True,
                additional_config={"finegrained_tp_config": {"oproj_tensor_parallel_size": 1}},
            ),
        ),
        on(MIDDLE, decoder=args(enforce_eager=True)),
    ),
    (
        "PD429",
        on(NEW, decoder=config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
        on(MIDDLE, decoder=config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
    ),
    (
        "PD429",
        on(NEW, decoder=config_keys(finegrained_tp_config={"embedding_tensor_parallel_size": 1})),
        on(
            NEW,
            decoder=config_keys(
                finegrained_tp_config={"embedding_tensor_parallel_size": 1}, recompute_scheduler_enable=True
            ),
        ),
    ),
    (
        "PD430",
        on(OLD, prefiller=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=16)),
        on(OLD, prefiller=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=8)),
    ),
    (
        "PD430",
        on(OLD, prefiller=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=3)),
        on(OLD, decoder=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=0)),
    ),
    (
        "PD430",
        on(OLD, decoder=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=2)),
        on(OLD, prefiller=env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=2)),
    ),
    (
        "PD430",
        on(
            OLD,
            prefiller={
                **env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=2),
                **config_keys(layer_sharding=["q_b_proj"]),
            },
        ),
        on(
            OLD,
            prefiller={
                **env(VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE=2),
                **config_keys(layer_sharding=["o_proj"]),
            },
        ),
    ),
    (
        "PD430",
        on(NEW, prefiller=config_keys(enable_flashcomm2_parallel_size=16)),
        on(NEW, prefiller=config_keys(enable_flashcomm2_parallel_size=4)),
    ),
    (
        "PD431",
        on(OLD, decoder=config_keys(xlite_graph_config={"enabled": True})),
        on(
            OLD,
            decoder=args(
                speculative_config=None, additional_config={"xlite_graph_config": {"enabled": True}}
            ),
        ),
    ),
    (
        "PD432",
        on(MIDDLE, decoder=config_keys(eplb_config={"dynamic_eplb": True})),
        on(MIDDLE, decoder={**config_keys(eplb_config={"dynamic_eplb": True}), **env(DYNAMIC_EPLB="true")}),
    ),
    ("PD432", on(OLD, config_keys(dynamic_eplb=True)), on(OLD, config_keys(dynamic_eplb=False))),
    (
        "PD434",
        on(NEW, decoder=config_keys(profiling_chunk_config={"enabled": True})),
        on(
            NEW, prefiller={**PIPELINE, **config_keys(profiling_chunk_config={"enabled": True})}, decoder=TP16
        ),
    ),
    (
        "PD434",
        on(NEW, decoder=config_keys(enable_mc2_hierarchy_comm=True, enable_fused_mc2=1)),
        on(NEW, decoder=config_keys(enable_mc2_hierarchy_comm=True, enable_fused_mc2=0)),
    ),
    (
        "PD435",
        on(OLD, prefiller=args(data_parallel_hybrid_lb=True)),
        on(OLD, decoder=args(data_parallel_hybrid_lb=True)),
    ),
    (
        "PD436",
        alone(MIDDLE, **config_keys(recompute_scheduler_enable=True)),
        alone(OLD, **config_keys(recompute_scheduler_enable=True)),
    ),
    (
        "PD436",
        alone(MIDDLE, **config_keys(layer_sharding=["o_proj"])),
        alone(OLD, **config_keys(layer_sharding=["o_proj"])),
    ),
    (
        "PD223",
        alone(NEW, **args(speculative_config=SPECULATION), **parallel(tensor=8, pipeline=2)),
        alone(MIDDLE, **args(speculative_config=SPECULATION), **parallel(tensor=8, pipeline=2)),
    ),
    (
        "PD223",
        alone(NEW, **args(speculative_config=SPECULATION), **parallel(tensor=8, pipeline=2)),
        alone(
            NEW,
            **args(speculative_config={"method": "ngram", "num_speculative_tokens": 1}),
            **parallel(tensor=8, pipeline=2),
        ),
    ),
    (
        "PD428",
        on(NEW, decoder={**parallel(tensor=2), **oproj()}),
        on(NEW, decoder={**parallel(tensor=1), **oproj()}),
    ),
    ("PD428", on(NEW, decoder={**parallel(tensor=2), **oproj()}), on(MIDDLE, decoder=oproj())),
    (
        "PD428",
        on(NEW, prefiller=config_keys(finegrained_tp_config={"olora_tensor_parallel_size": 1})),
        on(NEW, decoder=config_keys(finegrained_tp_config={"olora_tensor_parallel_size": 1})),
    ),
    (
        "PD431",
        on(
            NEW,
            decoder=args(
                speculative_config={"num_speculative_tokens": 2},
                additional_config={"xlite_graph_config": {"enabled": True}},
            ),
        ),
        on(
            NEW,
            decoder=args(
                speculative_config={"num_speculative_tokens": 1},
                additional_config={"xlite_graph_config": {"enabled": True}},
            ),
        ),
    ),
    (
        "PD434",
        alone(
            NEW,
            **config_keys(profiling_chunk_config={"enabled": True}, enable_balance_scheduling=True),
            **parallel(tensor=8, pipeline=2),
        ),
        alone(
            NEW,
            **config_keys(profiling_chunk_config={"enabled": True}, enable_balance_scheduling=False),
            **parallel(tensor=8, pipeline=2),
        ),
    ),
    (
        "PD434",
        on(NEW, decoder=config_keys(mix_placement=True, multistream_overlap_shared_expert=True)),
        on(OLD, decoder=config_keys(mix_placement=True, multistream_overlap_shared_expert=True)),
    ),
    (
        "PD434",
        on(NEW, prefiller=config_keys(mix_placement=True, enable_shared_expert_dp=True)),
        on(NEW, prefiller=config_keys(mix_placement=True, enable_shared_expert_dp=False)),
    ),
    ("PD434", on(MIDDLE, decoder=STATIC_KERNEL), on(OLD, decoder=STATIC_KERNEL)),
    # What only engines of separate roles refuse.
    (
        "PD426",
        on(NEW, config_keys(enable_balance_scheduling=True)),
        alone(NEW, **config_keys(enable_balance_scheduling=True)),
    ),
    (
        "PD209",
        on(OLD, prefiller=parallel(tensor=8, pipeline=2, prefill_context=2)),
        alone(OLD, **parallel(tensor=4, pipeline=2, prefill_context=2)),
    ),
    (
        "PD210",
        on(OLD, decoder=parallel(tensor=8, pipeline=2)),
        alone(OLD, **parallel(tensor=8, pipeline=2)),
    ),
    (
        "PD405",
        on(OLD, decoder=parallel(tensor=16, decode_context=2)),
        alone(OLD, **parallel(tensor=16, decode_context=2)),
    ),
    (
        "PD428",
        alone(MIDDLE, **config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
        on(MIDDLE, decoder=config_keys(finegrained_tp_config={"oproj_tensor_parallel_size": 1})),
    ),
    ("PD511", on(OLD, LAYERWISE), on(MIDDLE, LAYERWISE)),
    (
        "PD511",
        on(MIDDLE, LAYERWISE, parallel(tensor=8, prefill_context=4)),
        on(NEW, LAYERWISE, parallel(tensor=8, prefill_context=4)),
    ),
    (
        "PD511",
        on(MIDDLE, LAYERWISE, TP16, parallel(tensor=8, prefill_context=2)),
        on(MIDDLE, LAYERWISE, TP16, parallel(tensor=8)),
    ),
    ("PD512", on(OLD, decoder=parallel(tensor=1)), on(MIDDLE, decoder=parallel(tensor=1))),
    ("PD520", on(OLD, kv(decode={"pp_size": 2})), on(OLD, kv(decode={"pp_size": 1}))),
    (
        "PD521",
        on(OLD, kv(prefill={"pp_size": 2, "pp_layer_partition": "31,29"}), PIPELINE),
        on(OLD, kv(prefill={"pp_size": 2, "pp_layer_partition": "31,30"}), PIPELINE),
    ),
    (
        "PD521",
        on(OLD, kv(prefill={"pp_size": 2, "pp_layer_partition": "61"}), PIPELINE),
        on(OLD, kv(prefill={"pp_size": 1, "pp_layer_partition": "61"}), TP16),
    ),
    ("PD521", on(OLD, kv(prefill={"pp_layer_partition": "a,b"})), on(OLD)),
    (
        "PD522",
        on(NEW, LAYERWISE, decoder=parallel(tensor=8, prefill_context=2)),
        on(NEW, decoder=parallel(tensor=8, prefill_context=2)),
    ),
    ("PD608", small({"pd_release": MIDDLE}), on(MIDDLE)),
    (
        "PD608",
        on(OLD, {"pd_image": f"r.example/vllm-ascend:{NEW}"}),
        on(OLD, {"pd_image": "r.example/own:v7.0.0"}),
    ),
    (
        "PD608",
        on(OLD, {"pd_image": f"r.example/vllm-ascend:{NEW}-a3"}),
        on(OLD, {"pd_image": f"r.example/own/engine:{NEW}"}),
    ),
    (
        "PD613",
        on(OLD, {"pd_image": f"r.example/own/engine:{NEW}"}),
        on(OLD, {"pd_image": f"r.example/own/engine:{OLD}"}),
    ),
    (
        "PD609",
        on(MIDDLE, env(VLLM_ENGINE_READY_TIMEOUT_S="1199")),
        on(MIDDLE, env(VLLM_ENGINE_READY_TIMEOUT_S="1200")),
    ),
    ("PD609", on(MIDDLE, env(VLLM_ENGINE_READY_TIMEOUT_S=None)), on(OLD)),
    (
        "PD610",
        on(MIDDLE, env(VLLM_NIXL_ABORT_REQUEST_TIMEOUT="900")),
        on(OLD, env(VLLM_NIXL_ABORT_REQUEST_TIMEOUT="900")),
    ),
    (
        "PD610",
        on(OLD, env(VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT="900")),
        on(MIDDLE, env(VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT="900")),
    ),
    (
        "PD611",
        on(MIDDLE, prefiller=args(max_num_batched_tokens=136001)),
        on(MIDDLE, prefiller=args(max_num_batched_tokens=136032)),
    ),
    (
        "PD611",
        on(NEW, prefiller=args(max_num_batched_tokens=136001)),
        on(OLD, prefiller=args(max_num_batched_tokens=136001)),
    ),
    (
        "PD612",
        on(MIDDLE, prefiller=env(VLLM_ASCEND_ENABLE_FUSED_MC2="2")),
        on(OLD, prefiller=env(VLLM_ASCEND_ENABLE_FUSED_MC2="2")),
    ),
    (
        "PD612",
        on(MIDDLE, decoder={**DATA, **env(VLLM_ASCEND_ENABLE_FUSED_MC2="1")}),
        on(MIDDLE, decoder=env(VLLM_ASCEND_ENABLE_FUSED_MC2="1")),
    ),
]

# Those whose cases are below, since they need a model that the default profile is not.
ELSEWHERE = {"PD221", "PD433"}


@pytest.mark.parametrize(
    ("code", "broken", "kept"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_rule_from_both_sides(code: str, broken: RawInventory, kept: RawInventory) -> None:
    assert code in codes(broken)
    assert code not in codes(kept)


def _found(check: Any, code: str, raw: RawInventory, **model: Any) -> list[Finding]:
    """What one rule finds where the profile is of another model."""
    declaration, _ = read(raw)
    groups = tuple(
        replace(
            group,
            members=tuple(
                replace(m, settings=replace(m.settings, profile=replace(m.settings.profile, **model)))
                for m in group.members
            ),
        )
        for group in declaration.groups
    )
    rule = next(rule for rule in catalogue() if rule.code == code)
    return list(check(rule, Context(topology.build(replace(declaration, groups=groups)), {})))


@pytest.mark.parametrize(
    ("decode_context", "broken"), [(3, True), (2, False), (4, False), (1, False), (8, False)]
)
def test_decode_context_divides_the_ranks_of_a_head(decode_context: int, broken: bool) -> None:
    raw = small(decoder=parallel(tensor=16, decode_context=decode_context))
    found = _found(release_sizes.context_divides_heads, "PD221", raw, attention="gqa", kv_heads=4)
    assert bool(found) is broken


@pytest.mark.parametrize(("attention", "broken"), [("gqa", True), ("mla", False), (None, False)])
def test_kv_nz_is_for_mla(attention: str | None, broken: bool) -> None:
    raw = small(decoder=config_keys(enable_kv_nz=True))
    assert bool(_found(config.kv_nz, "PD433", raw, attention=attention)) is broken


@pytest.mark.parametrize(
    ("raw", "code", "sentences"),
    [
        (
            on(MIDDLE, args(swap_space=4)),
            "PD401",
            ("removed in v0.18.0", "remove it: there is no replacement"),
        ),
        (
            on(OLD, args(moe_backend="auto")),
            "PD401",
            ("available from v0.18.0 on", "set pd_release to v0.18.0"),
        ),
        (on(OLD, args(max_modellen=1)), "PD401", ("did you mean max-model-len?",)),
        (
            on(NEW, env(VLLM_NIXL_ABORT_REQUEST_TIMEOUT="900")),
            "PD437",
            ("v0.13.0 and v0.18.0 do", "its replacement: VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT"),
        ),
        (on(OLD, env(VLLM_LOGING_LEVEL="DEBUG")), "PD420", ("did you mean VLLM_LOGGING_LEVEL?",)),
        (on(OLD, env(VLLM_ENGINE_READY_TIMEOUT_S="9")), "PD437", ("set pd_release to v0.18.0",)),
    ],
)
def test_what_must_change_is_said(raw: RawInventory, code: str, sentences: tuple[str, ...]) -> None:
    found = [f for f in findings(raw) if f.code == code]
    assert found
    for sentence in sentences:
        assert all(sentence in f"{f.message} {f.cure}" for f in found)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (on(OLD, args(enable_wonders=True)), "PD401"),
        (on(OLD, config_keys(my_own_switch=True)), "PD422"),
        (on(OLD, args(compilation_config={"graph_size": 1})), "PD448"),
    ],
)
def test_no_suggestion_is_better_than_a_distant_one(raw: RawInventory, code: str) -> None:
    found = [f for f in findings(raw) if f.code == code]
    assert found
    assert not any("did you mean" in f.message for f in found)


def test_moving_to_a_release_tells_everything_at_once() -> None:
    """A cluster of v0.13.0 with settings of its own, moved to v0.23.0: all that must change, in one run."""
    raw = small(
        {
            "pd_release": NEW,
            **env(VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL="1", VLLM_NIXL_ABORT_REQUEST_TIMEOUT="480"),
            **args(swap_space=4, disable_log_requests=True),
        },
        prefiller=CONTEXT_DATA,
    )
    found = findings(raw)
    assert {"PD220", "PD401", "PD437", "PD608"} <= {f.code for f in found}
    assert len({f.seen for f in found if f.code == "PD401"}) == 2
    assert len({f.seen for f in found if f.code == "PD437"}) == 2
