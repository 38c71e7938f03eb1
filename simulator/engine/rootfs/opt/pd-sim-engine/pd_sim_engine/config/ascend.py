"""What vllm-ascend's platform checks (check_and_update_config)."""

from __future__ import annotations

import argparse
import os

from .. import RELEASE
from ..log import StartupFailure
from .compilation import Graphs
from .failure import assert_that
from .kv_transfer import KvTransfer
from .model import Model

PLATFORM = "/vllm-workspace/vllm-ascend/vllm_ascend/platform.py"


def check_platform(args: argparse.Namespace, model: Model, graphs: Graphs) -> None:
    """Which kinds of parallelism, environment variables and graphs go together."""
    frame = (PLATFORM, 150, "check_and_update_config")
    dp, pcp = args.data_parallel_size, args.prefill_context_parallel_size
    if dp > 1 and pcp > 1 and not RELEASE.context_with_data:
        raise StartupFailure(
            "ValueError",
            "PCP (Prefill Context Parallelism) and DP (Data Parallelism) cannot be enabled simultaneously in "
            f"the current version of vLLM Ascend. Got data_parallel_size={dp} and "
            f"prefill_context_parallel_size={pcp}. Please set either --data-parallel-size 1 or "
            "--prefill-context-parallel-size 1.",
            frame=(PLATFORM, 351, "_validate_parallel_config"),
        )
    if os.environ.get("VLLM_ASCEND_ENABLE_FLASHCOMM1", "0") == "1":
        _check_flash_comm(args, model, graphs)
    if graphs.mode != "NONE" and os.environ.get("ASCEND_LAUNCH_BLOCKING", "0") == "1":
        raise StartupFailure(
            "ValueError",
            "ACL graph is incompatible with ASCEND_LAUNCH_BLOCKING=1. Please unset "
            "ASCEND_LAUNCH_BLOCKING or set it "
            "to 0.",
            frame=frame,
        )


def _check_flash_comm(args: argparse.Namespace, model: Model, graphs: Graphs) -> None:
    """What flash comm 1 needs."""
    where = ("/vllm-workspace/vllm-ascend/vllm_ascend/utils.py", 780, "enable_sp")
    tp = args.tensor_parallel_size
    assert_that(tp != 1, f"{RELEASE.flash_comm} is only supported when tp_size > 1.", where)
    assert_that(
        not model.is_moe or args.enable_expert_parallel,
        f"{RELEASE.flash_comm} requires enable_expert_parallel=True for MoE models.",
        where,
    )
    assert_that(
        args.enforce_eager or any(size % tp == 0 for size in graphs.sizes),
        f"cudagraph_capture_sizes {graphs.sizes} does not containvalues that are multiples of tp_size {tp}",
        (PLATFORM, 150, "check_and_update_config"),
    )


def check_recompute(args: argparse.Namespace, kv: KvTransfer | None) -> None:
    """Whom --additional-config may give the recompute scheduler."""
    given = args.additional_config if isinstance(args.additional_config, dict) else {}
    role = None if kv is None else kv.role
    if not given.get("recompute_scheduler_enable") or RELEASE.recompute == "all":
        return
    frame = (PLATFORM, 461, "check_and_update_config")
    if RELEASE.recompute == "pd" and role in (None, "kv_both"):
        raise StartupFailure(
            "ValueError",
            "recompute_scheduler_enable can only be enabled in PD-disaggregated mode "
            "(kv_role='kv_producer' or 'kv_consumer'), and is not supported in PD-mixed mode.",
            frame=frame,
        )
    if RELEASE.recompute == "decoders" and role not in ("kv_producer", "kv_consumer"):
        raise StartupFailure(
            "ValueError",
            "recompute_scheduler_enable can only be enabled on PD-disaggregated D nodes "
            f"(kv_role='kv_consumer', but got kv_role={role!r}), and is not supported in PD-mixed mode.",
            frame=frame,
        )


def check_blocks(args: argparse.Namespace, kv: KvTransfer | None, block_size: int) -> None:
    """With context parallel a block that is handed over must hold one part of the context."""
    interleave = args.cp_kv_cache_interleave_size
    split = args.decode_context_parallel_size * args.prefill_context_parallel_size > 1
    assert_that(
        kv is None or block_size == interleave or not split,
        f"cp_kv_cache_interleave_size({interleave}) and block_size({block_size}) needs to be equal if "
        "use pcp or dcp "
        "> 1 in P/D disaggregate and kv pool scenario.",
        (PLATFORM, 350, "check_and_update_config"),
    )
