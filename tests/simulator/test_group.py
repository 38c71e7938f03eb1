"""How the nodes of an instance find each other, wait, and give up."""

from __future__ import annotations

import socket
import time

import pytest

from .harness import COMMON, KV_PORT, TIMING, Lab, Running, free_port, kv_config, start_pair


def node(
    lab: Lab, rank: int, port: int, *, env: dict[str, str | None] | None = None, scale: float = 1.0
) -> Running:
    """One of two nodes of a prefiller with TP 2 × PCP 2; `scale` shortens its time-outs."""
    server = lab.server(f"node{rank}", chips=2)
    server.state(timing=TIMING | {"hccl_connect_timeout_scale": scale})
    words = [*COMMON, "--tensor-parallel-size", "2", "--prefill-context-parallel-size", "2"]
    words += [
        "--cp-kv-cache-interleave-size",
        "128",
        "--enforce-eager",
        "--nnodes",
        "2",
        "--node-rank",
        str(rank),
    ]
    words += ["--master-addr", f"{lab.prefix}.11", "--master-port", str(port)]
    words += ["--kv-transfer-config", kv_config("kv_producer", KV_PORT, str(rank), 2, 2)]
    words += ["--headless"] if rank else []
    return lab.start(server, *words, address=f"{lab.prefix}.{11 + rank}", env=env)


def test_head_waits_and_names_the_missing_rank(lab: Lab) -> None:
    begun = time.monotonic()
    engine = node(lab, 0, free_port(), env={"HCCL_CONNECT_TIMEOUT": "40"}, scale=0.05)
    engine.wait_for("world_size=4 rank=0 local_rank=0 distributed_init_method=tcp://")
    assert engine.ends() == 1
    assert time.monotonic() - begun > 1.5, "40 s, scaled by 0.05"
    assert "is assigned as" not in engine.log
    assert "EI0006: Getting socket times out." in engine.log
    assert "|  ?(2)  |" in engine.log, "rank 2 is the first of the missing node"


def test_other_node_waits_for_its_master(lab: Lab) -> None:
    port = free_port()
    engine = node(lab, 1, port, env={"HCCL_CONNECT_TIMEOUT": "30"}, scale=0.05)
    engine.wait_for("[c10d] The client socket has failed to connect to")
    assert "headless multiproc executor, with head node address" in engine.log
    assert engine.ends() == 1
    assert f"while trying to connect to ({lab.prefix}.11, {port})." in engine.log


def test_order_does_not_matter_and_headless_serves_nothing(lab: Lab) -> None:
    port = free_port()
    worker = node(lab, 1, port)
    worker.wait_for("[c10d] The client socket has failed to connect to")
    head = node(lab, 0, port).ready()
    assert head.request("/health")[0] == 200
    with socket.socket() as probe:
        assert probe.connect_ex((worker.address, worker.port)) != 0
    assert "Worker_PCP1_TP0" in worker.log
    assert "Loading safetensors checkpoint shards" not in worker.log, "only rank 0 shows the bar"


@pytest.mark.parametrize("rank", [0, 1])
def test_master_address_must_be_the_heads(lab: Lab, rank: int) -> None:
    """--master-addr is bound by the head's message queue: another server's address ends it."""
    words = [
        *COMMON,
        "--tensor-parallel-size",
        "2",
        "--enforce-eager",
        "--nnodes",
        "2",
        "--node-rank",
        str(rank),
    ]
    words += [
        "--master-addr",
        "192.0.2.77" if rank == 0 else f"{lab.prefix}.1",
        "--master-port",
        str(free_port()),
    ]
    environment: dict[str, str | None] = {
        "HCCL_CONNECT_TIMEOUT": "1",
        "VLLM_HOST_IP": f"{lab.prefix}.1" if rank == 0 else "192.0.2.77",
    }
    engine = lab.start(lab.server("node", chips=1), *words, env=environment)
    assert engine.ends() == 1
    assert "zmq.error.ZMQError: Cannot assign requested address (addr='tcp://192.0.2.77:" in engine.log


def test_master_port_is_taken(lab: Lab) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        engine = node(lab, 0, other.getsockname()[1])
        assert engine.ends() == 1
    assert "The server socket has failed to listen on any local network address." in engine.log


def test_fault_missing_peer(lab: Lab) -> None:
    port = free_port()
    server = lab.server("node1", chips=2)
    server.fault("engine_missing_peer")
    words = [
        *COMMON,
        "--tensor-parallel-size",
        "2",
        "--prefill-context-parallel-size",
        "2",
        "--enforce-eager",
    ]
    words += ["--nnodes", "2", "--node-rank", "1", "--headless", "--master-addr", f"{lab.prefix}.11"]
    worker = lab.start(server, *words, "--master-port", str(port), address=f"{lab.prefix}.12")
    head = node(lab, 0, port, env={"HCCL_CONNECT_TIMEOUT": "30"}, scale=0.05)
    assert head.ends() == 1
    assert "EI0006" in head.log
    assert worker.process.poll() is None


def test_stop_is_quick_and_the_other_node_stays(lab: Lab) -> None:
    """SIGTERM ends every kind of process at once. A headless node does not notice that its head is gone."""
    pair = start_pair(lab)
    head, worker = pair.nodes
    code, seconds = head.terminate()
    assert (code, seconds < 30) == (0, True)
    assert "Shutting down FastAPI HTTP server." in head.log
    worker.wait_for("Did the remote server shutdown or crash?")
    time.sleep(0.3)
    assert worker.process.poll() is None
    for engine in (worker, pair.decoder):
        code, seconds = engine.terminate()
        assert (code, seconds < 30) == (0, True)


def test_head_without_its_other_node_hangs_then_dies(lab: Lab) -> None:
    """Calls to the workers that are gone time out (300 s, scaled), and the engine dies of it."""

    def prepare(servers: dict[str, object]) -> None:
        for server in servers.values():
            server.state(timing=TIMING | {"hccl_connect_timeout_scale": 0.004})  # type: ignore[attr-defined]

    pair = start_pair(lab, prepare=prepare, env={"HCCL_CONNECT_TIMEOUT": "30000"})
    pair.nodes[1].kill()
    assert pair.prefiller.request("/health")[0] == 200
    body = {"model": "deepseek_v3", "prompt": "x", "max_tokens": 1}
    assert pair.prefiller.request("/v1/completions", body)[0] == 500
    assert "TimeoutError: RPC call to execute_model timed out." in pair.prefiller.log
    assert pair.prefiller.ends() == 0


def test_stop_while_starting(lab: Lab) -> None:
    engine = node(lab, 0, free_port())
    engine.wait_for("distributed_init_method")
    code, seconds = engine.terminate()
    assert (code, seconds < 30) == (130, True)
