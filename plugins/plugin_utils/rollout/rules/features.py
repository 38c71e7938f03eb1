# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about features of vllm-ascend that need others: FlashComm, graphs, context parallel, experts."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import ERROR, WARNING, Finding, Rule
from ..model import Instance, Node
from .base import (
    Context,
    at_node,
    flashcomm,
    graph_mode,
    rule,
    switched_on,
)
from .batches import capture_list, heads


@rule(
    "PD409",
    ERROR,
    "FlashComm1 is used with more than one tensor rank",
    cure="set VLLM_ASCEND_ENABLE_FLASHCOMM1: null in pd_engine_env, or raise tensor",
    source="A@v0.13.0:vllm_ascend/utils.py:769",
)
def flashcomm_tensor(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_env"):
        if flashcomm(c, instance.head) and instance.parallel.tensor < 2:
            yield r.at(
                "Flash Comm v1 (Sequence Parallelism) is only supported when tp_size > 1.",
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"FlashComm1 on, tensor {instance.parallel.tensor}",
                expected="tensor at least 2",
            )


@rule(
    "PD410",
    ERROR,
    "FlashComm1 on a mixture-of-experts model is used with expert parallel",
    cure="set enable-expert-parallel: true in pd_engine_args",
    source="A@v0.13.0:vllm_ascend/utils.py:774",
)
def flashcomm_experts(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_engine_args", "pd_engine_env", "pd_profile"):
        node = instance.head
        if (
            flashcomm(c, node)
            and instance.settings.profile.experts
            and node.flag("enable-expert-parallel") is not True
        ):
            yield r.at(
                "Flash Comm v1 (Sequence Parallelism) requires enable_expert_parallel=True for MoE models.",
                instance=instance.name,
                variable="pd_engine_args",
                seen="enable-expert-parallel is off",
                expected="enable-expert-parallel: true",
            )


@rule(
    "PD411",
    ERROR,
    "With FlashComm1 and graphs, the capture sizes include a multiple of the tensor size",
    cure="add a multiple of tensor to cudagraph_capture_sizes, or run eagerly",
    source="A@v0.13.0:vllm_ascend/platform.py:222-230",
)
def flashcomm_graphs(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_engine_env"):
        node, tensor = instance.head, instance.parallel.tensor
        sizes = capture_list(node)
        on = flashcomm(c, node) and node.flag("enforce-eager") is not True
        if on and tensor > 1 and sizes is not None and not any(size % tensor == 0 for size in sizes):
            yield r.at(
                f"cudagraph_capture_sizes {sizes} does not containvalues that are multiples of tp_size "
                f"{tensor}",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"{sizes}",
                expected=f"a multiple of {tensor} among them",
            )


@rule(
    "PD412",
    ERROR,
    "Graph mode and ASCEND_LAUNCH_BLOCKING are mutually exclusive",
    cure="remove ASCEND_LAUNCH_BLOCKING, or set enforce-eager: true",
    source="A@v0.13.0:vllm_ascend/platform.py:304",
)
def graphs_or_blocking(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_args", "pd_engine_env"):
        if node.env.get("ASCEND_LAUNCH_BLOCKING") == "1" and graph_mode(node):
            yield r.at(
                "ACL graph is incompatible with ASCEND_LAUNCH_BLOCKING=1. Please unset "
                "ASCEND_LAUNCH_BLOCKING or set it "
                "to 0.",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen="ASCEND_LAUNCH_BLOCKING=1",
                expected="0, or enforce-eager",
            )


@rule(
    "PD413",
    ERROR,
    "An instance with several nodes runs its workers with multiprocessing",
    cure="set distributed-executor-backend to mp, or remove it",
    source="V@0.13.0:vllm/config/parallel.py",
)
def executor_backend(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in heads(c):
        backend = node.flag("distributed-executor-backend")
        if instance.spans_nodes and backend not in (None, "mp", "uni", "external_launcher"):
            yield r.at(
                "nnodes > 1 can only be set when distributed executor backend is mp, uni or "
                "external_launcher.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=backend,
                expected="mp",
            )


@rule(
    "PD415",
    WARNING,
    "Prefill context parallel is used with expert parallel",
    cure="set enable-expert-parallel: true in pd_engine_args",
    source="vllm-ascend issue 8579",
)
def context_with_experts(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_profile"):
        if (
            instance.parallel.prefill_context > 1
            and instance.settings.profile.experts
            and instance.head.flag("enable-expert-parallel") is not True
        ):
            yield r.at(
                "prefill context parallel without expert parallel gives less accurate answers",
                instance=instance.name,
                variable="pd_engine_args",
                seen="enable-expert-parallel is off",
                expected="enable-expert-parallel: true",
            )


def _without_switch(c: Context) -> Iterator[tuple[Instance, Node, str]]:
    """Yield the nodes with prefill context parallel that lack the release's switch, and the switch's name."""
    name = c.cluster.release.limits.context_switch
    for instance, node in c.nodes("pd_parallel", "pd_engine_env") if name else ():
        if name and instance.parallel.prefill_context > 1 and not switched_on(node, name):
            yield instance, node, name


def _experts_gathered(c: Context, instance: Instance) -> bool:
    """Whether the model's experts exchange tokens by gathering them, the only case that needs the switch.

    This is so without expert parallel, and on A2 (A@v0.13.0:vllm_ascend/ascend_forward_context.py:208,
    select_moe_comm_method); FlashComm1 gathers regardless of the switch
    (A@v0.13.0:vllm_ascend/ops/fused_moe/prepare_finalize.py:338).
    """
    experts = instance.settings.profile.experts
    parallel = instance.head.flag("enable-expert-parallel") is True
    if experts is False or flashcomm(c, instance.head):
        return False
    if c.cluster.declaration.server == "atlas-a2":
        return bool(experts) or parallel
    return bool(experts) and not parallel


@rule(
    "PD416",
    ERROR,
    "Prefill context parallel is also enabled in the environment if experts exchange tokens by gathering",
    cure='set VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL: "1" in pd_engine_env',
    source="A@v0.13.0:vllm_ascend/ops/fused_moe/prepare_finalize.py:427",
)
def context_switch(r: Rule, c: Context) -> Iterator[Finding]:
    """Without it, each context rank applies only its own experts to its own tokens, and answers are wrong."""
    for instance, node, name in _without_switch(c):
        if "pd_profile" not in instance.unread and _experts_gathered(c, instance):
            yield r.at(
                "experts exchange tokens between context ranks only with this switch "
                + (
                    "on A2 servers"
                    if instance.head.flag("enable-expert-parallel") is True
                    else "where expert parallel is off"
                ),
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{name}={node.env.get(name, '(not set)')}",
                expected="1",
            )


@rule(
    "PD438",
    WARNING,
    "Prefill context parallel is enabled in the environment, as in the guide",
    cure='set VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL: "1" in pd_engine_env',
    source=(
        "A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md:324; without it: "
        "A@v0.13.0:tests/e2e/nightly/multi_node/config/DeepSeek-R1-W8A8-longseq.yaml"
    ),
)
def context_switch_advised(r: Rule, c: Context) -> Iterator[Finding]:
    """With expert parallel on A3 no code needs it: upstream's own tests run without it."""
    for instance, node, name in _without_switch(c):
        profile = instance.settings.profile
        if "pd_profile" not in instance.unread and (
            profile.experts is False or _experts_gathered(c, instance)
        ):
            continue  # a model without experts needs none; of the others PD416 speaks
        yield r.at(
            f"the {c.cluster.release.name} guide sets this switch for separate prefill and decode; it is "
            "needed if experts run without expert parallel",
            **at_node(instance, node),
            variable="pd_engine_env",
            seen=f"{name}={node.env.get(name, '(not set)')}",
            expected="1",
        )


@rule(
    "PD417",
    ERROR,
    "Prefillers and decoders serve the model under the same name",
    cure="set pd_served_model_name once, in group_vars/all",
    source=(
        "A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py (one request "
        "to both)"
    ),
)
def one_name(r: Rule, c: Context) -> Iterator[Finding]:
    first: Instance | None = None
    for instance in c.instances("pd_served_model_name"):
        first = first or instance
        if instance.settings.served_model_name != first.settings.served_model_name:
            yield r.at(
                f"the proxy sends the same request to {first.name} and {instance.name}, but one of them "
                "would not know the "
                "model",
                instance=instance.name,
                variable="pd_served_model_name",
                seen=instance.settings.served_model_name,
                expected=first.settings.served_model_name,
            )
