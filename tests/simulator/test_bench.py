"""The simulated `vllm bench serve` sends real requests, and writes the real one's table and JSON."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import VLLM, Pair

CHUNK = b'data: {"choices": [{"index": 0, "text": " a"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'


def bench(url: str, folder: Path, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as role benchmark does."""
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, str(VLLM), "bench", "serve", "--base-url", url, "--model", "deepseek_v3"]
    command += ["--tokenizer", str(folder), "--random-input-len", "40", "--random-output-len", "6"]
    command += ["--result-dir", str(folder), "--result-filename", "result.json", "--save-result", *words]
    environment = {**os.environ, **({"OPENAI_API_KEY": key} if key else {})}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def result(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return loaded


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers from its server's list of (status, chunks), the last one again and again."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        seen = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((dict(self.headers), seen))  # type: ignore[attr-defined]
        answers = self.server.answers  # type: ignore[attr-defined]
        status, chunks = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in (*chunks, b""):
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.seen, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_engine_is_measured(pair: Pair, tmp_path: Path) -> None:
    url = pair.decoder.url("")
    done = bench(url, tmp_path, "--num-prompts", "5", "--metric-percentiles", "50,90,99", "--save-detailed")
    assert done.returncode == 0, done.stderr
    assert " Serving Benchmark Result " in done.stdout
    assert "P90 TTFT (ms):" in done.stdout
    found = result(tmp_path)
    assert (found["completed"], found["failed"]) == (5, 0)
    assert found["input_lens"] == [40] * 5
    assert found["output_lens"] == [6] * 5
    assert found["total_output_tokens"] == 30
    assert 0 < found["p50_ttft_ms"] <= found["p90_ttft_ms"] <= found["p99_ttft_ms"]
    assert all(len(gaps) == 5 for gaps in found["itls"])


def test_an_empty_200_counts_as_failed(backend: Any, tmp_path: Path) -> None:
    backend.answers = [(200, [CHUNK, CHUNK, CHUNK, USAGE]), (200, []), (500, []), (200, [CHUNK, USAGE])]
    done = bench(backend.url, tmp_path, "--num-prompts", "3", "--max-concurrency", "1", "--save-detailed")
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert (found["completed"], found["failed"]) == (1, 2)
    assert "Never received a valid chunk" in found["errors"][0]
    assert found["errors"][1:] == ["Internal Server Error", ""]


def test_details_are_left_out_unless_asked_for(backend: Any, tmp_path: Path) -> None:
    backend.answers = [(200, [CHUNK, CHUNK, CHUNK, USAGE])]
    assert bench(backend.url, tmp_path, "--num-prompts", "2").returncode == 0
    assert not {"ttfts", "errors", "generated_texts"} & result(tmp_path).keys()
    assert result(tmp_path)["request_rate"] == "inf"


def test_the_key_and_the_name_are_sent(backend: Any, tmp_path: Path) -> None:
    backend.answers = [(200, [CHUNK, USAGE])]
    done = bench(
        backend.url,
        tmp_path,
        "--num-prompts",
        "1",
        "--served-model-name",
        "other",
        "--num-warmups",
        "2",
        key="k1",
    )
    assert done.returncode == 0, done.stderr
    # The first request, two to warm up, and the one that counts.
    assert len(backend.seen) == 4
    headers, body = backend.seen[-1]
    assert headers["Authorization"] == "Bearer k1"
    assert body["model"] == "other"
    assert body["ignore_eos"] is True
    assert body["max_tokens"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--request-rate", "0"], "Obtained non-positive request rate 0.0."),
        (["--tokenizer", "/no/such/folder"], "Can't load tokenizer"),
        (["--ready-check-timeout-sec", "1", "--base-url", "http://127.0.0.1:9"], "Initial test run failed"),
    ],
    ids=["the guide's rate of 0", "no tokenizer", "nobody there"],
)
def test_it_fails_as_the_real_one(backend: Any, tmp_path: Path, words: list[str], message: str) -> None:
    backend.answers = [(200, [CHUNK, USAGE])]
    done = bench(backend.url, tmp_path, "--num-prompts", "2", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("release", "greedy"), [("v0.13.0", True), ("v0.18.0", False), ("v0.23.0", False)], ids=lambda v: str(v)
)
def test_since_v0_18_0_the_temperature_must_be_named(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, greedy: bool
) -> None:
    monkeypatch.setenv("PD_SIM_RELEASE", release)
    backend.answers = [(200, [CHUNK, USAGE])]
    for words in ((), ("--temperature", "0")):
        done = bench(backend.url, tmp_path, "--num-prompts", "1", *words)
        assert done.returncode == 0, done.stderr
        assert backend.seen[-1][1].get("temperature") == (0.0 if greedy or words else None)


def test_without_a_model_the_server_is_asked_for_one(pair: Pair, tmp_path: Path) -> None:
    url = pair.decoder.url("")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, str(VLLM), "bench", "serve", "--base-url", url, "--num-prompts", "1"]
    command += ["--input-len", "30", "--output-len", "2", "--tokenizer", str(tmp_path), "--save-result"]
    command += ["--save-detailed", "--result-dir", str(tmp_path), "--result-filename", "result.json"]
    environment = {**os.environ, "PD_SIM_RELEASE": "v0.23.0"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert found["model_id"] == "/model"
    assert (found["input_lens"], found["output_lens"]) == ([30], [2])
