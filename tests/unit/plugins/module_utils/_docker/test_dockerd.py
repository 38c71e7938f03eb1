# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Questions to a Docker Engine, asked of one that is only a socket."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker import dockerd as docker_engine
from ansible_collections.ascend.pd_rollout.plugins.modules import docker_info, docker_reload

INFO = {
    "ServerVersion": "20.10.24",
    "ContainersRunning": 2,
    "LiveRestoreEnabled": False,
    "DockerRootDir": "/var/lib/docker",
}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers /info, and /events with the reloads so far."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.info: dict = INFO
        self.reloads: list[float] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        request = urlsplit(self.path)
        if request.path == "/info":
            self.reply(json.dumps(self.server.info))
        elif request.path == "/events":
            query = parse_qs(request.query)
            assert json.loads(query["filters"][0]) == {"type": ["daemon"], "event": ["reload"]}
            since, until = float(query["since"][0]), float(query["until"][0])
            event = {"Action": "reload", "Actor": {"Attributes": {"registry-mirrors": "[]"}}}
            self.reply(
                "".join(json.dumps(event) + "\n" for when in self.server.reloads if since <= when <= until)
            )
        else:
            self.send_error(404)

    def reply(self, body: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(capsys: pytest.CaptureFixture[str], module, **arguments) -> dict:
    with patch_module_args({key: str(value) for key, value in arguments.items()}), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_an_engine_that_answers(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, docker_info, docker_socket=engine.server_address)
    assert result["running"]
    assert result["version"] == "20.10.24"
    assert result["containers_running"] == 2
    assert result["live_restore"] is False
    assert "reason" not in result


def test_no_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, docker_info, docker_socket=tmp_path / "docker.sock")
    assert not result["running"]
    assert "failed" not in result
    assert result["reason"] == f"no answer from the Docker Engine: there is no socket {tmp_path}/docker.sock"


def test_an_engine_that_does_not_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docker.sock").touch()
    started = time.monotonic()
    result = call(capsys, docker_info, docker_socket=tmp_path / "docker.sock", wait=1)
    assert result["failed"]
    assert "did not answer within 1 s" in result["msg"]
    assert "journalctl -u docker" in result["msg"]
    assert 1 <= time.monotonic() - started < 30


def test_an_engine_that_is_not_ready(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.info = {"ServerErrors": ["containerd is gone"]}
    result = call(capsys, docker_info, docker_socket=engine.server_address)
    assert not result["running"]
    assert result["reason"] == "the engine is not ready: containerd is gone"


@pytest.fixture
def daemon(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """This process takes the signal for the engine; whether it reloads then, the test says."""
    engine.accepts = True

    def hang_up(_signal: int, _frame: object) -> None:
        if engine.accepts:
            engine.reloads.append(time.time())

    previous = signal.signal(signal.SIGHUP, hang_up)
    monkeypatch.setattr(docker_engine, "daemon_pid", lambda _path: os.getpid())
    yield engine
    signal.signal(signal.SIGHUP, previous)


def test_a_reload_is_seen(daemon: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.reloads.append(time.time() - 60)
    result = call(capsys, docker_reload, docker_socket=daemon.server_address)
    assert result["changed"]
    assert result["attributes"] == {"registry-mirrors": "[]"}
    assert len(daemon.reloads) == 2


def test_a_refused_configuration_fails(daemon: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.accepts = False
    daemon.reloads.append(time.time() - 60)
    result = call(capsys, docker_reload, docker_socket=daemon.server_address, timeout=1)
    assert result["failed"]
    assert "did not apply its new configuration" in result["msg"]
    assert [finding["code"] for finding in result["findings"]] == ["docker-not-reloaded"]
    assert result["findings"][0]["seen"] == "no reload within 1 s"


def test_no_daemon_to_reload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, docker_reload, pid_file=tmp_path / "docker.pid")
    assert result["failed"]
    assert "names no running dockerd" in result["findings"][0]["seen"]
    assert [finding["code"] for finding in result["findings"]] == ["docker-process-unknown"]


@pytest.mark.parametrize("text", ["", "x", "1"], ids=["empty", "text", "another process"])
def test_a_pid_file_that_is_not_of_dockerd(tmp_path: Path, text: str) -> None:
    (tmp_path / "docker.pid").write_text(text)
    assert docker_engine.daemon_pid(str(tmp_path / "docker.pid")) is None
