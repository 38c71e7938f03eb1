"""Data-parallel ranks on several nodes: how they meet, share the requests, and fall together."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from typing import Any

import pytest

from .harness import COMMON, KV_PORT, QUESTION, TIMING, Lab, Running, free_port, kv_config

RIGHT = " Paris, and has been for a long time."
SIZES = {"prefill": {"dp_size": 4, "tp_size": 2}, "decode": {"dp_size": 2, "tp_size": 1}}


def words(lab: Lab, port: int, *more: str, dp: int = 4, tp: int = 2, place: int = 10) -> list[str]:
    """What all nodes of an instance have in common; its first has the address `place` + 1."""
    given = [*COMMON, "--enforce-eager", "--tensor-parallel-size", str(tp), "--data-parallel-size", str(dp)]
    given += ["--data-parallel-address", f"{lab.prefix}.{place + 1}"]
    given += ["--data-parallel-rpc-port", str(port)]
    return [*given, *more]


def producer(**changes: Any) -> tuple[str, str]:
    config = kv_config("kv_producer", KV_PORT, "0", 2, 1, kv_connector_extra_config=SIZES, **changes)
    return "--kv-transfer-config", config


def internal(
    lab: Lab,
    node: int,
    port: int,
    *more: str,
    scale: float = 1.0,
    start: int | None = None,
    release: str = "v0.13.0",
    headless: bool = True,
    env: dict[str, str | None] | None = None,
) -> Running:
    """One of two nodes with two ranks each; the second is headless unless `more` says otherwise."""
    server = lab.server(f"node{node}-{lab.count}", chips=4)
    server.state(timing=TIMING | {"hccl_connect_timeout_scale": scale})
    first = 2 * node if start is None else start
    given = ["--data-parallel-size-local", "2", "--data-parallel-start-rank", str(first), *more]
    given += ["--headless"] if node and headless else []
    return lab.start(
        server,
        *words(lab, port, *given),
        address=f"{lab.prefix}.{11 + node}",
        env={"PD_SIM_RELEASE": release, **(env or {})},
    )


def external(
    lab: Lab,
    rank: int,
    port: int,
    *more: str,
    place: int = 10,
    scale: float = 1.0,
    env: dict[str, str | None] | None = None,
) -> Running:
    """One of two ranks of one chip, with an API server of its own; rank 0's address is `place` + 1."""
    server = lab.server(f"rank{rank}-{lab.count}", chips=2)
    server.state(timing=TIMING | {"hccl_connect_timeout_scale": scale})
    given = words(lab, port, "--data-parallel-rank", str(rank), *more, dp=2, tp=1, place=place)
    return lab.start(
        server,
        *given,
        address=f"{lab.prefix}.{place + 1 + rank}",
        env={"ASCEND_RT_VISIBLE_DEVICES": str(rank), **(env or {})},
    )


def params(engine: Running, request_id: str) -> dict[str, Any]:
    answer = engine.complete(
        QUESTION,
        request_id=request_id,
        max_tokens=1,
        kv_transfer_params={"do_remote_decode": True, "do_remote_prefill": False},
    )
    found: dict[str, Any] = answer["kv_transfer_params"]
    return found


def ask_all(head: Running, count: int) -> list[str]:
    """Answers of requests without KV transfer."""
    return [head.complete(request_id=f"a{number}")["choices"][0]["text"] for number in range(count)]


def front(lab: Lab, port: int, *more: str) -> tuple[Running, Running]:
    """(head, worker), ready. The head's calls to its workers time out after 3 s, everything else late."""
    worker = internal(lab, 1, port, *more)
    worker.wait_for("Launching 2 data parallel engine(s)")
    head = internal(lab, 0, port, *more, scale=0.01, env={"HCCL_CONNECT_TIMEOUT": "60000"})
    return head.ready(), worker


