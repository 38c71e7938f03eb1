"""How many blocks of KV cache fit on a chip."""

from __future__ import annotations

from .config.vllm import EngineConfig
from .log import StartupFailure
from .state import EngineState

GIB = 1 << 30
HBM_BYTES = int(61.28 * GIB)
"""One chip of Atlas A3."""
WEIGHTS_BYTES = 650 * GIB
"""DeepSeek-V3.1 in 8 bits with its MTP layer; experts are split over all chips."""
DENSE_BYTES = 4 * GIB
"""What every chip has in full."""
ACTIVATION_BYTES = 3 * GIB
TEST_MODEL_BYTES = 20 * GIB
"""Left for the cache by a small model, whose weights are not those above."""
CHECK_MEMORY = ("/vllm-workspace/vllm/vllm/v1/core/kv_cache_utils.py", 700, "check_enough_kv_cache_memory")


def weights_per_chip(config: EngineConfig) -> int:
    """Bytes of the weights on each chip."""
    return WEIGHTS_BYTES // (config.world_size * config.dp) + DENSE_BYTES


def _available(config: EngineConfig) -> int:
    """Bytes that the profile run leaves for the cache."""
    if not config.model.is_mla or config.world_size * config.dp < 16:
        return TEST_MODEL_BYTES
    utilized = HBM_BYTES * config.args.gpu_memory_utilization
    return max(int(utilized - weights_per_chip(config) - ACTIVATION_BYTES), 0)


def _block_bytes(config: EngineConfig) -> int:
    """Bytes of one block on each chip, over all layers."""
    layers = int(config.model.config.get("num_hidden_layers", 1)) + 1
    width = 576 if config.model.is_mla else 2 * 128 * max(1, config.model.kv_heads // config.tp)
    return layers * width * 2 * config.block_size


def make_cache(state: EngineState) -> int:
    """The number of blocks. Raises StartupFailure if the longest request does not fit."""
    config = state.config
    available = _available(config)
    for log in state.worker_logs.values():
        log.info("worker.py:308", f"Available memory: {available}, total memory: {HBM_BYTES}")
    num_blocks = int(config.args.num_gpu_blocks_override or available // _block_bytes(config))
    _check_size(config, num_blocks, available)
    if config.has_core:
        _report_size(state, num_blocks)
    return num_blocks


def _tokens(config: EngineConfig, num_blocks: int) -> int:
    return num_blocks * config.block_size * config.cp_size


def _check_size(config: EngineConfig, num_blocks: int, available: int) -> None:
    """Whether the longest request fits."""
    if num_blocks == 0:
        raise StartupFailure(
            "ValueError",
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
            "when initializing "
            "the engine.",
            frame=CHECK_MEMORY,
            stage="core",
        )
    tokens, longest = _tokens(config, num_blocks), config.model.max_model_len
    if tokens < longest:
        needed = longest * _block_bytes(config) / config.block_size / config.cp_size
        raise StartupFailure(
            "ValueError",
            f"To serve at least one request with the models's max seq len ({longest}), "
            f"({needed / GIB:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
            f"({available / GIB:.2f} GiB). Based on the available memory, the estimated maximum model length "
            f"is {tokens}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
            "initializing the engine.",
            frame=CHECK_MEMORY,
            stage="core",
        )


def _report_size(state: EngineState, num_blocks: int) -> None:
    """The lines of the engine core's log."""
    config, log = state.config, state.core_log
    tokens, longest = _tokens(config, num_blocks), config.model.max_model_len
    if config.cp_size > 1:
        log.info(
            "kv_cache_utils.py:1283",
            f"Multiplying the GPU KV cache size by the cp_world_size {config.cp_size} (pcp_world_size "
            f"{config.pcp} * dcp_world_size {config.dcp}).",
        )
    log.info("kv_cache_utils.py:1291", f"GPU KV cache size: {tokens:,} tokens")
    log.info(
        "kv_cache_utils.py:1296",
        f"Maximum concurrency for {longest:,} tokens per request: {tokens / longest:.2f}x",
    )
