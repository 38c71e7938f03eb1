# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about sizes within an engine that must fit each other: blocks, batches, captured graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import ERROR, Finding, Rule
from ..model import Instance, Node
from .base import (
    Context,
    block_size,
    chunked_prefill,
    context_parallel,
    flag_number,
    interleave,
    number,
    rule,
)


@rule(
    "PD405",
    ERROR,
    "With context parallel, the interleave size equals the block size",
    cure="set cp-kv-cache-interleave-size and block-size to the same number, 128 in the guide",
    source="A@v0.13.0:vllm_ascend/platform.py:350-357",
)
def interleave_is_block(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        size, block = interleave(instance), block_size(instance.head)
        if context_parallel(instance) > 1 and size is not None and block is not None and size != block:
            yield r.at(
                f"cp_kv_cache_interleave_size({size}) and block_size({block}) needs to be equal if use pcp "
                "or dcp > 1 in "
                "P/D disaggregate and kv pool scenario.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"cp-kv-cache-interleave-size {size}, block-size {block}",
                expected=f"both {block}",
            )


@rule(
    "PD406",
    ERROR,
    "With decode context parallel, the block size is a multiple of the interleave size",
    cure="set cp-kv-cache-interleave-size to the block size",
    source="V@0.13.0:vllm/config/vllm.py:788-811",
)
def block_holds_interleave(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.instances("pd_parallel", "pd_engine_args"):
        size, block = interleave(instance), flag_number(instance.head, "block-size", 128)
        if instance.parallel.decode_context < 2 or size is None or block is None:
            continue
        if size < 1 or size > block or block % size:
            yield r.at(
                f"Block_size({block}) should be greater than or equal to and divisible by "
                "cp_kv_cache_interleave_size "
                f"({size}).",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"cp-kv-cache-interleave-size {size}, block-size {block}",
                expected=f"a divisor of {block}",
            )


@rule(
    "PD407",
    ERROR,
    "Without chunked prefill, a whole prompt fits in one batch",
    cure="raise max-num-batched-tokens, lower max-model-len, or enable chunked prefill",
    source="V@0.13.0:vllm/config/scheduler.py:250",
)
def batch_holds_prompt(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in heads(c):
        batch, length = flag_number(node, "max-num-batched-tokens"), flag_number(node, "max-model-len")
        if not chunked_prefill(node) and batch is not None and length is not None and batch < length:
            yield r.at(
                f"max_num_batched_tokens ({batch}) is smaller than max_model_len ({length}). This "
                "effectively limits the "
                "maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences.",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-num-batched-tokens {batch}, max-model-len {length}",
                expected=f"max-num-batched-tokens at least {length}",
            )


@rule(
    "PD408",
    ERROR,
    "A batch has room for at least one token of every sequence",
    cure="raise max-num-batched-tokens, or lower max-num-seqs",
    source="V@0.13.0:vllm/config/scheduler.py:264",
)
def batch_holds_sequences(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in heads(c):
        batch, sequences = flag_number(node, "max-num-batched-tokens"), flag_number(node, "max-num-seqs")
        if batch is not None and sequences is not None and batch < sequences:
            yield r.at(
                f"max_num_batched_tokens ({batch}) must be greater than or equal to max_num_seqs "
                f"({sequences}).",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-num-batched-tokens {batch}, max-num-seqs {sequences}",
                expected=f"max-num-batched-tokens at least {sequences}",
            )


def heads(c: Context) -> Iterator[tuple[Instance, Node]]:
    for instance in c.instances("pd_engine_args"):
        yield instance, instance.head


def capture_list(node: Node) -> list[int] | None:
    config = node.flag("compilation-config")
    sizes = config.get("cudagraph_capture_sizes") if isinstance(config, Mapping) else None
    if sizes is None:
        sizes = node.flag("cudagraph-capture-sizes")
    if isinstance(sizes, list) and sizes and all(number(size) is not None for size in sizes):
        return [size for size in map(number, sizes) if size is not None]
    return None


@rule(
    "PD414",
    ERROR,
    "max_cudagraph_capture_size is the largest capture size",
    cure="remove max_cudagraph_capture_size, or set it to the largest of cudagraph_capture_sizes",
    source="V@0.13.0:vllm/config/vllm.py (_set_cudagraph_sizes)",
)
def capture_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in heads(c):
        config, sizes = node.flag("compilation-config"), capture_list(node)
        largest = config.get("max_cudagraph_capture_size") if isinstance(config, Mapping) else None
        if largest is None:
            largest = node.flag("max-cudagraph-capture-size")
        value = number(largest)
        if value is not None and sizes and value != max(sizes):
            yield r.at(
                f"max_cudagraph_capture_size ({value}) is not the largest of cudagraph_capture_sizes "
                f"({max(sizes)})",
                instance=instance.name,
                variable="pd_engine_args",
                seen=value,
                expected=max(sizes),
            )
