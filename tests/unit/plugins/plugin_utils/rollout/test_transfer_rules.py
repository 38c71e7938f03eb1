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
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.pipeline import even
from planner_inventories import codes, findings, many
from test_release_rules import (
    LAYERWISE,
    MIDDLE,
    NEW,
    OLD,
    TP16,
    alone,
    args,
    config_keys,
    env,
    kv,
    on,
    parallel,
)

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


def sparse(key: str) -> dict[str, Any]:
    return {**TP16, **config_keys(**{key: True})}


def port(number: int) -> dict[str, Any]:
    return {"pd_kv_port": number}


def rope(factor: int) -> dict[str, Any]:
    return args(hf_overrides={"rope_scaling": {"type": "yarn", "factor": factor}})


NZ = config_keys(enable_kv_nz=True)


def named(connector: str, own: str | None = None) -> dict[str, Any]:
    """A connector by name, and a module of one's own to look for it in."""
    fields = {} if own is None else {"kv_connector_module_path": own}
    return {"pd_kv_connector": connector, **TP16, "pd_kv_transfer_config": fields}


def multi(release: str, prefill: Any = ..., decode: Any = ..., **more: Any) -> RawInventory:
    """A pool beside the transfer, as upstream's guides have it."""
    sizes = {"dp_size": 1, "tp_size": 16}
    told = {
        "prefill": sizes if prefill is ... else prefill,
        "decode": sizes if decode is ... else decode,
    }

    def connectors(role: str) -> list[dict[str, Any]]:
        transfer = {"kv_connector": "MooncakeConnectorV1", "kv_role": role, "kv_port": "20001"}
        pool = {"kv_connector": "AscendStoreConnector", "kv_role": role}
        return [{**transfer, "kv_connector_extra_config": told, **more}, pool]

    return on(
        release,
        named("MultiConnector"),
        kv(connectors=connectors("kv_producer")),
        kv(connectors=connectors("kv_consumer")),
    )


