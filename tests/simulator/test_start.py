"""What the engine needs, and how it ends without it: as the real one, in message and exit code."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from .harness import COMMON, KV_PORT, Lab, Server, kv_config

ONE = (*COMMON, "--tensor-parallel-size", "2", "--enforce-eager")
PRODUCER = kv_config("kv_producer", KV_PORT, "0", 2, 2)


def remove(path: str) -> Callable[[Server], None]:
    def change(server: Server) -> None:
        (server.root / path).unlink()

    return change


def first_shard(server: Server) -> None:
    next(iter((server.root / "model").glob("*.safetensors"))).write_bytes(b"")


def all_shards(server: Server) -> None:
    for path in (server.root / "model").glob("*.safetensors"):
        path.unlink()


def a2_server(server: Server) -> None:
    server.state(soc="Ascend910B1", timing={"start_seconds": 0.1})


def with_kv(config: str, *words: str) -> tuple[str, ...]:
    return (*ONE, *words, "--kv-transfer-config", config)


@dataclass
class Case:
    """A start that fails: what is changed, and what the log must say."""

    message: str
    words: tuple[str, ...] = ONE
    env: dict[str, str | None] = field(default_factory=dict)
    change: Callable[[Server], None] | None = None


CASES = {
    "CANN's environment is not sourced": Case(
        "ImportError: libatb.so: cannot open shared object file", env={"LD_LIBRARY_PATH": None}
    ),
    "the driver is not mounted": Case(
        "ImportError: libascend_hal.so: cannot open shared object file",
        change=remove("usr/local/Ascend/driver/lib64/libascend_hal.so"),
    ),
    "a manager device is missing": Case("Failed to infer device type", change=remove("dev/hisi_hdc")),
    "too few chips": Case(
        "Set device failed, invalid device, set device=2, valid device range is [0, 2)",
        (*COMMON, "--tensor-parallel-size", "4"),
    ),
    "too few visible chips": Case("set device=1", env={"ASCEND_RT_VISIBLE_DEVICES": "1"}),
    "an A2 server": Case(
        "Current device type: AscendDeviceType.A2 does not match the installed version's device type",
        change=a2_server,
    ),
    "the image for A2": Case(
        "Current device type: AscendDeviceType.A3 does not match the installed version's device type",
        env={"PD_SIM_HARDWARE": "A2"},
    ),
    "no such interface for gloo": Case(
        "Unable to find address for: eth9", env={"GLOO_SOCKET_IFNAME": "eth9"}
    ),
    "no such interface for HCCL": Case(
        "Value [eth9] for environment variable [HCCL_SOCKET_IFNAME] is invalid",
        env={"HCCL_SOCKET_IFNAME": "eth9", "HCCL_IF_IP": None},
    ),
    "HCCL's address is another server's": Case(
        "Value [192.0.2.77] for environment variable [HCCL_IF_IP] is invalid",
        env={"HCCL_IF_IP": "192.0.2.77"},
    ),
    "no config.json": Case(
        "Invalid repository ID or local directory specified: '/model'", change=remove("model/config.json")
    ),
    "no tokenizer": Case("Can't load tokenizer for '/model'", change=remove("model/tokenizer.json")),
    "no description of the quantization": Case(
        "Cannot find the config file for ascend",
        change=remove("model/quant_model_description_w8a8_dynamic.json"),
    ),
    "no shards": Case("Cannot find any model weights with `/model`", change=all_shards),
    "an empty shard": Case("Error while deserializing header: HeaderTooSmall", change=first_shard),
    "a shard is missing, not quantized": Case(
        "Following weights were not initialized from checkpoint",
        ("--tensor-parallel-size", "2"),
        change=remove("model/quant_model_weight-00002-of-00005.safetensors"),
    ),
    "DCP does not divide TP": Case(
        "tp_size=2 must be divisible bydcp_size=3.", (*ONE, "--decode-context-parallel-size", "3")
    ),
    "interleave larger than a block": Case(
        "Block_size(128) should be greater than or equal to and divisible by cp_kv_cache_interleave_size",
        (*ONE, "--decode-context-parallel-size", "2", "--cp-kv-cache-interleave-size", "256"),
    ),
    "interleave is not the block size": Case(
        "cp_kv_cache_interleave_size(1) and block_size(128) needs to be equal if use pcp or dcp > 1",
        with_kv(PRODUCER, "--decode-context-parallel-size", "2"),
    ),
    "nodes do not divide the world": Case(
        "world_size=2 must be divisible by nnodes=3.", (*ONE, "--nnodes", "3")
    ),
    "node rank out of range": Case(
        "node_rank=2 must be less than nnodes=2.", (*ONE, "--nnodes", "2", "--node-rank", "2")
    ),
    "a batch shorter than the model's length": Case(
        "max_num_batched_tokens (1000) is smaller than max_model_len (136000).",
        (
            *ONE,
            "--no-enable-chunked-prefill",
            "--max-num-batched-tokens",
            "1000",
            "--max-model-len",
            "136000",
        ),
    ),
    "more sequences than tokens": Case(
        "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (16).",
        (*ONE, "--max-num-batched-tokens", "8", "--max-num-seqs", "16"),
    ),
    "longer than the model": Case(
        "User-specified max_model_len (200000) is greater than the derived max_model_len",
        (*ONE, "--max-model-len", "200000"),
    ),
    "more local data parallel ranks than there are": Case(
        "data_parallel_size_local (2) must be <= data_parallel_size (1)",
        (*ONE, "--data-parallel-size-local", "2"),
    ),
    "the prefiller's own TP is another": Case(
        "KV transfer 'prefill' config has a conflicting tensor parallel size. Expected 2, but got 4.",
        with_kv(kv_config("kv_producer", KV_PORT, "0", 4, 2)),
    ),
    "the decoder's own TP is another": Case(
        "KV transfer 'decode' config has a conflicting tensor parallel size. Expected 2, but got 1.",
        with_kv(kv_config("kv_consumer", KV_PORT, "0", 2, 1)),
    ),
    "the prefiller is smaller than the decoder": Case(
        "prefill_tp_size: 1 must be greater than or equal to the decode_tp_size: 2",
        with_kv(kv_config("kv_consumer", KV_PORT, "0", 1, 2)),
    ),
    "sizes are missing": Case(
        "AssertionError", with_kv(kv_config("kv_producer", KV_PORT, "0", 2, 2, kv_connector_extra_config={}))
    ),
    "an unknown connector": Case(
        "Unsupported connector type: NoSuch",
        with_kv(kv_config("kv_producer", KV_PORT, "0", 2, 2, kv_connector="NoSuch")),
    ),
    "flash comm on one chip": Case(
        "Flash Comm v1 (Sequence Parallelism) is only supported when tp_size > 1.",
        COMMON,
        {"VLLM_ASCEND_ENABLE_FLASHCOMM1": "1"},
    ),
    "graphs and blocking launches": Case(
        "ACL graph is incompatible with ASCEND_LAUNCH_BLOCKING=1.",
        (*COMMON, "--tensor-parallel-size", "2"),
        {"ASCEND_LAUNCH_BLOCKING": "1"},
    ),
    "the handshake address is another server's": Case(
        "KV Cache sending/receiving thread failed to start.",
        with_kv(PRODUCER),
        {"VLLM_HOST_IP": "192.0.2.77"},
    ),
    "the fault engine_oom": Case("NPU out of memory.", change=lambda server: server.fault("engine_oom")),
    "the fault engine_crash_start": Case(
        "RuntimeError: broken on purpose",
        change=lambda server: server.fault("engine_crash_start", message="broken on purpose", after=0.05),
    ),
}
AT_ONCE = 6


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """(exit code, log) of every case, a few at a time."""
    lab = Lab(tmp_path_factory.mktemp("start"))
    found: dict[str, tuple[int, str]] = {}
    running = []
    try:
        for number, (name, case) in enumerate(CASES.items()):
            server = lab.server(f"server{number}", chips=2)
            if case.change:
                case.change(server)
            running.append((name, lab.start(server, *case.words, env=case.env)))
            if len(running) == AT_ONCE:
                first, engine = running.pop(0)
                found[first] = (engine.ends(), engine.log)
        for first, engine in running:
            found[first] = (engine.ends(), engine.log)
    finally:
        lab.close()
    return found


@pytest.mark.parametrize("name", CASES)
def test_fails_as_the_real_one(results: dict[str, tuple[int, str]], name: str) -> None:
    code, log = results[name]
    assert CASES[name].message in log
    assert "Traceback (most recent call last):" in log
    assert code == 1, log[-2000:]


def test_traceback_of_a_worker_reaches_the_api_server(results: dict[str, tuple[int, str]]) -> None:
    _, log = results["no shards"]
    assert "WorkerProc failed to start." in log
    assert "EngineCore failed to start." in log
    assert log.rstrip().endswith(
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    )


def test_handshake_port_is_taken(lab: Lab) -> None:
    address = f"{lab.prefix}.1"
    with socket.socket() as other:
        other.bind((address, KV_PORT + 1))
        other.listen()
        engine = lab.start(lab.server("server", chips=2), *with_kv(PRODUCER), address=address)
        assert engine.ends() == 1
    path = f"tcp://{address}:{KV_PORT + 1}"
    assert f"zmq.error.ZMQError: Address already in use (addr='{path}')" in engine.log
    assert "RuntimeError: KV Cache sending/receiving thread failed to start." in engine.log


def test_api_port_is_taken(lab: Lab) -> None:
    address = f"{lab.prefix}.1"
    with socket.socket() as other:
        other.bind((address, 8004))
        other.listen()
        engine = lab.start(lab.server("server", chips=2), *ONE, address=address)
        assert engine.ends() == 1
    assert "OSError: [Errno 98] Address already in use" in engine.log


def test_log_of_a_start(lab: Lab) -> None:
    """The lines that tell how far a start is, in their order."""
    words = (*COMMON, "--tensor-parallel-size", "2", "--compilation-config")
    sizes = '{"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4]}'
    engine = lab.start(lab.server("server", chips=2), *words, sizes).ready()
    log = engine.log
    steps = [
        "vLLM API server version 0.13.0",
        "non-default args: {",
        "Initializing a V1 LLM engine (v0.13.0)",
        "rank 0 in world size 2 is assigned as DP rank 0",
        "Starting to load model /model...",
        "Loading safetensors checkpoint shards:   0% Completed | 0/5",
        "Loading safetensors checkpoint shards: 100% Completed | 5/5",
        "Loading weights took",
        "GPU KV cache size:",
        "Capturing CUDA graphs (decode, FULL): 100%|██████████| 3/3",
        "Graph capturing finished in",
        "init engine (profile, create kv cache, warmup model) took",
        "INFO:     Waiting for application startup.",
        "INFO:     Application startup complete.",
    ]
    positions = [log.index(step) for step in steps]
    assert positions == sorted(positions)
