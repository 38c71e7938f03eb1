# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The smoke test as a client of a front, over TLS, against a server that answers as a front does."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import smoke_test
from certificates import key_text, made

KEY, ENGINE_KEY = "sk-alice-0123456789-abcdef", "key-of-the-engines"
NAME, ADDRESS = "models.example.org", "127.0.0.1"
TODAY = datetime.datetime.now(datetime.UTC)
CERTIFICATE = made(alternatives=(NAME, ADDRESS), now=TODAY)


def error(code):
    return {"error": {"message": "It is refused.", "type": "x", "param": None, "code": code}}


class Server:
    """Front and engines in one: answers, by path, what a test changes; counts tokens."""

    def __init__(self, tls):
        self.says, self.tokens, self.keys, self.limited = {}, 0, set(), 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status, content):
                body = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def do_GET(self):
                self.answer(*server.get(self.path, self.headers.get("Authorization", "")))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(*server.post(self.path, body, self.headers.get("Authorization", "")))

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer((ADDRESS, 0), Handler)
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Front(Server):
    """A front with a key, or without."""

    def __init__(self, tls, engine, key=KEY):
        self.engine, self.key = engine, key
        super().__init__(tls)

    def get(self, path, key):
        if path in self.says:
            return self.says[path]
        if path == "/v1/models":
            return 200, {"data": [{"id": "deepseek_v3"}]}
        return (200, "ok") if path == "/health" else (404, error("unknown_url"))

    def post(self, path, body, key):
        if self.key and key != f"Bearer {self.key}":
            return self.says.get("stranger", (401, error("invalid_api_key")))
        if self.limited:
            self.limited -= 1
            return 429, error("rate_limit_exceeded")
        return self.says.get(path) or self.engine.post(path, body, f"Bearer {ENGINE_KEY}")


class Engine(Server):
    """A prefiller and a decoder at once."""

    def get(self, path, key):
        counters = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
        return 200, "".join(f'{name}{{engine="0"}} {self.tokens}\n' for name in counters)

    def post(self, path, body, key):
        self.keys.add(key)
        self.tokens += 5
        if body.get("stream"):
            chunk = json.dumps({"choices": [{"delta": {"content": "It is Paris."}}]})
            return 200, f"data: {chunk}\n\ndata: [DONE]\n\n"
        return 200, {"choices": [{"text": " Paris, a city on the Seine."}]}


@pytest.fixture
def start(tmp_path):
    """Start a front and an engine."""
    running = []

    def begin(certificate=CERTIFICATE, tls=True, key=KEY):
        context = None
        if tls:
            (tmp_path / "front.pem").write_text(certificate + key_text(), encoding="ascii")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "front.pem")
        engine = Engine(None)
        front = Front(context, engine, key)
        running.extend((engine, front))
        return front

    yield begin
    for server in running:
        server.close()


@pytest.fixture
def ask(tmp_path):
    def send(server, **changes):
        (tmp_path / "engine.key").write_text(ENGINE_KEY, encoding="ascii")
        engine = [{"host": ADDRESS, "port": server.engine.port}]
        options = {name: argument.get("default") for name, argument in smoke_test.ARGUMENTS.items()}
        options.update(
            proxy_url=f"https://{ADDRESS}:{server.port}",
            front=True,
            client_key=KEY,
            ca=CERTIFICATE,
            name=NAME,
            model="deepseek_v3",
            prefillers=engine,
            decoders=engine,
            api_key_file=str(tmp_path / "engine.key"),
            timeout=10,
            _check_mode=False,
        )
        return smoke_test.result({**options, **changes})

    return send


def test_a_good_front_has_no_problem_and_engines_get_their_own_key(start, ask):
    front = start()
    found = ask(front)
    assert "failed" not in found
    assert found["completion"] == " Paris, a city on the Seine."
    assert front.engine.keys == {f"Bearer {ENGINE_KEY}"}


@pytest.mark.parametrize("name", [NAME, ADDRESS, ""])
def test_the_certificate_is_verified_for_a_name_that_it_has(start, ask, name):
    assert "failed" not in ask(start(), name=name)


@pytest.mark.parametrize(
    ("served", "changes"),
    [
        (CERTIFICATE, {"name": "other.example.org"}),
        (CERTIFICATE, {"ca": made(now=TODAY, key="other")}),
        (CERTIFICATE, {"ca": ""}),
        (made(alternatives=(NAME,), now=TODAY, days=-1, begins=-9), {"name": ""}),
    ],
    ids=["another name", "another authority", "unknown authority", "expired"],
)
def test_a_certificate_that_a_client_refuses_is_the_only_problem(start, ask, served, changes):
    found = ask(start(served), **changes)
    assert len(found["problems"]) == 1
    assert "cannot trust the front" in found["problems"][0]
    assert "pd_front_ca" in found["problems"][0]


def test_without_tls_and_keys_the_rest_is_tested(start, ask):
    front = start(tls=False, key="")
    plain = {"proxy_url": f"http://{ADDRESS}:{front.port}", "client_key": "", "ca": "", "name": ""}
    assert "failed" not in ask(front, **plain)
    front.says["/metrics"] = (200, "vllm:x 1")
    assert len(ask(front, **plain)["problems"]) == 1


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ({"/metrics": (200, "vllm:x 1")}, "/metrics as a client is answered with status 200, not 404"),
        ({"/instances/add": (500, "")}, "/instances/add as a client is answered with status 500, not 404"),
        ({"/metrics": (404, "<html>")}, "/metrics as a client is answered with status 404, but not with an"),
        ({"stranger": (200, {"choices": []})}, "with a wrong key is answered with status 200, not 401"),
        ({"stranger": (401, "no")}, "with a wrong key is answered with status 401, but not with an error"),
        ({"/v1/models": (503, error("x"))}, "/v1/models fails with HTTP 503"),
        ({"/v1/models": (200, "no")}, "but not with a list of models"),
        ({"/v1/models": (200, {"data": [{"id": "other"}]})}, "lists other, not deepseek_v3"),
        ({"/v1/completions": (503, error("x"))}, "The completion (https://127.0.0.1"),
    ],
    ids=str,
)
def test_what_a_client_must_not_see_is_a_problem(start, ask, says, problem):
    front = start()
    front.says.update(says)
    found = ask(front)
    assert len(found["problems"]) == 1
    assert problem in found["problems"][0]
    assert KEY not in str(found) and ENGINE_KEY not in str(found)


def test_a_key_that_the_front_does_not_know_is_told(start, ask):
    found = ask(start(), client_key="another")
    assert any("other keys than pd_front_api_keys" in problem for problem in found["problems"])


def test_a_limited_key_waits_for_the_next_minute(start, ask, monkeypatch):
    waits = []
    monkeypatch.setattr(smoke_test.SmokeTest.__init__, "__defaults__", (waits.append, None, None))
    front = start()
    front.limited = 1
    assert "failed" not in ask(front)
    assert waits == [smoke_test.RATE_SECONDS]
    front.limited = 2
    found = ask(front)
    assert len(found["problems"]) == 1
    assert "pd_front_requests_per_minute" in found["problems"][0]


def test_a_router_is_tested_without_what_only_a_front_has(start, ask):
    front = start(tls=False, key="")
    front.says.update({"/v1/models": (404, ""), "/metrics": (200, "")})
    assert "failed" not in ask(front, front=False, proxy_url=f"http://{ADDRESS}:{front.port}")
