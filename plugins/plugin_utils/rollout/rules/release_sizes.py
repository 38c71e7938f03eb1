# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about sizes for which releases and connectors have different limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import ERROR, WARNING, Finding, Rule
from .base import Context, rule
from .transfer import transferring


@rule(
    "PD220",
    ERROR,
    "The release supports prefill context parallel together with data parallel",
    cure="set prefill_context or data to 1, or use v0.18.0",
    source="A@v0.23.0:vllm_ascend/platform.py:351",
)
def context_or_data(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.release.limits.prefill_context_with_data:
        return
    for instance in c.instances("pd_parallel"):
        sizes = instance.parallel
        if sizes.data > 1 and sizes.prefill_context > 1:
            yield r.at(
                "PCP (Prefill Context Parallelism) and DP (Data Parallelism) cannot be enabled "
                f"simultaneously in the current version of vLLM Ascend. Got "
                f"data_parallel_size={sizes.data} and prefill_context_parallel_size={sizes.prefill_context}.",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"prefill_context {sizes.prefill_context}, data {sizes.data}",
                expected="one of them 1",
            )


@rule(
    "PD221",
    WARNING,
    "Without MLA, the decode context size divides the number of tensor ranks per key/value head",
    cure="choose a decode_context that divides tensor / key/value heads",
    source="A@v0.13.0:docs/source/user_guide/feature_guide/context_parallel.md (in no code)",
)
def context_divides_heads(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_profile"):
        profile, sizes = instance.settings.profile, instance.parallel
        if profile.attention != "gqa" or not profile.kv_heads or sizes.decode_context == 1:
            continue
        ranks = sizes.tensor // profile.kv_heads
        if ranks >= sizes.decode_context and ranks % sizes.decode_context:
            yield r.at(
                f"{sizes.tensor} tensor ranks are {ranks} for each of {profile.kv_heads} key/value heads, "
                f"and {sizes.decode_context} does not divide that",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"decode_context {sizes.decode_context}",
                expected=f"a divisor of {ranks}",
            )


@rule(
    "PD223",
    ERROR,
    "A colocated engine does not combine a pipeline with multi-token prediction",
    cure="set pipeline to 1, or speculative-config: null in pd_engine_args",
    source="A@v0.23.0:vllm_ascend/platform.py:443",
)
def mtp_or_pipeline(r: Rule, c: Context) -> Iterator[Finding]:
    """A decoder must have no pipeline at all (PD210), and a prefiller may have both."""
    if not c.cluster.colocated or c.cluster.release.limits.mtp_with_pipeline:
        return
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        speculation = instance.head.flag("speculative-config")
        if instance.parallel.pipeline < 2 or not isinstance(speculation, Mapping) or not speculation:
            continue
        # Without a method vLLM uses the model's own, which is multi-token prediction if the model has it.
        if "mtp" in str(speculation.get("method", "mtp")).lower():
            yield r.at(
                "PP+MTP is only supported on PD-disaggregated P nodes (kv_role='kv_producer').",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"pipeline {instance.parallel.pipeline}, speculative-config",
                expected="one of them",
            )


@rule(
    "PD522",
    ERROR,
    "With the layerwise connector, decoders use no prefill context parallel",
    cure="set prefill_context to 1 for the decoder",
    source="A@v0.23.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_layerwise_connector.py:804",
)
def layerwise_decoder(r: Rule, c: Context) -> Iterator[Finding]:
    """For releases whose connector does not support prefill context parallel, PD511 covers both roles."""
    for instance, connector in transferring(c, "pd_parallel", role="decoder"):
        knows = connector.prefill_context_parallel
        if knows and connector.listener == "decoder" and instance.parallel.prefill_context > 1:
            yield r.at(
                "Prefill context parallel is not support on decoder nodes",
                instance=instance.name,
                variable="pd_parallel",
                seen=f"prefill_context {instance.parallel.prefill_context}",
                expected="prefill_context 1",
            )
