"""The HTTP side of one engine, and the faults that show there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .harness import COMMON, ROOTFS, TIMING, Lab, Running, Server, Stream

ONE = (*COMMON, "--tensor-parallel-size", "2", "--enforce-eager", "--max-num-seqs", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Running]]:
    lab = Lab(Path(tmp_path_factory.mktemp("api")))
    server = lab.server("server", chips=2)
    try:
        yield server, lab.start(server, *ONE, "--max-model-len", "1000", env={"VLLM_API_KEY": "k"}).ready()
    finally:
        lab.close()


@pytest.fixture
def engine(place: tuple[Server, Running]) -> Running:
    return place[1]


def chat(engine: Running, question: str, **options: object) -> tuple[int, str]:
    body = {"model": "deepseek_v3", "messages": [{"role": "user", "content": question}], **options}
    return engine.request("/v1/chat/completions", body, key="k")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 12 + 30?", "The answer is 42."),
        ("Hello there", "Hello! How can I help you today?"),
    ],
)
def test_chat(engine: Running, question: str, answer: str) -> None:
    status, text = chat(engine, question)
    assert status == 200
    reply = json.loads(text)
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["content"] == answer
    assert reply["choices"][0]["finish_reason"] == "stop"
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_streamed_chat(engine: Running) -> None:
    status, text = chat(
        engine, "What is the capital of Japan?", stream=True, stream_options={"include_usage": True}
    )
    assert status == 200
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert content == "The capital of Japan is Tokyo."
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_completion_options(engine: Running) -> None:
    def ask(**options: object) -> dict[str, object]:
        body = {"model": "deepseek_v3", "prompt": "The capital of Italy is", **options}
        choice: dict[str, object] = json.loads(engine.request("/v1/completions", body, key="k")[1])[
            "choices"
        ][0]
        return choice

    assert (ask(max_tokens=1)["text"], ask(max_tokens=1)["finish_reason"]) == (" Rome", "length")
    assert ask(stop=",")["text"] == " Rome"
    assert ask(stop=",")["stop_reason"] == ","
    assert ask(echo=True, max_tokens=1)["text"] == "The capital of Italy is Rome"
    assert ask(ignore_eos=True, max_tokens=100)["finish_reason"] == "length"


def test_models_version_ping(engine: Running) -> None:
    models = json.loads(engine.request("/v1/models", key="k")[1])
    assert [(row["id"], row["root"], row["max_model_len"]) for row in models["data"]] == [
        ("deepseek_v3", "/model", 1000)
    ]
    assert json.loads(engine.request("/version")[1]) == {"version": "0.13.0"}
    assert engine.request("/ping")[0] == 200
    assert engine.request("/health")[0] == 200


def test_key(engine: Running) -> None:
    """Only what begins with /v1 asks for the key."""
    assert engine.request("/v1/models") == (401, '{"error":"Unauthorized"}')
    assert engine.request("/v1/models", key="other")[0] == 401
    assert engine.request("/metrics")[0] == 200
    assert "VLLM_API_KEY" not in engine.log


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/completions", {"model": "other", "prompt": "x"}, 404, "The model `other` does not exist."),
        (
            "/v1/completions",
            {"prompt": ""},
            400,
            "Either prompt or prompt_embeds must be provided and non-empty.",
        ),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0}, 400, "max_tokens must be at least 1, got 0."),
        ("/v1/completions", {"prompt": "x " * 1001}, 400, "maximum context length is 1000 tokens"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 5000}, 400, "is too large: 5000"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("/v1/nothing", {}, 404, "Not Found"),
    ],
)
def test_refusals(engine: Running, path: str, body: object, status: int, message: str) -> None:
    found = engine.request(path, body, key="k")
    assert found[0] == status
    assert message in found[1]


def test_metrics_move(engine: Running) -> None:
    before = engine.metric("vllm:generation_tokens_total")
    chat(engine, "What is the capital of Spain?")
    assert engine.metric("vllm:generation_tokens_total") > before
    assert engine.metric("vllm:num_requests_running") == 0
    assert engine.metric("vllm:e2e_request_latency_seconds_count") >= 1


def test_more_requests_than_sequences(engine: Running) -> None:
    """--max-num-seqs at a time; the others wait their turn."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: chat(engine, "hi")[0], range(6)))
    assert answers == [200] * 6


