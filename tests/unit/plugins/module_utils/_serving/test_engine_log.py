# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.engine_log import (
    Progress,
    clients_joined,
    progress,
    reason,
    split_lines,
)

CORE = "(EngineCore_DP0 pid=77) "
WORKER = "(EngineCore_DP0 pid=77) (Worker_PCP0_DCP0_TP0_EP0 pid=90) "


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            "(APIServer pid=1) INFO 11-24 09:00:00 [api_server.py:1351] vLLM API server version 0.13.0",
            Progress("starting"),
            id="api-server",
        ),
        pytest.param(
            CORE + "INFO 11-24 09:00:08 [core.py:93] Initializing a V1 LLM engine (v0.13.0) with config: …",
            Progress("starting"),
            id="engine-core",
        ),
        pytest.param(
            "INFO 11-24 09:00:09 [serve.py:120] Launching vLLM (v0.13.0) headless multiproc executor, with"
            " head node address 192.0.0.1:7001 for torch.distributed process group.",
            Progress("waiting for peers"),
            id="headless",
        ),
        pytest.param(
            "INFO 11-24 09:00:09 [serve.py:117] Launching 16 data parallel engine(s) in headless mode, with"
            " head node address tcp://192.0.0.1:5980.",
            Progress("waiting for peers"),
            id="headless-ranks",
        ),
        pytest.param(
            "(APIServer pid=7) INFO 11-24 09:09:00 [api_server.py:580] Starting vLLM server on http://0.0.0.0:8004",
            Progress("engine initialised"),
            id="server-from-0.18",
        ),
        pytest.param(
            WORKER + "INFO 11-24 09:00:12 [parallel_state.py:1203] world_size=32 rank=0 local_rank=0"
            " distributed_init_method=tcp://192.0.0.1:7001 backend=hccl",
            Progress("waiting for peers"),
            id="group",
        ),
        pytest.param(
            WORKER + "INFO 11-24 09:00:30 [model_runner_v1.py:2378] Starting to load model /weights...",
            Progress("loading shards"),
            id="load-begins",
        ),
        pytest.param(
            WORKER
            + "\rLoading safetensors checkpoint shards:  26% Completed | 43/163 [01:10<03:15,  1.63s/it]\n",
            Progress("loading shards", 43, 163),
            id="shards",
        ),
        pytest.param(
            WORKER + "INFO 11-24 09:05:00 [default_loader.py:308] Loading weights took 268.41 seconds",
            Progress("weights loaded"),
            id="loaded",
        ),
        pytest.param(
            "Capturing CUDA graphs (decode, FULL):  14%|█▍        | 1/7 [00:01<00:07,  1.25s/it]\r"
            "Capturing CUDA graphs (decode, FULL):  43%|████▎     | 3/7 [00:03<00:04,  1.21s/it]",
            Progress("capturing graphs", 3, 7),
            id="graphs",
        ),
        pytest.param(
            CORE
            + "INFO 11-24 09:09:00 [core.py:259] init engine (profile, create kv cache, warmup model) took"
            " 81.2 seconds",
            Progress("engine initialised"),
            id="warm",
        ),
        pytest.param(
            "(APIServer pid=1) INFO:     Application startup complete.",
            Progress("ready"),
            id="startup-complete",
        ),
        pytest.param("something else\n\n", None, id="unknown"),
        pytest.param("", None, id="empty"),
    ],
)
def test_progress_reads_the_lines_of_vllm(line, expected):
    assert progress(line) == expected


def test_progress_is_the_latest_known_line():
    log = "Starting to load model x\nLoading weights took 3 seconds\nsome other line\n"
    assert progress(log) == Progress("weights loaded")


def test_progress_text_counts_when_there_is_a_count():
    assert Progress("loading shards", 43, 163).text == "loading shards 43 of 163"
    assert Progress("ready").text == "ready"


def test_clients_joined_takes_the_last_count():
    log = (
        "[c10d] Waiting: 1/3 clients joined\n"
        "DistStoreError: Timed out after 601 seconds waiting for clients. 2/3 clients joined.\n"
    )
    assert clients_joined(log) == (2, 3)
    assert clients_joined("nothing") is None


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        pytest.param(
            f"{CORE}ERROR 11-24 09:00:00 [core.py:843] Traceback (most recent call last):\n"
            f"{CORE}ERROR 11-24 09:00:00 [core.py:843] zmq.error.ZMQError: Address already in use\n"
            f"{CORE}ERROR 11-24 09:00:00 [core.py:843] Exception: WorkerProc initialization failed due to an"
            " exception in a background process. See stack trace for root cause.\n"
            "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed"
            " core proc(s): {}\n",
            "zmq.error.ZMQError: Address already in use",
            id="root-cause-not-its-echo",
        ),
        pytest.param(
            "usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --nope\n",
            "vllm serve: error: unrecognized arguments: --nope",
            id="usage",
        ),
        pytest.param(
            "AssertionError: Current device type: A2 does not match\n",
            "AssertionError: Current device type: A2 does not match",
            id="bare",
        ),
        pytest.param("EI0006: Getting socket times out.\n", "EI0006: Getting socket times out.", id="hccl"),
        pytest.param(
            "/etc/pd_rollout/pd/decode1.sh: line 9: vllm: command not found\n",
            "/etc/pd_rollout/pd/decode1.sh: line 9: vllm: command not found",
            id="shell",
        ),
        pytest.param("all is well\n", None, id="none"),
    ],
)
def test_reason_is_the_engines_own_error(log, expected):
    assert reason(log) == expected


def test_reason_is_that_of_the_rank_that_ended_first():
    log = (
        "[rank 3] zmq.error.ZMQError: Address already in use\n"
        "Rank 3 has ended with exit code 1: the others are stopped.\n"
        "[rank 4] RuntimeError: Connection closed by peer\n"
    )
    assert reason(log) == "rank 3: zmq.error.ZMQError: Address already in use"


def test_reason_of_a_rank_that_said_nothing():
    log = "[rank 3] hello\nRank 3 has ended with exit code 137: the others are stopped.\n"
    assert reason(log) == "Rank 3 has ended with exit code 137: the others are stopped."


def test_a_carriage_return_ends_a_line():
    assert split_lines("a\rb\r\nc\n\n") == ["a", "b", "c"]


# What vllm-router 0.1.17 writes when it ends; before it, lines of its own with colours.
ROUTER = "\x1b[2m2026-11-30 11:33:41\x1b[0m \x1b[32m INFO\x1b[0m vllm_router_rs::server: Starting router\n"


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: Address already in use (os error 98)",
        "pyo3_runtime.PanicException: failed to install Prometheus metrics exporter: "
        'FailedToCreateHTTPListener("Address already in use (os error 98)")',
        'RuntimeError: Timeout 600s waiting for hosts ["http://198.51.100.3:8004"] to become healthy.',
        "ModuleNotFoundError: No module named 'orjson'",
        "ValueError: Configuration validation failed: Invalid value for field 'port': 0 - Must be > 0",
        "launch_router.py: error: argument --log-level: invalid choice: 'warn' (choose from 'debug', 'info')",
    ],
    ids=["port", "metrics-port", "no-engine", "module", "value", "option"],
)
def test_the_reason_of_a_routers_end_is_its_last_error(line):
    text = f'{ROUTER}Traceback (most recent call last):\n  File "router.py", line 155, in start\n{line}\n'
    assert reason(text) == line


def test_colours_are_not_shown():
    assert split_lines(ROUTER) == ["2026-11-30 11:33:41  INFO vllm_router_rs::server: Starting router"]
