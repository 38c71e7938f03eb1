"""CacheConfig: the share of memory, the size of blocks, and how context parallel ranks share them."""

from __future__ import annotations

import argparse

from ..log import StartupFailure
from .failure import ARG_UTILS
from .model import Model

DEFAULT_BLOCK_SIZE = 128


def check_memory(args: argparse.Namespace) -> None:
    """--gpu-memory-utilization is a share of the chip's memory."""
    utilization = args.gpu_memory_utilization
    if not 0 < utilization <= 1:
        bound = "less than or equal to 1" if utilization > 1 else "greater than 0"
        raise StartupFailure(
            "pydantic_core._pydantic_core.ValidationError",
            f"1 validation error for CacheConfig\ngpu_memory_utilization\n  Input should be {bound}",
            frame=(ARG_UTILS, 1354, "create_engine_config"),
        )


def check_interleave(args: argparse.Namespace) -> None:
    """Whether a block holds whole parts of the context, where decode context parallel splits it."""
    block_size = args.block_size or DEFAULT_BLOCK_SIZE
    interleave = args.cp_kv_cache_interleave_size
    if args.decode_context_parallel_size > 1 and (interleave > block_size or block_size % interleave):
        raise StartupFailure(
            "AssertionError",
            f"Block_size({block_size}) should be greater than or equal to and divisible by "
            f"cp_kv_cache_interleave_size ({interleave}).",
            frame=("/vllm-workspace/vllm/vllm/config/vllm.py", 802, "__post_init__"),
        )


def used_block_size(args: argparse.Namespace, model: Model, *, chunked: bool) -> int:
    """The block size that vllm-ascend goes by: with prefix caching or chunked prefill it is its own."""
    prefix_caching = args.enable_prefix_caching is not False
    if model.config.get("model_type") != "qwen3_next" and (prefix_caching or chunked):
        return DEFAULT_BLOCK_SIZE
    return int(args.block_size or DEFAULT_BLOCK_SIZE)
