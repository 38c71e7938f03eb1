"""SchedulerConfig: how many requests and tokens one step takes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from .failure import invalid
from .model import Model

FRAME = ("/vllm-workspace/vllm/vllm/config/scheduler.py", 250, "verify_max_model_len")
DEFAULT_BATCHED_TOKENS = 2048
DEFAULT_NUM_SEQS = 256


@dataclass(frozen=True)
class Scheduler:
    """Limits of one step."""

    max_num_seqs: int
    max_num_batched_tokens: int
    chunked: bool
    """Whether a long prompt is prefilled in several steps."""


def make_scheduler(args: argparse.Namespace, model: Model) -> Scheduler:
    """vLLM's defaults for what is not given, checked."""
    chunked = args.enable_chunked_prefill is not False
    seqs = args.max_num_seqs or DEFAULT_NUM_SEQS
    tokens = args.max_num_batched_tokens
    if tokens is None:
        tokens = DEFAULT_BATCHED_TOKENS if chunked else max(model.max_model_len, DEFAULT_BATCHED_TOKENS)
        tokens = min(seqs * model.max_model_len, tokens)
    if args.max_num_seqs is None:
        seqs = min(seqs, tokens)
    if tokens < model.max_model_len and not chunked:
        raise invalid(
            "SchedulerConfig",
            f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({model.max_model_len}). This "
            "effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM "
            "reject longer "
            "sequences. Please increase max_num_batched_tokens or decrease max_model_len.",
            FRAME,
        )
    if tokens < seqs:
        raise invalid(
            "SchedulerConfig",
            f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({seqs}).",
            FRAME,
        )
    return Scheduler(seqs, tokens, chunked)
