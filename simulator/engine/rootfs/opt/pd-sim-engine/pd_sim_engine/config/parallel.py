"""ParallelConfig: ranks, and which of them fall to this process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from .failure import ARG_UTILS, assert_that, invalid

FRAME = (ARG_UTILS, 1412, "create_engine_config")
RPC_PORT = 29550
"""ParallelConfig.data_parallel_rpc_port."""
EXECUTOR = "/vllm-workspace/vllm-ascend/vllm_ascend/patch/platform/patch_multiproc_executor.py"


@dataclass(frozen=True)
class DataParallel:
    """The data-parallel ranks of this process."""

    local: int
    """How many there are."""
    rank: int
    """The first of them."""
    mode: str
    """internal: rank 0's API serves all ranks; external: every rank has its own; hybrid: every node has."""


def data_parallel(args: argparse.Namespace) -> DataParallel:
    """The ranks of this process. Raises StartupFailure where the options contradict each other."""
    dp = args.data_parallel_size
    assert_that(
        not (args.data_parallel_hybrid_lb and args.data_parallel_external_lb),
        "data_parallel_hybrid_lb and data_parallel_external_lb cannot both be True.",
        FRAME,
    )
    local, rank, inferred = _of_node(args)
    if args.data_parallel_external_lb or rank is not None:
        found = _external(local, rank)
    else:
        found = _internal_or_hybrid(args, local, inferred)
    if found.local > dp:
        raise invalid(
            "ParallelConfig",
            f"data_parallel_size_local ({found.local}) must be <= data_parallel_size ({dp})",
            FRAME,
        )
    if dp > 1 and found.rank >= dp:
        raise invalid(
            "ParallelConfig", f"data_parallel_rank ({found.rank}) must be in the range [0, {dp})", FRAME
        )
    return found


def _of_node(args: argparse.Namespace) -> tuple[int | None, int | None, int]:
    """(number of local ranks, rank, first rank inferred) as the options and --node-rank give them."""
    local, rank = args.data_parallel_size_local, args.data_parallel_rank
    dp, nnodes = args.data_parallel_size, args.nnodes
    if nnodes == 1:
        return local, rank, 0
    per_rank = args.pipeline_parallel_size * args.tensor_parallel_size
    counted = dp * per_rank
    assert_that(counted % nnodes == 0, f"world_size={counted} must be divisible by nnodes={nnodes}.", FRAME)
    assert_that(
        args.node_rank < nnodes, f"node_rank={args.node_rank} must be less than nnodes={nnodes}.", FRAME
    )
    inferred = args.node_rank * (counted // nnodes) // per_rank
    if dp > 1 and args.data_parallel_external_lb:
        rank = inferred
    elif local is None:
        local = max(counted // nnodes // per_rank, 1)
    return local, rank, inferred


def _external(local: int | None, rank: int | None) -> DataParallel:
    """One rank, with an API of its own."""
    assert_that(
        rank is not None,
        "data_parallel_rank or node_rank must be specified if data_parallel_external_lb is enable.",
        FRAME,
    )
    assert_that(
        local in (1, None),
        "data_parallel_size_local must be 1 or None when data_parallel_rank is set",
        FRAME,
    )
    return DataParallel(1, rank or 0, "external")


def _internal_or_hybrid(args: argparse.Namespace, local: int | None, inferred: int) -> DataParallel:
    """Several ranks. A start rank on a node that is not headless means hybrid; with one rank, external."""
    dp, start = args.data_parallel_size, args.data_parallel_start_rank
    hybrid = args.data_parallel_hybrid_lb
    assert_that(
        not hybrid or local is not None,
        "data_parallel_size_local must be set to use data_parallel_hybrid_lb.",
        FRAME,
    )
    mode = "internal"
    if local not in (None, dp) and (hybrid or (start and not args.headless)):
        mode = "external" if local == 1 else "hybrid"
    return DataParallel(dp if local is None else local, start or inferred, mode)


def check_context_parallel(args: argparse.Namespace) -> None:
    """Decode context parallel reuses the ranks of tensor parallel."""
    tp, dcp = args.tensor_parallel_size, args.decode_context_parallel_size
    message = f"tp_size={tp} must be divisible bydcp_size={dcp}."
    assert_that(tp % dcp == 0, message, (ARG_UTILS, 1354, "create_engine_config"))


def check_backend(args: argparse.Namespace) -> None:
    """Which executors can work on several nodes."""
    if args.nnodes > 1 and args.distributed_executor_backend not in (None, "mp", "uni", "external_launcher"):
        raise invalid(
            "ParallelConfig",
            "nnodes > 1 can only be set when distributed executor backend is mp, uni or external_launcher.",
            (ARG_UTILS, 1354, "create_engine_config"),
        )


def check_executor(world_size: int, nnodes: int) -> None:
    """What the executor asserts before it starts workers."""
    assert_that(
        world_size % nnodes == 0,
        f"global world_size ({world_size}) must be divisible by nnodes_within_dp ({nnodes}). ",
        (EXECUTOR, 32, "_init_executor"),
    )
