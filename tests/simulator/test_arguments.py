"""What `vllm` takes and refuses, without the real one at hand (tests/conformance compares both)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .harness import VLLM


def vllm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(VLLM), *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_version() -> None:
    done = vllm("--version")
    assert (done.returncode, done.stdout) == (0, "0.13.0\n")


def test_help() -> None:
    done = vllm("serve", "--help")
    assert done.returncode == 0
    assert "usage: vllm serve [model_tag] [options]" in done.stdout
    assert "--kv-transfer-config" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-such-option"], "vllm: error: unrecognized arguments: --no-such-option"),
        (["--port", "x"], "vllm serve: error: argument --port: invalid int value: 'x'"),
        (["--kv-transfer-config", '{"engine_id": 0}'], "Input should be a valid string"),
        (
            ["--kv-transfer-config", '{"kv_connector": "X"}'],
            "Please specify kv_role when kv_connector is set",
        ),
    ],
)
def test_refused_words(words: list[str], message: str) -> None:
    done = vllm("serve", "/m", *words)
    assert done.returncode == 2
    assert message in done.stderr
