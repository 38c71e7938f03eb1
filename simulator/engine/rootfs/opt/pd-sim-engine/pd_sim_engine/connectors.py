"""The workers' half of the KV connector: made before the weights are loaded, registered with the cache."""

from __future__ import annotations

from collections.abc import Callable

from . import RELEASE, checks, network
from .config.vllm import EngineConfig
from .handover import RPC_PORTS, ConsumerSide, Producer, TransferEngine, new_engine_id
from .layerwise import Receiver, Sender
from .log import StartupFailure
from .state import EngineState

Engines = dict[tuple[int, int], TransferEngine]
"""By data-parallel rank, and rank within it."""


def check_connector(config: EngineConfig, host: str) -> None:
    """What a worker's connector checks when it is made."""
    kv = config.kv
    if kv is None or not kv.connector.startswith("Mooncake"):
        return
    layerwise = kv.connector == "MooncakeLayerwiseConnector"
    if layerwise and RELEASE.layerwise_tells_sizes:
        if kv.role == "kv_consumer" and config.pcp > 1:
            raise StartupFailure(
                "AssertionError",
                "Prefill context parallel is not support on decoder nodes",
                frame=(RELEASE.source(kv.connector), 804, "__init__"),
                stage="core",
            )
        return
    prefill_tp, _ = kv.size("prefill", "tp_size"), kv.size("prefill", "dp_size")
    decode_tp, _ = kv.size("decode", "tp_size"), kv.size("decode", "dp_size")
    problems = [
        (kv.size("decode", "pp_size", 1) != 1, "AssertionError", "decode pp size must be 1"),
        (
            prefill_tp < decode_tp,
            "ValueError",
            f"prefill_tp_size: {prefill_tp} must be greater than or equal to the decode_tp_size: {decode_tp}",
        ),
        (
            not config.model.is_mla and prefill_tp % decode_tp != 0,
            "AssertionError",
            "Prefill TP size must be divisible by Decode TP size.",
        ),
        (config.pp > 1 and config.pcp > 1, "AssertionError", "pp and pcp cannot open in same time"),
        (
            ":" in host,
            "RuntimeError",
            "The backend of mooncake's Ascend Direct Xfer Library currently does not support IPv6.",
        ),
    ]
    for broken, kind, message in problems:
        if broken:
            raise StartupFailure(
                kind, message, frame=(RELEASE.source(kv.connector), 1125, "__init__"), stage="worker"
            )


def make_transfer_engines(state: EngineState) -> Engines:
    """Mooncake's transfer engine of each chip; none without a connector."""
    config = state.config
    if config.kv is None:
        return {}
    check_connector(config, network.get_ip())
    suffix = state.fault("engine_id_suffix")
    state.engine_id = new_engine_id(
        config.kv.engine_id, suffix=suffix is None or bool(suffix.get("enabled", False))
    )
    chips = checks.visible_chips()
    pinned = state.fault("engine_te_port")
    first = None if pinned is None else int(pinned.get("first", RPC_PORTS[0]))
    return {
        place: TransferEngine(chips[number % len(chips)], None if first is None else first + number)
        for number, place in enumerate(state.worker_logs)
    }


async def register(
    state: EngineState, engines: Engines, num_blocks: int, on_freed: Callable[[int, int, str], None]
) -> None:
    """Register the KV cache with the connector: the producer begins to listen, the consumer only gets
    ready."""
    config = state.config
    if config.kv is None:
        return
    for log in state.worker_logs.values():
        log.info(
            "mooncake_connector.py:1246",
            f"Registering KV_Caches. use_mla: {config.model.is_mla}, use_sparse: False, shape "
            f"torch.Size([{num_blocks}, {config.block_size}, 1, 512])",
        )
    host = network.get_ip()
    mine = {str(rank): {"host": host, "engine_id": state.engine_id} for rank in config.local_ranks}
    state.nodes.update(mine)
    if config.kv.role == "kv_producer" and config.kv.connector == "MooncakeConnectorV1":
        state.producer = Producer(config, state.engine_id_of, num_blocks, on_freed, state.peers)
        for (dp_rank, rank), log in state.worker_logs.items():
            await state.producer.add_chip(dp_rank, rank, log, engines[dp_rank, rank]).start(host)
    elif config.kv.connector == "MooncakeLayerwiseConnector":
        await _register_layerwise(state, engines)
    elif config.kv.connector.startswith("Mooncake"):
        _make_consumers(state)
    if config.node_rank > 0:
        state.links[0].send({"chips": mine, "hccn": checks.has_hccn_conf(), "spoiled": state.spoiled_weights})
    if config.has_core:
        for dp_rank, log in state.core_logs.items():
            log.info(
                "mooncake_connector.py:917",
                f"Initializing Mooncake Scheduler {state.engine_id_of(dp_rank)}",
            )


def _make_consumers(state: EngineState) -> None:
    """One for each data-parallel rank."""
    for dp_rank in state.dp_ranks:
        logs = [log for (rank, _), log in state.worker_logs.items() if rank == dp_rank]
        state.consumers[dp_rank] = ConsumerSide(
            state.config, state.engine_id_of(dp_rank), dp_rank, logs, state.is_sound, state.peers
        )


async def _register_layerwise(state: EngineState, engines: Engines) -> None:
    """With MooncakeLayerwiseConnector the consumer listens."""
    config = state.config
    assert config.kv is not None
    if config.kv.role == "kv_producer":
        state.sender = Sender(config, state.worker_logs, state.engine_id_of, state.peers)
        return
    for dp_rank, core_log in state.core_logs.items():
        state.receivers[dp_rank] = Receiver(
            config, dp_rank, state.engine_id_of(dp_rank), core_log, state.peers
        )
    for (dp_rank, rank), log in state.worker_logs.items():
        await state.receivers[dp_rank].listen(rank, log, engines[dp_rank, rank])