SEGMENTS = "expandable_segments:True"
V1_PRODUCER = {"kv_connector": "MooncakeConnectorV1", "kv_role": "kv_producer"}
V1_MODULE = {release: load_release(release).connectors["MooncakeConnectorV1"].module for release in RELEASES}

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
        "PD537",
        on(MIDDLE, args(disable_hybrid_kv_cache_manager=False)),
        on(NEW, args(disable_hybrid_kv_cache_manager=False)),
    ),
    (
        "PD537",
        on(OLD, {**LAYERWISE, **TP16, **args(disable_hybrid_kv_cache_manager=False)}),
        on(MIDDLE, {**LAYERWISE, **TP16, **args(disable_hybrid_kv_cache_manager=False)}),
    ),
    ("PD538", on(OLD, args(kv_offloading_backend="native")), on(NEW, args(kv_offloading_backend="native"))),
    ("PD538", on(NEW, {}, args(kv_offloading_size=4)), on(OLD, {}, args(kv_offloading_size=4))),
    ("PD538", on(MIDDLE, {}, {}, args(kv_offloading_size=4)), alone(MIDDLE, **args(kv_offloading_size=4))),
    (
        "PD539",
        on(NEW, env(PYTORCH_CUDA_ALLOC_CONF=SEGMENTS)),
        on(MIDDLE, env(PYTORCH_CUDA_ALLOC_CONF=SEGMENTS)),
    ),
    (
        "PD539",
        on(NEW, env(PYTORCH_CUDA_ALLOC_CONF=f"a:1,{SEGMENTS}")),
        on(NEW, {**env(PYTORCH_CUDA_ALLOC_CONF=SEGMENTS), **args(enable_sleep_mode=True)}),
    ),
    ("PD540", on(OLD, env(ASCEND_TRANSFER_TIMEOUT="30s")), on(OLD, env(ASCEND_TRANSFER_TIMEOUT="30000"))),
    ("PD540", on(NEW, env(HCCL_RDMA_TIMEOUT="20.5")), on(NEW, env(HCCL_RDMA_TIMEOUT="20"))),
    (
        "PD540",
        on(MIDDLE, {**LAYERWISE, **TP16, **env(HCCL_RDMA_RETRY_CNT="")}),
        on(MIDDLE, {**LAYERWISE, **TP16, **env(ASCEND_TRANSFER_TIMEOUT="")}),
    ),
    (
        "PD540",
        on(MIDDLE, env(HCCL_RDMA_TIMEOUT="x")),
        on(MIDDLE, env(HCCL_RDMA_TIMEOUT="x", ASCEND_TRANSFER_TIMEOUT="9000")),
    ),
    # Ranks of a prefiller of two nodes, counted from the decoder's port.
    ("PD541", on(NEW, {}, port(40000), port(40031)), on(NEW, {}, port(40000), port(40032))),
    ("PD541", on(NEW, {}, port(40010), port(40001)), on(NEW, {}, port(40000), port(40000))),
    ("PD541", on(NEW, {}, port(40000), port(40016)), on(MIDDLE, {}, port(40000), port(40016))),
    (
        "PD541",
        on(NEW, {}, {**PIPELINE, **port(40000)}, {**parallel(tensor=8), **port(40008)}),
        on(NEW, {}, {**parallel(tensor=8, data=2), **port(40000)}, {**parallel(tensor=8), **port(40008)}),
    ),
    # A connector that both sides have is enough, and nothing is known of those that are not planned.
    (
        "PD510",
        on(NEW, TP16, LAYERWISE),
        on(NEW, {}, {**named("MultiConnector"), **kv(connectors=[V1_PRODUCER])}, TP16),
    ),
    (
        "PD510",
        on(NEW, {}, {**named("MultiConnector"), **kv(connectors=[V1_PRODUCER])}, {**LAYERWISE, **TP16}),
        on(NEW, {}, named("LMCacheConnectorV1"), named("LMCacheAscendConnector")),
    ),
    # Connectors that are registered are no mistakes, and those for other hardware start nothing.
    ("PD500", on(OLD, named("MooncakeConnector")), on(NEW, named("MooncakeConnector", own=V1_MODULE[NEW]))),
    (
        "PD500",
        on(MIDDLE, named("MooncakeConnector", own=V1_MODULE[MIDDLE])),
        on(MIDDLE, named("OwnConnector", own="own.connector")),
    ),
    ("PD500", on(OLD, named("MooncakeHybridConnector")), on(NEW, named("MooncakeHybridConnector"))),
    ("PD500", on(NEW, named("OwnConnector")), alone(NEW, **named("OwnConnector"))),
    *(("PD515", on(release, named("AscendStoreConnector")), on(release, TP16)) for release in RELEASES),
    ("PD515", on(NEW, named("MooncakeHybridConnector")), on(OLD, named("MooncakeHybridConnector"))),
    ("PD515", on(OLD, named("OwnConnector", own="own.connector")), on(OLD, named("OwnConnector"))),
    *(("PD515", multi(release), on(release, TP16)) for release in RELEASES),
    # Keys at the places where they are read.
    ("PD523", on(NEW, kv(tp_size=16)), on(NEW, kv(prefill={"tp_size": 16}))),
    (
        "PD523",
        on(NEW, kv(kv_buffer_device="npu")),
        on(NEW, {"pd_kv_transfer_config": {"kv_buffer_device": "npu"}}),
    ),
    ("PD523", on(NEW, kv(prefill={"pcp_size": 2})), on(NEW, kv(prefill={"pp_size": 1}))),
    ("PD523", on(NEW, kv(decode={"pp_layer_partition": "61"})), on(NEW, kv(use_ascend_direct=True))),
    (
        "PD523",
        on(NEW, kv(tls_config={"ssl_enable": True})),
        on(NEW, {**LAYERWISE, **TP16, **kv(tls_config={"ssl_enable": True})}),
    ),
    (
        "PD523",
        on(MIDDLE, kv(ascend_local_comm_res_path="/x")),
        on(NEW, kv(ascend_local_comm_res_path="/x")),
    ),
    ("PD523", on(NEW, {**LAYERWISE, **TP16, **kv(prefill={"pp_size": 1})}), alone(NEW, **kv(x=1))),
    ("PD524", on(NEW, decoder=kv(prefill={"dp_size": 2})), on(NEW, decoder=kv(prefill={"dp_size": 1}))),
    ("PD524", on(MIDDLE, decoder=kv(prefill={"tp_size": 32})), on(OLD, decoder=kv(prefill={"tp_size": 32}))),
    ("PD526", on(NEW, named("MultiConnector")), multi(NEW)),
    ("PD526", on(NEW, named("MultiConnector"), kv(connectors=[])), multi(OLD)),
    ("PD526", on(NEW, named("MultiConnector"), kv(connectors=["MooncakeConnectorV1"])), multi(MIDDLE)),
    ("PD526", multi(NEW, engine_id="0"), multi(NEW)),
    ("PD526", multi(NEW, kv_role=None), multi(NEW)),
    ("PD526", multi(NEW, kv_role="producer"), multi(NEW, kv_role="kv_both")),
    (
        "PD526",
        multi(MIDDLE, kv_connector="MooncakeHybridConnector"),
        multi(NEW, kv_connector="MooncakeHybridConnector"),
    ),
    ("PD526", multi(NEW, kv_connector="MooncakeConnector"), multi(NEW, kv_connector="UCMConnector")),
    (
        "PD526",
        multi(OLD, kv_connector="OwnConnector"),
        multi(OLD, kv_connector="OwnConnector", kv_connector_module_path="own.module"),
    ),
    ("PD526", multi(NEW, kv_prot=1), multi(OLD, kv_prot=1)),
    # The module has moved: from v0.23.0 on the path goes before the name that is registered.
    (
        "PD526",
        multi(NEW, kv_connector_module_path=V1_MODULE[OLD]),
        multi(OLD, kv_connector_module_path=V1_MODULE[OLD]),
    ),
    ("PD529", multi(NEW, {"dp_size": 1, "tp_size": 8}), multi(NEW)),
    ("PD529", multi(NEW, {"tp_size": 16}), multi(NEW, {"tp_size": 16, "dp_size": 4})),
    ("PD529", multi(OLD, {"dp_size": 1, "tp_size": 16, "pp_size": 2}), multi(OLD)),
    ("PD529", multi(MIDDLE, decode=None), multi(MIDDLE)),
    ("PD529", multi(OLD, kv_role="kv_consumer"), multi(OLD)),
    ("PD529", multi(NEW, kv_role="kv_both"), multi(NEW)),
    (
        "PD529",
        multi(NEW, kv_connector="MooncakeLayerwiseConnector", kv_role="kv_producer"),
        multi(NEW, kv_connector="MooncakeLayerwiseConnector", kv_role="kv_both"),
    ),
    (
        "PD530",
        on(NEW, {"pd_kv_transfer_config": {"kv_connector_module_path": V1_MODULE[OLD]}}),
        on(MIDDLE, {"pd_kv_transfer_config": {"kv_connector_module_path": V1_MODULE[OLD]}}),
    ),
    (
        "PD530",
        on(NEW, {"pd_kv_transfer_config": {"kv_port": "1"}}),
        on(NEW, {"pd_kv_transfer_config": {"kv_load_failure_policy": "recompute"}}),
    ),
    (
        "PD530",
        on(OLD, {"pd_kv_transfer_config": {"kv_load_failure_policy": "retry"}}),
        on(OLD, {"pd_kv_transfer_config": {"kv_load_failure_policy": "fail"}}),
    ),
    (
        "PD530",
        on(OLD, {"pd_kv_transfer_config": {"prefill": {}}}),
        alone(OLD, pd_kv_transfer_config={"prefill": {}}),
    ),
    # The name that is registered is no class of the module, which is looked at first from vLLM 0.23 on.
    (
        "PD530",
        on(NEW, {"pd_kv_transfer_config": {"kv_connector_module_path": V1_MODULE[NEW]}}),
        on(MIDDLE, {"pd_kv_transfer_config": {"kv_connector_module_path": V1_MODULE[MIDDLE]}}),
    ),
    ("PD606", on(NEW, {"pd_kv_transfer_config": {"kv_rank": 0}}), on(NEW)),
    # What a cache holds.
    (
        "PD531",
        on(NEW, {}, args(kv_cache_dtype="fp8"), args(kv_cache_dtype="bfloat16")),
        on(NEW, {}, args(kv_cache_dtype="fp8"), args(kv_cache_dtype="fp8_e4m3")),
    ),
    (
        "PD531",
        on(OLD, {}, args(kv_cache_dtype="fp8"), args(kv_cache_dtype="auto")),
        on(OLD, {}, args(kv_cache_dtype="bfloat16"), args(kv_cache_dtype="auto")),
    ),
    (
        "PD531",
        on(OLD, {}, args(dtype="half"), args(dtype="bfloat16")),
        on(OLD, {}, args(dtype="half"), args(dtype="float16")),
    ),
    (
        "PD531",
        on(MIDDLE, {}, args(dtype="float16"), args(kv_cache_dtype="bfloat16")),
        on(MIDDLE, {}, args(dtype="bfloat16"), args(kv_cache_dtype="bfloat16")),
    ),
    ("PD531", on(NEW, {}, env(VLLM_MLA_DISABLE="1")), on(NEW, env(VLLM_MLA_DISABLE="1"))),
    ("PD531", on(NEW, {}, {}, env(VLLM_MLA_DISABLE="1")), on(NEW, {}, {}, env(VLLM_MLA_DISABLE="0"))),
    (
        "PD531",
        on(NEW, UNKNOWN, sparse("enable_sparse_sfa_c8")),
        on(NEW, {**UNKNOWN, **sparse("enable_sparse_sfa_c8")}),
    ),
    (
        "PD531",
        on(NEW, UNKNOWN, {}, sparse("enable_sparse_li_c8")),
        on(MIDDLE, UNKNOWN, {}, sparse("enable_sparse_li_c8")),
    ),
    ("PD531", on(MIDDLE, UNKNOWN, sparse("enable_sparse_c8")), on(MIDDLE, {}, sparse("enable_sparse_c8"))),
    (
        "PD531",
        on(NEW, UNKNOWN, args(mamba_ssm_cache_dtype="float32"), args(mamba_ssm_cache_dtype="float16")),
        on(NEW, UNKNOWN, args(mamba_ssm_cache_dtype="float32"), args(mamba_ssm_cache_dtype="float32")),
    ),
    ("PD531", on(NEW, {}, rope(4), rope(2)), on(NEW, {}, rope(4), rope(4))),
    ("PD532", on(OLD, {}, args(kv_cache_dtype="bfloat16")), on(OLD, args(kv_cache_dtype="bfloat16"))),
    ("PD532", on(NEW, {}, rope(4)), alone(NEW, **rope(4))),
    ("PD532", on(OLD, {}, env(HCCL_INTRA_ROCE_ENABLE="1")), on(OLD, {}, env(HCCL_INTRA_ROCE_ENABLE="0"))),
    (
        "PD532",
        on(NEW, {}, {}, env(ASCEND_ENABLE_USE_FABRIC_MEM="1")),
        on(NEW, env(ASCEND_ENABLE_USE_FABRIC_MEM="1")),
    ),
    (
        "PD532",
        on(OLD, env(ASCEND_BUFFER_POOL="4:8"), {}, env(ASCEND_BUFFER_POOL="0:0")),
        on(OLD, env(ASCEND_BUFFER_POOL="4:8")),
    ),
    (
        "PD532",
        on(NEW, {}, args(chat_template="/t.jinja")),
        on(NEW, args(chat_template="/t.jinja")),
    ),
    (
        "PD532",
        on(NEW, {}, {}, args(hf_overrides={"use_index_cache": True})),
        on(NEW, args(hf_overrides={"use_index_cache": True})),
    ),
    *(
        (
            "PD533",
            on(release, {**LAYERWISE, **TP16}, {}, args(speculative_config=None)),
            on(release, TP16, {}, args(speculative_config=None)),
        )
        for release in LATER
    ),
    (
        "PD533",
        on(NEW, {**LAYERWISE, **TP16}, {}, args(speculative_config={"method": "ngram"})),
        on(
            NEW,
            {**LAYERWISE, **TP16},
            args(speculative_config={"method": "ngram"}),
            args(speculative_config=None),
        ),
    ),
    (
        "PD533",
        on(MIDDLE, {**LAYERWISE, **TP16}, {}, args(speculative_config={})),
        on(OLD, {**LAYERWISE, **TP16}, {}, args(speculative_config={})),
    ),
    ("PD534", on(OLD, {**LAYERWISE, **TP16}, {}, NZ), on(OLD, TP16, {}, NZ)),
    ("PD534", on(OLD, {**LAYERWISE, **TP16}, {}, NZ), on(MIDDLE, {**LAYERWISE, **TP16}, {}, NZ)),
    ("PD535", on(MIDDLE, {**LAYERWISE, **TP16}, {}, NZ), on(MIDDLE, TP16, {}, NZ)),
    ("PD535", on(NEW, {**LAYERWISE, **TP16}, {}, NZ), on(OLD, {**LAYERWISE, **TP16}, {}, NZ)),
    (
        "PD536",
        on(NEW, named("AscendStoreConnector")),
        on(NEW, {**named("AscendStoreConnector"), **env(PYTHONHASHSEED="0")}),
    ),
    (
        "PD536",
        on(NEW, named("AscendStoreConnector"), env(PYTHONHASHSEED="0"), env(PYTHONHASHSEED="1")),
        on(NEW, named("MooncakeHybridConnector")),
    ),
    ("PD536", multi(NEW), on(NEW, TP16)),
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