# Who leaves sends a reset while the server writes. Garbage collection would end the stream too, but when?
LEFT = """
import asyncio, gc, socket
from pd_sim_engine.http_server import HttpServer, Response

async def main():
    ended = asyncio.Event()

    async def pieces():
        try:
            while True:
                yield b"piece"
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def answer(request):
        return Response(stream=pieces())

    listener = socket.create_server(("127.0.0.1", 0))
    await HttpServer(answer, lambda line: None).start(listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
    await reader.readuntil(b"piece")
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 30)

gc.disable()
asyncio.run(main())
"""


def test_a_stream_ends_with_its_client() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOTFS / "opt" / "pd-sim-engine"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LEFT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_fault_hang(place: tuple[Server, Running]) -> None:
    """No answer, and healthy."""
    server, engine = place
    server.fault("engine_hang")
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(engine.request, "/v1/completions", {"prompt": "x"}, key="k")
        while engine.metric("vllm:num_requests_running") == 0:
            time.sleep(0.05)
        assert engine.request("/health")[0] == 200
        server.heal()
        assert not stuck.done()
        engine.kill()
        with pytest.raises(OSError):
            stuck.result(timeout=60)


def test_fault_hang_stops_what_runs(lab: Lab) -> None:
    """A stream that has begun gets no token more, and the engine is healthy."""
    server = lab.server("server", chips=2)
    server.state(timing=TIMING | {"token_seconds": 0.02})
    engine = lab.start(server, *ONE).ready()
    with contextlib.closing(Stream(engine, ignore_eos=True, max_tokens=10000)) as stream:
        stream.event()
        server.fault("engine_hang")
        engine.wait_until(stream.is_silent)
        assert engine.request("/health")[0] == 200
        assert engine.metric("vllm:num_requests_running") == 1
        tokens = engine.metric("vllm:generation_tokens_total")
        assert stream.is_silent()
        assert engine.metric("vllm:generation_tokens_total") == tokens


def test_fault_garbage(lab: Lab) -> None:
    """While it is on, streamed or not; the status says nothing of it."""
    server = lab.server("server", chips=2)
    engine = lab.start(server, *ONE).ready()
    right = engine.complete()
    server.fault("engine_garbage")
    wrong = engine.complete()
    assert wrong["choices"][0]["text"] != right["choices"][0]["text"]
    assert wrong["usage"]["completion_tokens"] == 12
    server.fault("engine_garbage", role="decoder", port=1)
    assert engine.complete()["choices"][0]["text"] == right["choices"][0]["text"]
    server.heal()
    assert engine.complete()["choices"][0]["text"] == right["choices"][0]["text"]


def test_fault_empty(lab: Lab) -> None:
    server = lab.server("server", chips=2)
    engine = lab.start(server, *ONE).ready()
    server.fault("engine_empty")
    choice = engine.complete()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    status, text = chat(engine, "hi", stream=True)
    assert (status, text.rstrip().endswith("data: [DONE]")) == (200, True)
    assert "Hello" not in text
    server.heal()
    assert engine.complete()["choices"][0]["text"]


def test_fault_slow_while_it_serves(lab: Lab) -> None:
    server = lab.server("server", chips=2)
    server.state(timing=TIMING | {"token_seconds": 0.01})
    engine = lab.start(server, *ONE).ready()
    with contextlib.closing(Stream(engine, ignore_eos=True, max_tokens=10000)) as stream:
        stream.event()
        server.fault("engine_slow", factor=1000)
        engine.wait_until(stream.is_silent)
        server.heal()
        assert stream.goes_on()


def test_fault_crash_after(lab: Lab) -> None:
    server = lab.server("server", chips=2)
    server.fault("engine_crash_after", requests=1, message="the device is lost")
    engine = lab.start(server, *ONE).ready()
    assert engine.complete()["choices"][0]["text"].startswith(" Paris")
    status, text = engine.request("/v1/completions", {"prompt": "x"})
    assert (status, "EngineCore encountered an issue" in text) == (500, True)
    assert engine.ends() == 0
    assert "RuntimeError: the device is lost" in engine.log


def test_fault_for_another_engine(lab: Lab) -> None:
    server = lab.server("server", chips=2)
    server.fault("engine_crash_start", role="prefiller", port=1)
    lab.start(server, *ONE).ready()
