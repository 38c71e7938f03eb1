# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.engine_status import (
    info,
    observe,
    probe,
    watch,
)

STARTED = "2026-01-02T03:04:05.6Z"
LOADING = "Loading safetensors checkpoint shards:  26% Completed | 43/163 [00:10<00:30,  3.9it/s]\n"
CRASH = "Traceback (most recent call last):\nzmq.error.ZMQError: Address already in use\n"


class FakeDocker:
    """One container that goes through C(states): (status, restarts, log) each; the last one stays."""

    def __init__(self, *states, exit_code=0):
        self.states, self.exit_code = list(states), exit_code
        self.queries, self.stopped = [], []

    def stop(self, name):
        self.stopped.append(name)
        return True

    def inspect(self, name):
        self.now = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if self.now is None:
            return None
        status, restarts, _log = self.now
        state = {
            "Status": status,
            "ExitCode": self.exit_code,
            "OOMKilled": False,
            "Error": "",
            "StartedAt": STARTED,
        }
        return {"State": state, "RestartCount": restarts}

    def logs(self, name, tail, **window):
        self.queries.append(window)
        return self.now[2]


class Clock:
    """Time that only passes while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def target(**more):
    return {"name": "pd-decode1", "health_url": "http://x/health", "known": "", **more}


def healthy(url, expect):
    return True, "ok"


def refused(url, expect):
    return False, "Connection refused"


def test_a_running_engine_tells_its_phase():
    report = observe(FakeDocker(("running", 0, LOADING)), target(), 5, refused)
    assert (report["phase"], report["done"], report["total"]) == ("loading shards", 43, 163)
    assert not report["failed"]
    assert not report["ready"]
    assert report["health"] == "Connection refused"
    assert report["exit_code"] is None


def test_a_healthy_api_is_ready():
    assert observe(FakeDocker(("running", 0, "")), target(), 5, healthy)["ready"]


def test_without_an_api_the_log_decides():
    docker = FakeDocker(("running", 0, "INFO:     Application startup complete.\n"))
    assert observe(docker, target(health_url=None), 5, refused)["ready"]


def test_a_dead_container_tells_why():
    report = observe(FakeDocker(("exited", 0, CRASH), exit_code=1), target(), 1, healthy)
    assert report["failed"]
    assert not report["ready"]
    assert report["exit_code"] == 1
    assert report["reason"] == "zmq.error.ZMQError: Address already in use"
    assert report["log"] == ["zmq.error.ZMQError: Address already in use"]


def test_after_a_restart_the_log_before_it_is_read():
    docker = FakeDocker(("running", 1, CRASH))
    report = observe(docker, target(baseline=0), 5, healthy)
    assert report["failed"]
    assert docker.queries == [{"until": STARTED}]


def test_restarts_before_the_watch_do_not_count():
    docker = FakeDocker(("running", 2, LOADING))
    assert not observe(docker, target(), 5, refused)["failed"]
    assert not observe(docker, target(baseline=2), 5, refused)["failed"]
    assert docker.queries == [{"since": STARTED}] * 2


@pytest.mark.parametrize("status", ["exited", "restarting"])
def test_what_was_said_before_the_time_of_the_start_is_read_too(status):
    docker = FakeDocker((status, 0, CRASH), exit_code=1)
    assert observe(docker, target(baseline=0), 5, healthy)["reason"]
    assert docker.queries == [{"since": STARTED, "early": 5}]


def test_a_container_between_two_restarts_has_failed():
    assert observe(FakeDocker(("restarting", 1, CRASH)), target(), 5, healthy)["failed"]


RANKS = [{"rank": rank, "health_url": f"http://x:{7100 + rank}/health"} for rank in range(3)]
RANK_LOG = "[rank 2] Starting to load model\n[rank 0] " + LOADING + "[rank 1] Starting to load model\n"


def all_but(*late):
    """A probe that finds all ranks ready but these."""
    return lambda url, expect: (
        (False, "Connection refused") if url in [RANKS[rank]["health_url"] for rank in late] else (True, "ok")
    )


def test_an_engine_with_ranks_tells_the_one_that_is_least_far():
    report = observe(FakeDocker(("running", 0, RANK_LOG)), target(ranks=RANKS), 5, all_but(0, 2))
    assert not report["ready"]
    assert (report["rank"], report["phase"], report["ready_ranks"]) == (2, "loading shards", 1)
    report = observe(FakeDocker(("running", 0, RANK_LOG)), target(ranks=RANKS), 5, all_but(0))
    assert (report["rank"], report["done"], report["ready_ranks"]) == (0, 43, 2)


def test_an_engine_with_ranks_is_ready_when_all_are():
    report = observe(FakeDocker(("running", 0, RANK_LOG)), target(ranks=RANKS), 5, all_but())
    assert report["ready"]
    assert report["rank"] is None


def test_a_rank_without_a_log_is_starting():
    report = observe(FakeDocker(("running", 0, "")), target(ranks=RANKS), 5, all_but(1))
    assert (report["rank"], report["phase"]) == (1, "starting")


def test_a_missing_container_has_failed():
    report = observe(FakeDocker(None), target(), 5, healthy)
    assert (report["status"], report["failed"]) == ("missing", True)


def run(docker, probe_health=refused, hold=4.0, **more):
    clock = Clock()
    reports = watch(docker, [target(**more)], hold, 1.0, 5, probe_health, clock, clock.sleep)
    return reports[0], clock.now


def test_nothing_new_holds_until_the_end():
    known = observe(FakeDocker(("running", 0, LOADING)), target(), 5, refused)["fingerprint"]
    assert run(FakeDocker(("running", 0, LOADING)), known=known)[1] == pytest.approx(4.0)


def test_progress_is_reported_after_settling():
    states = [("running", 0, LOADING.replace("43", str(n))) for n in range(43, 60)]
    report, seconds = run(FakeDocker(*states))
    assert seconds == pytest.approx(1.0)
    assert report["done"] == 45


def test_a_death_is_reported_at_once():
    report, seconds = run(FakeDocker(("running", 0, LOADING), ("exited", 0, CRASH)), known="other")
    assert report["failed"]
    assert seconds == pytest.approx(0.5)


def test_readiness_is_reported_at_once():
    answers = itertools.chain([False], itertools.repeat(True))
    report, seconds = run(FakeDocker(("running", 0, LOADING)), lambda url, expect: (next(answers), ""))
    assert report["ready"]
    assert seconds == pytest.approx(0.5)


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/sick" else 200)
        self.end_headers()
        if self.path == "/healthcheck":
            self.wfile.write(b'{"status": "ok", "prefill_instances": 1, "decode_instances": 1}')
        if self.path in ("/workers", "/sick-workers"):
            workers = [
                {"url": "http://p:1", "worker_type": "prefill", "is_healthy": True},
                {"url": "http://d:1", "worker_type": "decode", "is_healthy": self.path == "/workers"},
            ]
            self.wfile.write(json.dumps({"workers": workers, "total": 2}).encode())

    def log_message(self, *args):
        """Nothing on the screen."""


@pytest.fixture
def base():
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "expect", "ready", "seen"),
    [
        ("/health", {}, True, "ok"),
        ("/sick", {}, False, "HTTP 503"),
        ("/healthcheck", {"prefill_instances": 1}, True, 'answers {"prefill_instances": 1}'),
        ("/healthcheck", {"prefill_instances": 2}, False, 'answers {"prefill_instances": 1}'),
        ("/health", {"prefill_instances": 1}, False, "not JSON: b''"),
        ("/workers", {"prefill": ["http://p:1"], "decode": ["http://d:1"]}, True, "ok"),
        (
            "/workers",
            {"prefill": ["http://p:1", "http://p:2"], "decode": ["http://d:1"]},
            False,
            'lists {"decode": ["http://d:1"], "prefill": ["http://p:1"]}',
        ),
        (
            "/sick-workers",
            {"prefill": ["http://p:1"], "decode": ["http://d:1"]},
            False,
            "finds unhealthy: http://d:1",
        ),
    ],
)
def test_probe(base, path, expect, ready, seen):
    assert probe(base + path, expect) == (ready, seen)


def test_probe_of_something_else_on_the_port():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            guest, _address = server.accept()
            with guest:
                guest.recv(4096)
                guest.sendall(b"SSH-2.0-OpenSSH_8.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        ready, seen = probe(f"http://127.0.0.1:{server.getsockname()[1]}/health", {})
    assert not ready
    assert "SSH-2.0-OpenSSH" in seen


def test_probe_of_a_closed_port():
    ready, seen = probe("http://127.0.0.1:1/health", {})
    assert not ready
    assert "refused" in seen


@pytest.mark.parametrize(
    ("status", "restarts", "stop", "stopped"),
    [
        ("restarting", 1, True, True),
        ("running", 1, True, True),
        ("exited", 0, True, False),
        ("running", 0, True, False),
        ("restarting", 1, False, False),
    ],
    ids=["between-restarts", "restarted", "ended", "sound", "of-another-run"],
)
def test_what_this_run_started_in_vain_is_not_started_without_end(status, restarts, stop, stopped):
    docker = FakeDocker((status, restarts, CRASH))
    report, _now = run(docker, baseline=0, stop=stop)
    assert report["stopped"] is stopped
    assert docker.stopped == ["pd-decode1"] * stopped


def test_the_report_comes_even_where_stopping_fails():
    docker = FakeDocker(("restarting", 1, CRASH))
    docker.stop = lambda name: (_ for _ in ()).throw(DockerError("no answer"))
    report, _now = run(docker, baseline=0, stop=True)
    assert (report["failed"], report["stopped"]) == (True, False)


def test_a_silent_docker_engine_is_a_finding(tmp_path):
    socket_path = str(tmp_path / "docker.sock")
    options = {"targets": [target()], "hold": 0, "settle": 0, "log_lines": 5, "docker_socket": socket_path}
    result = info(options)
    assert result["failed"]
    assert [finding["code"] for finding in result["findings"]] == ["docker-silent"]
    assert socket_path in result["findings"][0]["seen"]
    assert result["msg"].startswith("The engines cannot be watched.")