@pytest.mark.parametrize("name", ["MultiConnector", "MooncakeHybridConnector", "AscendStoreConnector"])
def test_a_registered_connector_is_called_what_it_is(name: str) -> None:
    """And no other is suggested: it would be the wrong one for the model."""
    said = [f for f in findings(on(NEW, named(name))) if f.code in ("PD500", "PD515")]
    assert [(f.code, f.severity, f.instance) for f in said] == [("PD515", "warning", None)]
    text = f"{said[0].message} {said[0].cure} {said[0].expected}"
    assert "does not plan" in text
    assert "MooncakeConnectorV1" not in text
    assert "did you mean" not in text


@pytest.mark.parametrize(
    ("release", "name", "said"),
    [
        (NEW, "MooncakeConectorV1", "did you mean MooncakeConnectorV1?"),
        (NEW, "MooncakeHybridConector", "did you mean MooncakeHybridConnector?"),
        (OLD, "MooncakeHybridConnector", "v0.23.0 has it"),
        (OLD, "MooncakeConnector", "vllm-ascend's is MooncakeConnectorV1"),
        (NEW, "SomeConnector", "registers no connector SomeConnector"),
    ],
)
def test_a_connector_that_nobody_registers(release: str, name: str, said: str) -> None:
    (finding,) = [f for f in findings(on(release, named(name))) if f.code == "PD500"]
    assert finding.message.endswith(said)