@pytest.mark.parametrize("release", ["v0.13.0", "v0.18.0", "v0.23.0"])
def test_internal_serves_all_ranks_of_all_nodes(lab: Lab, release: str) -> None:
    port = free_port()
    worker, head = (internal(lab, node, port, *producer(), release=release) for node in (1, 0))
    head.ready()
    given = [params(head, f"r{number}") for number in range(8)]
    assert [one["remote_port"] for one in given] == [KV_PORT + 2 * rank for rank in range(4)] * 2
    assert [one["remote_host"] for one in given[:4]] == [head.address] * 2 + [worker.address] * 2
    assert [one["remote_engine_id"][-4:] for one in given[:4]] == ["_dp0", "_dp1", "_dp0", "_dp1"]
    for rank in range(4):
        assert head.metric("vllm:request_success_total", engine=str(rank), finished_reason="length") == 2
    with socket.socket() as probe:
        assert probe.connect_ex((worker.address, worker.port)) != 0
    assert "Launching 2 data parallel engine(s) in headless mode, with head node address tcp://" in worker.log
    assert head.log.count("Application startup complete.") == (1 if release == "v0.13.0" else 2)


def test_blocks_go_from_every_rank_to_every_rank(lab: Lab) -> None:
    """Prefill DP 4 × TP 2, two ranks of it headless; decode DP 2 with an API for each rank."""
    port, decode_port = free_port(), free_port()
    _, head = (internal(lab, node, port, *producer()) for node in (1, 0))
    consumer = kv_config("kv_consumer", KV_PORT + 100, "1", 2, 1, kv_connector_extra_config=SIZES)
    decoders = [
        external(lab, rank, decode_port, "--kv-transfer-config", consumer, place=20) for rank in (1, 0)
    ]
    for engine in (head, *decoders):
        engine.ready()
    for number in range(8):
        request = f"r{number}"
        kv = params(head, request)
        answer = decoders[number // 4].complete(request_id=request, kv_transfer_params=kv)
        assert answer["choices"][0]["text"] == RIGHT, (number, kv, decoders[number // 4].log[-3000:])
    until = time.monotonic() + 30
    while head.metric("vllm:kv_cache_usage_perc") and time.monotonic() < until:
        # Each rank sees it at its own next request.
        ask_all(head, 4)
    assert head.metric("vllm:kv_cache_usage_perc") == 0, "freed on headless ranks too"


def test_a_request_left_in_the_middle_ends_on_a_headless_rank(lab: Lab) -> None:
    port = free_port()
    _, head = (internal(lab, node, port) for node in (1, 0))
    head.ready()
    body = {"model": "deepseek_v3", "prompt": QUESTION, "max_tokens": 100000, "ignore_eos": True}
    text = json.dumps({**body, "stream": True}).encode()
    for _ in range(4):
        with socket.create_connection((head.address, head.port)) as client:
            request = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
            client.sendall(request.encode() + text)
            got = b""
            # Until a token has come: the head then knows that the request runs, on whatever rank.
            while b"data: " not in got:
                piece = client.recv(4096)
                assert piece, got
                got += piece
            assert b"200 OK" in got
    until = time.monotonic() + 30
    while head.metric("vllm:num_requests_running") and time.monotonic() < until:
        time.sleep(0.05)
    assert head.metric("vllm:num_requests_running") == 0
    assert ask_all(head, 4) == [RIGHT] * 4


def test_head_waits_for_the_other_node_and_counts_who_came(lab: Lab) -> None:
    """PyTorch's half hour, scaled."""
    head = internal(lab, 0, free_port(), scale=0.001)
    assert head.ends() == 1
    assert "DistStoreError: Timed out after 2 seconds waiting for clients. 2/4 clients joined." in head.log
    assert "EngineCore failed to start." in head.log
    assert "Engine core initialization failed. See root cause above." in head.log


def test_headless_node_gives_up_and_calls_it_no_error(lab: Lab) -> None:
    """Five minutes, scaled. The engine cores end, and the process that started them ends with 0."""
    worker = internal(lab, 1, free_port(), scale=0.005)
    assert worker.ends() == 0
    assert "RuntimeError: Did not receive response from front-end process within 5 minutes" in worker.log
    assert worker.log.rstrip().endswith("Shutting down.")


def test_external_rank_without_rank_0(lab: Lab) -> None:
    engine = external(lab, 1, free_port(), scale=0.005)
    assert engine.ends() == 1
    assert "RuntimeError: Did not receive response from front-end process within 5 minutes" in engine.log
    assert "Engine core initialization failed. See root cause above." in engine.log


def test_rpc_port_is_taken(lab: Lab) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind((f"{lab.prefix}.11", port))
        other.listen()
        head = internal(lab, 0, port)
        assert head.ends() == 1
    assert f"zmq.error.ZMQError: Address already in use (addr='tcp://{lab.prefix}.11:{port}')" in head.log
    assert "EngineCore" not in head.log


def test_address_must_be_rank_0s(lab: Lab) -> None:
    server = lab.server("node", chips=2)
    given = [*COMMON, "--enforce-eager", "--data-parallel-size", "2", "--data-parallel-rank", "0"]
    given += ["--data-parallel-address", "192.0.2.77", "--data-parallel-rpc-port", str(free_port())]
    engine = lab.start(server, *given)
    assert engine.ends() == 1
    assert "zmq.error.ZMQError: Cannot assign requested address (addr='tcp://192.0.2.77:" in engine.log


def test_one_servers_ranks_open_no_port(lab: Lab) -> None:
    port = free_port()
    server = lab.server("node", chips=4)
    engine = lab.start(server, *words(lab, port, "--data-parallel-size-local", "4", tp=1)).ready()
    with socket.socket() as probe:
        assert probe.connect_ex((f"{lab.prefix}.11", port)) != 0
    assert ask_all(engine, 4) == [RIGHT] * 4
    assert all(engine.metric("vllm:prompt_tokens_total", engine=str(rank)) for rank in range(4))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rank that rank 0's node has too": (
        {"start": 1},
        "HELLO message from remote engine 1, expected it to be local",
    ),
    "an API of its own": (
        {"headless": False},
        "must use --headless unless in external or hybrid dp lb mode",
    ),
    "another configuration": (
        {"more": ("--decode-context-parallel-size", "2")},
        "Configuration mismatch detected for engine",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_front_end_refuses(lab: Lab, name: str) -> None:
    changes, message = REFUSED[name]
    given = dict(changes)
    port = free_port()
    head = internal(lab, 0, port)
    internal(lab, 1, port, *given.pop("more", ()), **given)
    assert head.ends() == 1
    assert message in head.log
    assert "Application startup complete." not in head.log


def test_a_node_that_starts_again_waits_in_vain(lab: Lab) -> None:
    """The group has formed once: a node that a restart policy brings back is no help to the others."""
    port = free_port()
    server = lab.server("waits", chips=4)
    server.fault("engine_hang", at="load")
    given = ["--data-parallel-size-local", "2", "--data-parallel-start-rank", "2", "--headless"]
    words_of_it = words(lab, port, *given)
    first = lab.start(server, *words_of_it, address=f"{lab.prefix}.12")
    head = internal(lab, 0, port)
    first.wait_for("Starting to load model")
    first.kill()
    second = lab.start(server, *words_of_it, address=f"{lab.prefix}.12")
    second.wait_for("Launching 2 data parallel engine(s)")
    assert head.process.poll() is None
    assert "Starting to load model" not in second.log


def test_node_that_starts_twice_ends_the_start(lab: Lab) -> None:
    """Its restart policy brings the whole instance down: the front end knows each rank once."""
    port = free_port()
    common = words(lab, port, "--data-parallel-size-local", "1", dp=3, tp=1)
    head = lab.start(lab.server("head", chips=1), *common, address=f"{lab.prefix}.11")
    server = lab.server("other", chips=1)
    given = (*common, "--data-parallel-start-rank", "1", "--headless")
    first = lab.start(server, *given, address=f"{lab.prefix}.12")
    first.wait_for("Launching 1 data parallel engine(s)")
    head.wait_for("non-default args")
    # The third node never comes. Rank 1 says hello within its first second, and is known from then on.
    while head.process.poll() is None:
        first.kill()
        first = lab.start(server, *given, address=f"{lab.prefix}.12")
        first.wait_for("Launching 1 data parallel engine(s)")
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.process.wait(timeout=3)
    assert head.ends() == 1
    assert "Unexpected HELLO message for remote engine 1 in CoreEngineState.CONNECTED state." in head.log


def test_node_that_dies_hangs_the_others_then_ends_them(lab: Lab) -> None:
    """VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS, scaled: each forward pass needs all chips of the group."""
    head, worker = front(lab, free_port())
    assert ask_all(head, 4) == [RIGHT] * 4
    worker.kill()
    assert head.request("/health")[0] == 200
    begun = time.monotonic()
    assert head.request("/v1/completions", {"model": "deepseek_v3", "prompt": "x"})[0] == 500
    assert time.monotonic() - begun >= 2
    assert "TimeoutError: RPC call to execute_model timed out." in head.log
    assert head.ends() == 0


def test_core_that_crashes_on_a_headless_node_ends_the_front_end(lab: Lab) -> None:
    """It says so before it goes, and the node's process ends with 0."""
    port = free_port()
    server = lab.server("crashes", chips=4)
    server.fault("engine_crash_after", requests=0)
    given = ["--data-parallel-size-local", "2", "--data-parallel-start-rank", "2", "--headless"]
    worker = lab.start(server, *words(lab, port, *given), address=f"{lab.prefix}.12")
    head = internal(lab, 0, port).ready()
    body = {"model": "deepseek_v3", "prompt": QUESTION}
    assert [head.request("/v1/completions", body)[0] for _ in range(3)] == [200, 200, 500]
    assert worker.ends() == 0
    assert "EngineCore encountered a fatal error." in worker.log
    assert worker.log.rstrip().endswith("Shutting down.")
    assert head.ends() == 0


def test_headless_node_outlives_its_head(lab: Lab) -> None:
    port = free_port()
    worker, head = (internal(lab, node, port) for node in (1, 0))
    head.ready()
    head.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(timeout=1)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends() == 0


def test_external_ranks_wait_for_each_other_and_fall_together(lab: Lab) -> None:
    port = free_port()
    other = external(lab, 1, port)
    other.wait_for("non-default args")
    first = external(lab, 0, port, scale=0.01, env={"HCCL_CONNECT_TIMEOUT": "60000"})
    first.ready()
    other.ready()
    assert [ask_all(engine, 2) for engine in (first, other)] == [[RIGHT] * 2] * 2
    assert first.metric("vllm:prompt_tokens_total", engine="0") == 10
    assert other.metric("vllm:prompt_tokens_total", engine="1") == 10
    other.kill()
    assert first.request("/health")[0] == 200
    assert first.request("/v1/completions", {"model": "deepseek_v3", "prompt": "x"})[0] == 500
    assert "TimeoutError: RPC call to execute_model timed out." in first.log


@pytest.mark.parametrize(
    ("release", "more", "message"),
    [
        ("v0.13.0", ("--api-server-count", "2"), "Timed out waiting for engines to sendinitial message on"),
        ("v0.18.0", (), "Waited 600s (configured by VLLM_ENGINE_READY_TIMEOUT_S)"),
    ],
)
def test_several_api_servers_do_not_wait_for_a_slow_load(
    lab: Lab, release: str, more: tuple[str, ...], message: str
) -> None:
    """Ten minutes, scaled. They give up, and the first process sees it when the engine has started."""
    server = lab.server("slow", chips=2)
    server.state(timing=TIMING | {"hccl_connect_timeout_scale": 0.001, "load_seconds": 2.0})
    engine = lab.start(
        server,
        *words(lab, free_port(), "--data-parallel-size-local", "2", *more, dp=2, tp=1),
        env={"PD_SIM_RELEASE": release},
    )
    assert engine.ends() == 1
    assert message in engine.log
    assert "Loading weights took" in engine.log[engine.log.index("TimeoutError") :]
    assert "RuntimeError: Process ApiServer_0 (PID: " in engine.log


def test_a_single_api_server_waits(lab: Lab) -> None:
    server = lab.server("slow", chips=1)
    server.state(timing=TIMING | {"load_seconds": 2.0})
    environment: dict[str, str | None] = {"PD_SIM_RELEASE": "v0.18.0", "VLLM_ENGINE_READY_TIMEOUT_S": "1"}
    lab.start(server, *COMMON, "--enforce-eager", env=environment).ready()


MODES = {
    "v0.13.0": (("--headless", "--api-server-count", "2"), "api_server_count can't be set in headless mode"),
    "v0.18.0": (
        ("--headless", "--api-server-count", "1"),
        "--api-server-count=1 cannot be used with --headless (no API servers are started in headless mode).",
    ),
    "v0.23.0": (
        ("--data-parallel-rank", "1", "--data-parallel-start-rank", "1"),
        "Cannot use more than one data parallel load balancing mode.",
    ),
}


@pytest.mark.parametrize("release", MODES)
def test_modes_that_exclude_each_other(lab: Lab, release: str) -> None:
    more, message = MODES[release]
    server = lab.server("node", chips=2)
    engine = lab.start(server, *words(lab, free_port(), *more, dp=2, tp=1), env={"PD_SIM_RELEASE": release})
    assert engine.ends() == 1
    assert f"ValueError: {message}" in engine.log
