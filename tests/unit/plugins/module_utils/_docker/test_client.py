# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import (
    DockerApi,
    DockerError,
    demultiplex,
    unix_time,
)


def frame(text, stream=1):
    data = text.encode()
    return struct.pack(">BxxxI", stream, len(data)) + data


class Engine(BaseHTTPRequestHandler):
    """Answers as the Docker Engine does to the calls in use."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        if url.path == "/containers/pd-decode1/json":
            body = json.dumps({"State": {"Status": "running"}}).encode()
        elif url.path == "/containers/json":
            body = json.dumps([query]).encode()
        elif url.path == "/containers/pd-decode1/logs":
            body = frame(json.dumps(query))
        elif url.path == "/images/ascend/vllm-ascend%3Av0.13.0-a3/json":
            body = json.dumps({"Id": "sha256:1"}).encode()
        else:
            self.send_error(500 if "boom" in url.path else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.send_response(204 if self.path == "/containers/pd-decode1/stop" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        """Nothing on the screen."""


@pytest.fixture
def docker(tmp_path):
    path = str(tmp_path / "docker.sock")
    with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield DockerApi(path)
        server.shutdown()


def test_inspect(docker):
    assert docker.inspect("pd-decode1") == {"State": {"Status": "running"}}
    assert docker.inspect("other") is None


def test_containers_are_all_that_carry_the_labels(docker):
    (query,) = docker.containers({"pd_rollout.deployment": "pd"})
    assert query["all"] == "1"
    assert json.loads(query["filters"]) == {"label": ["pd_rollout.deployment=pd"]}


def test_logs_are_bounded_by_the_engines_own_time(docker):
    query = json.loads(
        docker.logs("pd-decode1", 20, since="2026-01-02T03:04:05.5Z", until="0001-01-01T00:00:00Z")
    )
    assert query == {"stdout": "1", "stderr": "1", "tail": "20", "since": "1767323045.500000000"}


def test_what_was_said_shortly_before_counts_when_asked_for(docker):
    query = json.loads(docker.logs("pd-decode1", 20, since="2026-01-02T03:04:05.5Z", early=5))
    assert query["since"] == "1767323040.500000000"


def test_image_id(docker):
    assert docker.image_id("ascend/vllm-ascend:v0.13.0-a3") == "sha256:1"
    assert docker.image_id("other") is None


def test_an_error_of_the_engine_is_told(docker):
    with pytest.raises(DockerError, match="500"):
        docker.inspect("boom")


def test_no_engine_is_told(tmp_path):
    with pytest.raises(DockerError, match="no answer"):
        DockerApi(str(tmp_path / "none.sock")).inspect("pd-decode1")


def test_both_streams_are_read_in_order():
    assert demultiplex(frame("a\n") + frame("b\n", 2) + frame("c\n")) == "a\nb\nc\n"
    assert demultiplex(b"") == ""


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-01-02T03:04:05.678901234Z", "1767323045.678901234"),
        ("2026-01-02T03:04:05Z", "1767323045.000000000"),
        ("2026-01-02T03:04:05.1Z", "1767323045.100000000"),
    ],
)
def test_unix_time_keeps_the_nanoseconds(when, expected):
    assert unix_time(when) == expected


def test_stopping_says_whether_there_is_a_container(docker):
    assert docker.stop("pd-decode1")
    assert not docker.stop("pd-decode2")
