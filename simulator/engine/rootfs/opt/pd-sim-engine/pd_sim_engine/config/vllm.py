"""VllmConfig: all that the engine goes by."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from .ascend import check_blocks, check_platform, check_recompute
from .cache import check_interleave, check_memory, used_block_size
from .compilation import make_graphs
from .kv_transfer import KvTransfer, make_kv_transfer
from .model import Model, check_attention, read_model
from .parallel import RPC_PORT, check_backend, check_context_parallel, data_parallel
from .scheduler import make_scheduler


@dataclass(frozen=True)
class EngineConfig:
    """All that the engine goes by."""

    args: argparse.Namespace
    model: Model
    served_names: list[str]
    tp: int
    pp: int
    pcp: int
    dcp: int
    dp: int
    dp_local: int
    dp_rank: int
    dp_mode: str
    """internal: rank 0's API serves all ranks; external: every rank has its own; hybrid: every node has."""
    dp_address: str
    dp_rpc_port: int
    nnodes: int
    node_rank: int
    headless: bool
    block_size: int
    interleave: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enforce_eager: bool
    capture_sizes: list[int]
    cudagraph_mode: str
    kv: KvTransfer | None

    @property
    def world_size(self) -> int:
        """Chips of one data parallel rank, over all its nodes."""
        return self.tp * self.pp * self.pcp

    @property
    def local_world_size(self) -> int:
        """Chips of one data parallel rank on this node."""
        return self.world_size // self.nnodes

    @property
    def local_ranks(self) -> range:
        """Global ranks of this node within its data parallel rank."""
        first = self.node_rank * self.local_world_size
        return range(first, first + self.local_world_size)

    @property
    def dp_ranks(self) -> range:
        """Data-parallel ranks of this process."""
        return range(self.dp_rank, self.dp_rank + (self.dp_local if self.nnodes == 1 else 1))

    @property
    def has_core(self) -> bool:
        """Whether an engine core runs here: not on the further nodes of one data-parallel rank."""
        return not self.headless or self.nnodes == 1

    @property
    def dp_remote(self) -> bool:
        """Whether other processes hold data-parallel ranks too."""
        return self.nnodes == 1 and self.dp > 1 and len(self.dp_ranks) < self.dp

    @property
    def served_ranks(self) -> range:
        """Data-parallel ranks that this process's API serves."""
        return range(self.dp) if self.dp_mode == "internal" and self.nnodes == 1 else self.dp_ranks

    @property
    def chips(self) -> int:
        return self.local_world_size * len(self.dp_ranks)

    @property
    def role(self) -> str | None:
        if self.kv is None:
            return None
        return "prefiller" if self.kv.role == "kv_producer" else "decoder"

    @property
    def cp_size(self) -> int:
        return self.pcp * self.dcp

    def rank_names(self, rank: int, dp_rank: int) -> str:
        """The worker's name in the log: every dimension larger than 1."""
        name = "Worker"
        pp_rank, pcp_rank, tp_rank = self.coordinates(rank)
        if self.dp > 1:
            name += f"_DP{dp_rank}"
        if self.pp > 1:
            name += f"_PP{pp_rank}"
        if self.pcp > 1:
            name += f"_PCP{pcp_rank}"
        if self.tp > 1:
            name += f"_TP{tp_rank}"
        if self.dcp > 1:
            name += f"_DCP{tp_rank % self.dcp}"
        if self.args.enable_expert_parallel:
            name += f"_EP{dp_rank * self.world_size + rank}"
        return name

    def coordinates(self, rank: int) -> tuple[int, int, int]:
        """(pp_rank, pcp_rank, tp_rank): TP runs fastest, then PCP, then PP."""
        return rank // (self.tp * self.pcp), rank // self.tp % self.pcp, rank % self.tp


def make_config(args: argparse.Namespace) -> EngineConfig:
    """create_engine_config: the configuration, in its order of checks.

    Raises StartupFailure with what the real engine ends with.
    """
    model = read_model(args)
    check_context_parallel(args)
    check_memory(args)
    ranks = data_parallel(args)
    check_backend(args)
    check_attention(args, model)
    scheduler = make_scheduler(args, model)
    check_interleave(args)
    graphs = make_graphs(args, scheduler.max_num_seqs)
    kv = make_kv_transfer(args)
    check_platform(args, model, graphs)
    check_recompute(args, kv)
    block_size = used_block_size(args, model, chunked=scheduler.chunked)
    check_blocks(args, kv, block_size)
    return EngineConfig(
        args=args,
        model=model,
        served_names=args.served_model_name or [model.path],
        tp=args.tensor_parallel_size,
        pp=args.pipeline_parallel_size,
        pcp=args.prefill_context_parallel_size,
        dcp=args.decode_context_parallel_size,
        dp=args.data_parallel_size,
        dp_local=ranks.local,
        dp_rank=ranks.rank,
        dp_mode=ranks.mode,
        dp_address=args.data_parallel_address or args.master_addr or "127.0.0.1",
        dp_rpc_port=RPC_PORT if args.data_parallel_rpc_port is None else args.data_parallel_rpc_port,
        nnodes=args.nnodes,
        node_rank=args.node_rank,
        headless=args.headless,
        block_size=block_size,
        interleave=args.cp_kv_cache_interleave_size,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        enforce_eager=args.enforce_eager,
        capture_sizes=graphs.sizes,
        cudagraph_mode=graphs.mode,
        kv=kv,
    )
