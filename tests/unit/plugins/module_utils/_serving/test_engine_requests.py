# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What an engine still has to do, asked of small engines over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import engine_requests
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.engine_requests import left, result

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {kv}
"""


class Engine:
    """An API over HTTP with numbers that a test sets; ``looks``: what they become, one for each look."""

    def __init__(self):
        self.running = self.waiting = self.kv = 0
        self.looks, self.bodies, self.keys = [], [], []
        self.frees, engine = False, self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                assert self.path == "/metrics"
                if engine.looks:
                    engine.running, engine.waiting, engine.kv = engine.looks.pop(0)
                self.reply(METRICS.format(running=engine.running, waiting=engine.waiting, kv=engine.kv))

            def do_POST(self):
                assert self.path == "/v1/completions"
                engine.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if engine.frees:
                    engine.kv = 0
                self.reply("{}")

            def reply(self, text):
                engine.keys.append(self.headers["Authorization"])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def api(self):
        return f"127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def engine():
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def other():
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def ask(*apis, role="prefiller", **options):
    engine = {"container": "pd-p", "instance": "p", "role": role, "apis": list(apis)}
    given = {"engines": [engine], "model": "m", "api_key_file": None, "nudge": False, "hold": 0.0, **options}
    found = result(given)
    assert found["changed"] is False
    (seen,) = found["engines"]
    assert {name: seen[name] for name in engine} == engine
    return seen["requests"], seen["kv"], seen["idle"]


def test_requests_that_run_and_that_wait_are_to_be_finished(engine):
    assert ask(engine.api) == (0, 0.0, True)
    engine.running, engine.waiting = 2, 3
    assert ask(engine.api) == (5, 0.0, False)


def test_a_prefiller_keeps_what_its_decoders_have_not_fetched(engine):
    engine.kv = 0.25
    assert ask(engine.api) == (0, 0.25, False)
    # A decoder's blocks are those of its requests, or of its prefix cache.
    assert ask(engine.api, role="decoder") == (0, 0.0, True)


def test_all_apis_of_an_engine_count(engine, other):
    engine.running, other.running, engine.kv, other.kv = 1, 2, 0.1, 0.3
    assert ask(engine.api, other.api) == (3, 0.3, False)


def test_an_engine_that_has_ended_has_nothing_left_to_do(engine, nobody):
    assert ask(nobody) == (0, 0.0, True)
    assert ask() == (0, 0.0, True)
    engine.running = 1
    assert ask(nobody, engine.api) == (1, 0.0, False)


def test_it_is_looked_at_until_it_is_idle_or_the_time_is_up(engine, monkeypatch):
    times = []
    clock = iter(range(100))
    monkeypatch.setattr(engine_requests.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(engine_requests.time, "sleep", times.append)
    engine.looks = [(2, 0, 0), (1, 0, 0), (0, 0, 0.5), (0, 0, 0)]
    assert ask(engine.api, hold=50) == (0, 0.0, True)
    assert times == [engine_requests.PAUSE] * 3
    engine.looks, engine.running = [], 1
    assert ask(engine.api, hold=3) == (1, 0.0, False)
    assert ask(engine.api) == (1, 0.0, False)


def test_an_idle_prefiller_is_made_to_look_what_was_fetched(engine, other, monkeypatch):
    monkeypatch.setattr(engine_requests.time, "sleep", lambda _: None)
    engine.kv, engine.frees = 0.5, True
    assert ask(engine.api, other.api, nudge=True, hold=60) == (0, 0.0, True)
    body = {"model": "m", "prompt": "a", "max_tokens": 1, "temperature": 0}
    # Each API has its own scheduler.
    assert engine.bodies == other.bodies == [body]


def test_nobody_is_nudged_without_need(engine, nobody):
    engine.kv = 0.5
    ask(engine.api)
    ask(engine.api, role="decoder", nudge=True)
    engine.kv = 0
    ask(engine.api, nudge=True)
    engine.running, engine.kv = 1, 0.5
    ask(engine.api, nudge=True)
    assert engine.bodies == []
    # One that ends meanwhile fails nothing.
    engine.running = 0
    assert ask(nobody, engine.api, nudge=True) == (0, 0.5, False)
    assert len(engine.bodies) == 1


def test_the_key_is_sent(engine, tmp_path):
    path = tmp_path / "api_key"
    path.write_text("secret\n")
    ask(engine.api, api_key_file=str(path))
    ask(engine.api, api_key_file=str(tmp_path / "absent"))
    assert engine.keys == ["Bearer secret", None]


def test_what_is_left_is_said():
    busy = {"instance": "p", "requests": 3, "kv": 0.5, "idle": False}
    assert left([busy, {**busy, "requests": 0, "instance": "q"}, {**busy, "idle": True}]) == [
        "p has 3 requests",
        "q has 50.0% of its KV cache in use",
    ]
