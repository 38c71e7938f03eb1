# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about vllm-ascend's own settings: keys of --additional-config, and variables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..findings import ERROR, Finding, Rule, shown
from ..model import Instance, Node
from .base import Context, additional_config, block_size, is_on, moved_setting, number, rule

_FLASHCOMM2 = "VLLM_ASCEND_FLASHCOMM2_PARALLEL_SIZE"


def _mapping(node: Node, key: str) -> Mapping[str, Any]:
    value = additional_config(node).get(key)
    return value if isinstance(value, Mapping) else {}


def _size(node: Node, key: str) -> int:
    """A size of finegrained_tp_config, 0 where it is off."""
    return number(_mapping(node, "finegrained_tp_config").get(key)) or 0


@rule(
    "PD426",
    ERROR,
    "Balance scheduling is off with separate prefill and decode",
    cure="remove VLLM_ASCEND_BALANCE_SCHEDULING, or enable_balance_scheduling in additional-config",
    source="A@v0.18.0:vllm_ascend/platform.py:455; A@v0.23.0:vllm_ascend/platform.py:681",
)
def balance_scheduling(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated or not c.cluster.release.limits.balance_scheduling_refused:
        return
    name = "VLLM_ASCEND_BALANCE_SCHEDULING"
    for instance in c.instances("pd_engine_args", "pd_engine_env"):
        if is_on(moved_setting(c, instance.head, name)):
            yield r.at(
                "balance scheduling only supports PD-mixed mode (kv_role='kv_both' or no kv_transfer_config)",
                instance=instance.name,
                variable="pd_engine_env" if name in instance.head.env else "pd_engine_args",
                seen=f"{name} on",
                expected="off",
            )


@rule(
    "PD427",
    ERROR,
    "Fine-grained tensor parallel sizes are divisors of the data-parallel size",
    cure="choose sizes in finegrained_tp_config that divide data, or 0",
    source="A@v0.18.0:vllm_ascend/ascend_config.py:249",
)
def module_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    modules = [
        "oproj",
        "lmhead",
        "embedding",
        "mlp",
        *(["olora"] if c.cluster.release.limits.oproj_tensor_one else []),
    ]
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        for key in (f"{module}_tensor_parallel_size" for module in modules):
            size = _size(instance.head, key)
            if size > 0 and instance.parallel.data % size:
                yield r.at(
                    "module tp sizes must divide data_parallel_size",
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"{shown(key, 40)} {size}, data {instance.parallel.data}",
                    expected=f"a divisor of {instance.parallel.data}",
                )


@rule(
    "PD428",
    ERROR,
    "o_proj and o_lora tensor parallel is used in decoders with graphs only, from v0.23.0 on with tensor 1",
    cure="set oproj_tensor_parallel_size for the decoder only, without enforce-eager, and with tensor 1",
    source="A@v0.18.0:vllm_ascend/ascend_config.py:230-234; A@v0.23.0:vllm_ascend/ascend_config.py:546-570",
)
def oproj_place(r: Rule, c: Context) -> Iterator[Finding]:
    single_rank = c.cluster.release.limits.oproj_tensor_one
    # The second came with that limit.
    keys = ["oproj_tensor_parallel_size", *(["olora_tensor_parallel_size"] if single_rank else [])]
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_profile"):
        node, tensor = instance.head, instance.parallel.tensor
        for key in keys:
            if _size(node, key) < 1:
                continue
            if instance.role != "decoder" or c.cluster.colocated:
                message = f"{key} is only supported in pd scenario and can only be used in D node."
            elif node.flag("enforce-eager") is True:
                message = f"{key} is only supported in graph mode"
            elif single_rank and key.startswith("oproj") and tensor > 1:
                message = f"{key} currently requires tensor_parallel_size == 1, got {tensor}."
            else:
                continue
            yield r.at(
                message,
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"{key} in a {instance.role}, tensor {tensor}",
                expected="only in a decoder with graphs",
            )


@rule(
    "PD429",
    ERROR,
    "Tensor parallel of o_proj or the embedding is used with the recompute scheduler",
    cure="set recompute_scheduler_enable: true in additional-config of the decoder",
    source="A@v0.23.0:vllm_ascend/ascend_config.py (cross-DP collectives)",
)
def oproj_recompute(r: Rule, c: Context) -> Iterator[Finding]:
    if not c.cluster.release.limits.tensor_needs_recompute:
        return
    for instance in c.instances("pd_engine_args"):
        node = instance.head
        used = [
            key
            for key in ("oproj_tensor_parallel_size", "embedding_tensor_parallel_size")
            if _size(node, key) > 0
        ]
        if used and not additional_config(node).get("recompute_scheduler_enable"):
            yield r.at(
                "oproj_tensor_parallel_size / embedding_tensor_parallel_size require "
                "recompute_scheduler_enable=true",
                instance=instance.name,
                variable="pd_engine_args",
                seen=", ".join(used),
                expected="recompute_scheduler_enable: true",
            )


@rule(
    "PD430",
    ERROR,
    "FlashComm2 is used in prefillers only, with a size that divides tensor and is smaller",
    cure=f"correct {_FLASHCOMM2} in pd_engine_env of the prefiller, and remove it from the decoder's",
    source="A@v0.13.0:vllm_ascend/utils.py:1009-1053",
)
def flashcomm2(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_env", "pd_engine_args"):
        size, tensor = number(moved_setting(c, instance.head, _FLASHCOMM2)) or 0, instance.parallel.tensor
        sharding = additional_config(instance.head).get("layer_sharding")
        if size < 1:
            continue
        if instance.role == "decoder" and not c.cluster.colocated:
            message = (
                "FLASHCOMM2 primarily targets P-scenario deployments. It is not applicable in D-scenario"
            )
        elif tensor <= size:
            message = (
                f"flashcomm2_oproj_tensor_parallel_size ({size}) cannot exceed global tensor parallel size "
                f"({tensor})"
            )
        elif tensor % size:
            message = (
                f"Global tensor parallel size ({tensor}) must be divisible by "
                f"flashcomm2_oproj_tensor_parallel_size ({size})"
            )
        elif sharding and sharding != ["o_proj"]:
            message = "FLASHCOMM2 only supports 'o_proj' as the sole layer sharding configuration!"
        elif _size(instance.head, "oproj_tensor_parallel_size") > 0:
            message = (
                "flashcomm2_oproj_tensor_parallel_size cannot be enabled simultaneously with "
                "oproj_tensor_parallel_size"
            )
        else:
            continue
        yield r.at(
            message,
            instance=instance.name,
            variable="pd_engine_env",
            seen=f"{_FLASHCOMM2}={size}, tensor {tensor}, {instance.role}",
            expected="only in a prefiller, a divisor of tensor smaller than it",
        )


@rule(
    "PD431",
    ERROR,
    "Xlite graphs are used without a pipeline, with blocks of 128 tokens and little or no speculation",
    cure="switch xlite_graph_config off, or what it excludes",
    source="A@v0.13.0:vllm_ascend/ascend_config.py:261-272; A@v0.23.0:vllm_ascend/ascend_config.py:689",
)
def xlite(r: Rule, c: Context) -> Iterator[Finding]:
    most = c.cluster.release.limits.xlite_speculative_tokens
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        node = instance.head
        if not _mapping(node, "xlite_graph_config").get("enabled"):
            continue
        excluded = []
        if _speculative_tokens(node) > most:
            excluded.append(
                f"speculative decoding of more than {most} tokens" if most else "speculative decoding"
            )
        if instance.parallel.pipeline > 1:
            excluded.append("pipeline parallelism")
        # Where some speculation is taken, other blocks are only slower.
        if block_size(node) != 128 and not most:
            excluded.append("a block_size other than 128")
        for what in excluded:
            yield r.at(
                f"Xlite graph mode is not compatible with {what}.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"xlite_graph_config enabled, {what}",
                expected="one of them off",
            )


def _speculative_tokens(node: Node) -> int:
    """How many tokens are speculated at once, 0 where none are."""
    speculation = node.flag("speculative-config")
    if not isinstance(speculation, Mapping) or not speculation:
        return 0
    return number(speculation.get("num_speculative_tokens")) or 1


@rule(
    "PD432",
    ERROR,
    "Dynamic expert load balancing is also enabled in the environment",
    cure='set DYNAMIC_EPLB: "true" in pd_engine_env',
    source="A@v0.13.0:vllm_ascend/eplb/core/eplb_utils.py:144; A@v0.18.0:vllm_ascend/ascend_config.py:420",
)
def dynamic_eplb(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args", "pd_engine_env"):
        node = instance.head
        # At v0.13.0 a key of its own, later one of eplb_config.
        own = "dynamic_eplb" in c.cluster.release.additional_config
        wanted = own and additional_config(node).get("dynamic_eplb")
        if not wanted and not _mapping(node, "eplb_config").get("dynamic_eplb"):
            continue
        balancing = node.env.get("DYNAMIC_EPLB", "false").lower() in ("true", "1")
        if not balancing and node.env.get("EXPERT_MAP_RECORD", "false") != "true":
            yield r.at(
                "The environment variable DYNAMIC_EPLB or EXPERT_MAP_RECORD of the ePLB must be set to true.",
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"DYNAMIC_EPLB={node.env.get('DYNAMIC_EPLB', '(not set)')}",
                expected="true",
            )


@rule(
    "PD433",
    ERROR,
    "enable_kv_nz is set for models with MLA only",
    cure="remove enable_kv_nz from additional-config",
    source="A@v0.13.0:vllm_ascend/ascend_config.py:146",
)
def kv_nz(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args", "pd_profile"):
        attention = instance.settings.profile.attention
        if attention not in (None, "mla") and additional_config(instance.head).get("enable_kv_nz"):
            yield r.at(
                "enable_kv_nz is only supported for mla currently.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"enable_kv_nz, attention {attention}",
                expected="not set",
            )


@rule(
    "PD434",
    ERROR,
    "Mutually exclusive settings of vllm-ascend are not combined",
    cure="remove one of the two",
    source="A@v0.23.0:vllm_ascend/ascend_config.py, platform.py:793",
)
def excluding(r: Rule, c: Context) -> Iterator[Finding]:
    """Each pair only where the release looks at it."""
    refused = c.cluster.release.exclusions
    for instance in c.instances("pd_engine_args", "pd_engine_env", "pd_parallel"):
        node = instance.head
        config = additional_config(node)
        profiling = _mapping(node, "profiling_chunk_config").get("enabled")
        compilation = _mapping(node, "ascend_compilation_config")
        pairs = [
            (
                "reduce sample",
                "enable_reduce_sample",
                "lmhead_tensor_parallel_size",
                config.get("enable_reduce_sample") and _size(node, "lmhead_tensor_parallel_size") > 0,
            ),
            (
                "fused MC2",
                "enable_mc2_hierarchy_comm",
                "VLLM_ASCEND_ENABLE_FUSED_MC2",
                config.get("enable_mc2_hierarchy_comm")
                and is_on(moved_setting(c, node, "VLLM_ASCEND_ENABLE_FUSED_MC2")),
            ),
            (
                "profiling chunk",
                "profiling_chunk_config",
                "pipeline 1",
                profiling and instance.parallel.pipeline == 1,
            ),
            (
                "profiling chunk",
                "profiling_chunk_config",
                "balance scheduling",
                profiling and is_on(moved_setting(c, node, "VLLM_ASCEND_BALANCE_SCHEDULING")),
            ),
            (
                "dump",
                "dump_config_path",
                "dump_config",
                config.get("dump_config_path") and config.get("dump_config"),
            ),
            *(
                ("mix placement", "mix_placement", key, config.get("mix_placement") and on)
                for key, on in (
                    ("enable_shared_expert_dp", _shared_expert_dp(instance)),
                    (
                        "multistream_overlap_shared_expert",
                        config.get("multistream_overlap_shared_expert"),
                    ),
                )
            ),
            (
                "static kernel",
                "enable_static_kernel",
                "enable_npugraph_ex off",
                compilation.get("enable_static_kernel") and not compilation.get("enable_npugraph_ex", True),
            ),
        ]
        for name, key, other, both in pairs:
            if both and name in refused:
                yield r.at(
                    f"{key} cannot be enabled with {other}",
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"{key} and {other}",
                    expected="one of them",
                )


def _shared_expert_dp(instance: Instance) -> bool:
    """Whether enable_shared_expert_dp has an effect (A@v0.23.0:vllm_ascend/ascend_config.py:115)."""
    node = instance.head
    return bool(
        additional_config(node).get("enable_shared_expert_dp")
        and node.flag("enable-expert-parallel") is True
        and instance.parallel.tensor > 1
    )


@rule(
    "PD435",
    ERROR,
    "Hybrid load balancing is off in instances with headless nodes",
    cure="remove data-parallel-hybrid-lb",
    source="V@0.13.0:vllm/entrypoints/cli/serve.py",
)
def hybrid_balancing(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args"):
        if len(instance.nodes) > 1 and instance.head.flag("data-parallel-hybrid-lb") is True:
            yield r.at(
                "data_parallel_hybrid_lb is not applicable in headless mode",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"data-parallel-hybrid-lb on {len(instance.nodes)} nodes",
                expected="off",
            )


@rule(
    "PD436",
    ERROR,
    "A colocated engine has no settings that need separate prefill and decode",
    cure="set additional-config in pd_engine_args without the key",
    source="A@v0.18.0:vllm_ascend/platform.py:465; A@v0.23.0:vllm_ascend/platform.py:346, 703",
)
def colocated_keys(r: Rule, c: Context) -> Iterator[Finding]:
    if not c.cluster.colocated:
        return
    for instance in c.instances("pd_engine_args", "pd_profile"):
        config = additional_config(instance.head)
        for key in sorted(c.cluster.release.colocated_refuses):
            if config.get(key):
                yield r.at(
                    f"{key} is not supported in PD-mixed mode",
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"additional-config: {key}",
                    expected=f"without {key}",
                )
