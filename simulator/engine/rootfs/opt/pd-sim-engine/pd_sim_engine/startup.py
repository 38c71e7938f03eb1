"""Steps of an engine's start-up that only wait and report: ranks, weights, graphs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from . import VLLM_VERSION, checks
from .kv_cache import GIB, weights_per_chip
from .log import StartupFailure
from .state import EngineState

PROGRESS_SECONDS = 0.1
"""tqdm's mininterval."""
WORKER = "/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py"


def report_config(state: EngineState) -> None:
    """The engine core's first line."""
    config = state.config
    state.core_log.info(
        "core.py:93",
        f"Initializing a V1 LLM engine (v{VLLM_VERSION}) with config: model='{config.model.path}', "
        f"dtype=torch.{config.model.dtype}, max_seq_len={config.model.max_model_len}, "
        f"tensor_parallel_size={config.tp}, pipeline_parallel_size={config.pp}, "
        f"data_parallel_size={config.dp}, quantization={config.args.quantization}, "
        f"enforce_eager={config.enforce_eager}, served_model_name={config.served_names[0]}, "
        f"cudagraph_mode={config.cudagraph_mode}",
    )


def report_workers(state: EngineState) -> None:
    """Each worker's line before the workers find each other."""
    args = state.config.args
    if state.config.nnodes > 1:
        method = f"tcp://{args.master_addr}:{args.master_port}"
    else:
        method = f"tcp://{state.config.dp_address if state.config.dp_remote else '127.0.0.1'}:39001"
    for (dp_rank, rank), log in state.worker_logs.items():
        log.info(
            "parallel_state.py:1203",
            f"world_size={state.config.world_size * state.config.dp} "
            f"rank={dp_rank * state.config.world_size + rank} "
            f"local_rank={rank - state.config.local_ranks.start} distributed_init_method={method} "
            "backend=hccl",
        )


def report_ranks(state: EngineState) -> None:
    """Each worker's line when they have found each other."""
    config = state.config
    for (dp_rank, rank), log in state.worker_logs.items():
        pp_rank, pcp_rank, tp_rank = config.coordinates(rank)
        log.info(
            "parallel_state.py:1411",
            f"rank {rank} in world size {config.world_size * config.dp} is assigned as DP rank {dp_rank}, "
            f"PP rank {pp_rank}, PCP rank {pcp_rank}, TP rank {tp_rank}, "
            f"EP rank {dp_rank * config.world_size + rank}",
        )


async def crash_later(state: EngineState, crash: dict[str, Any]) -> None:
    """The fault engine_crash_start: an error in the midst of the start-up."""
    default = state.timing.load_seconds / 2
    await asyncio.sleep(float(crash.get("after", default)))
    message = str(
        crash.get("message")
        or "The Inner error is reported as above. The process exits for this inner error."
    )
    state.fail(
        StartupFailure("RuntimeError", message, stage="worker", frame=(checks.LOADER[0], 300, "load_weights"))
    )


async def load_weights(state: EngineState) -> None:
    """Load the weights, as long as it takes. Raises StartupFailure if they are not as they should be."""
    config = state.config
    for worker in state.worker_logs.values():
        worker.info("model_runner_v1.py:2378", f"Starting to load model {config.model.path}...")
    files = checks.check_weights(config)
    state.spoiled_weights = bool(checks.missing_shards(config.model.directory))
    await _load_shards(state, files)
    gigabytes = weights_per_chip(config) / GIB
    for worker in state.worker_logs.values():
        worker.info("model_runner_v1.py:2395", f"Loading model weights took {gigabytes:.4f} GB")
    if state.fault("engine_oom") is not None:
        raise StartupFailure(
            "RuntimeError",
            "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 61.28 GiB total capacity; 58.02 GiB "
            "already allocated; 58.02 GiB current active; 1.10 GiB free; 58.31 GiB reserved in total by "
            "PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
            "fragmentation.",
            frame=(WORKER, 275, "determine_available_memory"),
            stage="worker",
        )


async def _load_shards(state: EngineState, files: list[Path]) -> None:
    """One file after the other, with the loader's progress in the log."""
    log, shows = state.first_log, state.config.has_core
    stuck = state.fault("engine_hang")
    factor, extra = state.slowness()
    seconds = state.timing.load_seconds * factor + extra
    begun = shown = time.monotonic()
    description = "Loading safetensors checkpoint shards"
    if shows:
        log.progress(description, 0, len(files), 0.0)
    for number, path in enumerate(files, 1):
        checks.check_shard(path)
        ahead = begun + seconds * number / len(files) - time.monotonic()
        if ahead > 0.005:
            await asyncio.sleep(ahead)
        if stuck is not None and stuck.get("at") == "load" and number > len(files) // 2:
            await asyncio.Event().wait()
        now = time.monotonic()
        if shows and (now - shown >= PROGRESS_SECONDS or number == len(files)):
            log.progress(description, number, len(files), now - begun)
            shown = now
    if shows:
        took = time.monotonic() - begun
        log.info("default_loader.py:308", f"Loading weights took {took:.2f} seconds")


async def capture_graphs(state: EngineState) -> None:
    """Capture the graphs, with a bar in the log."""
    config = state.config
    if config.enforce_eager or not config.capture_sizes:
        return
    shows = config.has_core
    name = "decode, FULL" if config.cudagraph_mode.startswith("FULL") else "mixed prefill-decode, PIECEWISE"
    factor, _ = state.slowness()
    step = state.timing.capture_seconds * factor / len(config.capture_sizes)
    begun = time.monotonic()
    for number in range(len(config.capture_sizes) + 1):
        if number:
            await asyncio.sleep(step)
        if shows:
            state.first_log.bar(
                f"Capturing CUDA graphs ({name})",
                number,
                len(config.capture_sizes),
                time.monotonic() - begun,
            )
    if shows:
        took = time.monotonic() - begun
        state.first_log.info(
            "gpu_model_runner.py:4587", f"Graph capturing finished in {took:.0f} secs, took 0.52 GiB"
        )