def test_a_missing_list_is_one_finding() -> None:
    """Both roles lack it for one reason."""
    (finding,) = [f for f in findings(on(NEW, named("MultiConnector"))) if f.code == "PD526"]
    assert finding.instance is None
    raw = on(NEW, named("MultiConnector"), {}, kv(connectors=[V1_PRODUCER]))
    assert [f.instance for f in findings(raw) if f.code == "PD526"] == ["prefiller"]


def test_a_registered_connector_is_planned_with_what_is_given() -> None:
    configs = transfer_configs(multi(NEW))
    assert {config["kv_connector"] for config in configs.values()} == {"MultiConnector"}
    for config in configs.values():
        inner = config["kv_connector_extra_config"]["connectors"]
        assert [entry["kv_connector"] for entry in inner] == ["MooncakeConnectorV1", "AscendStoreConnector"]


def test_the_proxy_is_the_inner_connectors() -> None:
    layerwise = {"kv_connector": "MooncakeLayerwiseConnector", "kv_role": "kv_both"}
    raw = on(NEW, {**named("MultiConnector"), **kv(connectors=[layerwise])})
    proxy = planner.make(raw).to_dict()["hosts"]["p1"]["proxy"]
    assert proxy["argv"][1] == "load_balance_proxy_layerwise_server_example.py"


def test_fields_of_the_transfer_config_are_passed() -> None:
    raw = on(NEW, {"pd_kv_transfer_config": {"kv_load_failure_policy": "recompute"}})
    for config in transfer_configs(raw).values():
        assert config["kv_load_failure_policy"] == "recompute"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (kv(tp_size=16), "it is read in prefill and decode"),
        (kv(kv_port=1), "from pd_kv_port"),
        (kv(kv_load_failure_policy="fail"), "pd_kv_transfer_config"),
        (kv(decode={"pp_layer_partition": "61"}), "it is read in prefill"),
        (kv(prefil={}), "did you mean prefill?"),
        (kv(prefill={"tp_sise": 16}), "did you mean tp_size?"),
        ({"pd_kv_transfer_config": {"prefill": {}}}, "it is read in pd_kv_extra_config itself"),
    ],
)
def test_where_a_key_belongs(given: dict[str, Any], said: str) -> None:
    (message,) = {f.message for f in findings(on(NEW, given)) if f.code in ("PD523", "PD530")}
    assert said in message


@pytest.mark.parametrize("release", RELEASES)
def test_an_engine_id_that_two_have_starts(release: str) -> None:
    """vllm-ascend appends a random suffix to each."""
    raw = on(release, {"pd_engine_id": "7"})
    assert {f.severity for f in findings(raw) if f.code == "PD508"} == {"warning"}
    assert {config["engine_id"] for config in transfer_configs(raw).values()} == {"7"}
