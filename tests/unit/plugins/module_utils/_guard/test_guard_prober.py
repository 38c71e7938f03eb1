# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The prober against a small engine on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import prober as module
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.config import Config, Engine
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.judge import Verdict
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.prober import Prober
from guard_servers import SETTINGS, config, within

METRICS = """\
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0"} 100.0
vllm:generation_tokens_total{engine="1"} 11.0
vllm:prompt_tokens_total{engine="0"} broken
vllm:num_requests_running{engine="0"} 3.0
"""


class EndedError(Exception):
    """Ends a prober, which knows no end."""


def ended(_seconds: float) -> None:
    raise EndedError


class Api:
    """An engine's API, a good one unless a test says otherwise."""

    def __init__(self) -> None:
        self.health, self.status = 200, 200
        self.metrics, self.text = METRICS, " Paris, which is"
        self.body: str | None = None
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        # Requests wait as long as this is not set.
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.probers: list[tuple[Prober, threading.Thread]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    self.reply(api.health, "")
                else:
                    self.reply(200 if api.metrics else 404, api.metrics)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked.append((body, self.headers["Authorization"]))
                api.goes_on.wait()
                choice = {"text": api.text, "finish_reason": "length"}
                self.reply(api.status, json.dumps({"choices": [choice]}) if api.body is None else api.body)

            def reply(self, status: int, text: str) -> None:
                with suppress(OSError):
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.goes_on.set()
        for prober, thread in self.probers:
            prober._wait = ended  # type: ignore[method-assign]
            prober.hurry()
            thread.join()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(module, "SOON", 0.005)
    monkeypatch.setattr(module, "WAITING", 0.005)
    # A busy machine may answer late.
    monkeypatch.setattr(module, "LOOK", 60.0)
    made = Api()
    yield made
    made.close()


def probing(api: Api, made: Config, role: str = "decoder") -> Prober:
    engine = Engine("pd-decode", "decode", role, 0, (api.at,), "")
    prober = Prober(made, engine, api.at, lambda: None)

    def run() -> None:
        with suppress(EndedError):
            prober.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    api.probers.append((prober, thread))
    return prober


def impatient(folder: Path, **times: float) -> Config:
    return config(folder, settings={**SETTINGS, **times})


def test_an_engine_that_answers_is_ready_and_good(api: Api, tmp_path: Path) -> None:
    prober = probing(api, config(tmp_path))
    assert not prober.verdict().ready
    prober.follow("start1")
    within(lambda: len(api.asked) > 3)
    verdict = prober.verdict()
    assert (verdict.ready, verdict.bad, verdict.hard) == (True, "", False)
    body, key = api.asked[0]
    assert (body["model"], body["max_tokens"], body["temperature"], key) == ("deepseek_v3", 16, 0, None)
    assert body["cache_salt"] != api.asked[1][0]["cache_salt"]


def test_a_prefiller_is_asked_for_one_token_with_the_key(api: Api, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n", encoding="utf-8")
    probing(api, config(tmp_path, secret_path=str(tmp_path / "key")), "prefiller").follow("start1")
    within(lambda: api.asked)
    assert (api.asked[0][0]["max_tokens"], api.asked[0][1]) == (1, "Bearer sk-1")


def test_a_key_that_is_gone_is_no_fault_of_the_engine(api: Api, tmp_path: Path) -> None:
    made = impatient(tmp_path, hang=0)
    prober = probing(api, made._replace(secret_path=str(tmp_path / "gone")))
    prober.follow("start1")
    within(lambda: prober.verdict().ready)
    for _ in range(5):
        prober._request("start1", prober._judge)
    assert (prober.verdict().bad, api.asked) == ("", [])


def test_an_engine_that_loads_is_asked_nothing(api: Api, tmp_path: Path) -> None:
    api.health = 503
    prober = probing(api, config(tmp_path))
    looks = threading.Semaphore(0)
    told = prober._get
    prober._get = lambda path: (looks.release(), told(path))[1]  # type: ignore[method-assign, func-returns-value]
    prober.follow("start1")
    for _ in range(5):
        looks.acquire()
    assert (prober.verdict().ready, api.asked) == (False, [])
    api.health = 200
    within(lambda: prober.verdict().ready)


def test_an_engine_that_refuses_is_bad_then_hard(api: Api, tmp_path: Path) -> None:
    prober = probing(api, impatient(tmp_path, hang=0.05))
    prober.follow("start1")
    within(lambda: prober.verdict().ready)
    api.health = 503
    within(lambda: prober.verdict().bad == "/health answers 503")
    within(lambda: prober.verdict().hard)
    api.health = 200
    within(lambda: not prober.verdict().bad)


def test_health_that_comes_late_is_bad_and_never_hard(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It accepts connections, and answers nothing.
    with socket.create_server(("127.0.0.1", 0)) as busy:
        at = f"127.0.0.1:{busy.getsockname()[1]}"
        prober = Prober(
            impatient(tmp_path, hang=0), Engine("c", "i", "decoder", 0, (at,), ""), at, lambda: None
        )
        prober.follow("start1")
        judge = prober._judge
        prober._note("start1", lambda now: judge.health("", now))
        monkeypatch.setattr(module, "LOOK", 0.01)
        for _ in range(3):
            prober._look("start1", judge)
        verdict = prober.verdict()
        assert (verdict.bad, verdict.hard) == ("/health has no answer within 0 s", False)
    # What refuses the connection has ended.
    monkeypatch.setattr(module, "LOOK", 60.0)
    for _ in range(2):
        prober._look("start1", judge)
    verdict = prober.verdict()
    assert verdict.bad.startswith("/health: ")
    assert verdict.hard


def test_a_request_that_gets_no_connection_in_time_is_no_fault_and_no_answer(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prober = Prober(config(tmp_path), Engine("c", "i", "decoder", 0, (api.at,), ""), api.at, lambda: None)
    prober.follow("start1")
    judge = prober._judge
    prober._look("start1", judge)

    def late(link: http.client.HTTPConnection) -> None:
        raise TimeoutError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "connect", late)
        for _ in range(5):
            prober._request("start1", judge)
    assert prober.verdict() == Verdict(seen=True, ready=True)
    assert (judge._answers, judge._has_answered, api.asked) == ([], False, [])
    prober._request("start1", judge)
    assert judge._has_answered

    def refuses(link: http.client.HTTPConnection) -> None:
        raise ConnectionRefusedError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "connect", refuses)
        for _ in range(2):
            prober._request("start1", judge)
    assert prober.verdict().bad == "a request fails: refused"


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, "", "it answers 500"),
        (200, "", "its answer is none: the body is empty"),
        (200, "<html>", "its answer is none: the body is not a completion: '<html>'"),
        (200, '{"choices": [{"text": ""}]}', "its answer is none: it is empty"),
        (200, '{"choices": ["text"]}', "its answer is none: the body is not a completion"),
    ],
)
def test_answers_that_are_none_are_bad_then_hard(
    api: Api, tmp_path: Path, status: int, body: str, why: str
) -> None:
    api.status, api.body = status, body
    prober = probing(api, impatient(tmp_path, hang=0.05))
    prober.follow("start1")
    within(lambda: prober.verdict().bad.startswith(why))
    within(lambda: prober.verdict().hard)


def test_a_refusal_of_the_request_says_nothing(api: Api, tmp_path: Path) -> None:
    api.status, api.body = 404, ""
    prober = probing(api, impatient(tmp_path, hang=0))
    prober.follow("start1")
    within(lambda: len(api.asked) > 8)
    assert not prober.verdict().bad


def test_an_engine_that_hangs_is_bad_then_hard(api: Api, tmp_path: Path) -> None:
    api.goes_on.clear()
    prober = probing(api, impatient(tmp_path, stall=0.05, hang=0.1))
    prober.follow("start1")
    within(lambda: prober.verdict().bad.startswith("it has made no progress"))
    within(lambda: prober.verdict().hard)
    assert len(api.asked) == 1
    api.goes_on.set()
    within(lambda: not prober.verdict().bad)


def test_an_engine_whose_core_dies_while_a_request_waits_is_bad(api: Api, tmp_path: Path) -> None:
    """It leaves the request without an answer, and says so at /health alone."""
    api.goes_on.clear()
    prober = probing(api, impatient(tmp_path, hang=0.05))
    prober.follow("start1")
    within(lambda: api.asked)
    assert not prober.verdict().bad
    api.health = 503
    within(lambda: prober.verdict().bad == "/health answers 503")
    within(lambda: prober.verdict().hard)
    assert len(api.asked) == 1


def test_another_text_is_a_doubt_until_it_is_accepted(api: Api, tmp_path: Path) -> None:
    prober = probing(api, impatient(tmp_path, hang=0))
    prober.follow("start1")
    within(lambda: len(api.asked) > 2)
    api.text = " Lyon or so it seems"
    within(lambda: prober.verdict().doubt)
    asked = len(api.asked)
    within(lambda: len(api.asked) > asked + 8)
    verdict = prober.verdict()
    why = "it answers ' Lyon or so it seems' to what it has answered with 'paris'"
    assert (verdict.bad, verdict.hard, verdict.doubt) == ("", False, why)
    prober.accept()
    asked = len(api.asked)
    within(lambda: len(api.asked) > asked + 8)
    assert prober.verdict().doubt == ""
    api.text = " Paris, which is"
    within(lambda: len(api.asked) > asked + 16)
    assert prober.verdict().doubt == ""


def test_what_is_accepted_is_forgotten_with_the_start(api: Api, tmp_path: Path) -> None:
    prober = Prober(config(tmp_path), Engine("c", "i", "decoder", 0, (), ""), api.at, lambda: None)
    prober.follow("start1")
    prober._judge._other.add("lyon")
    prober.accept()
    assert prober._judge._right == {"lyon"}
    prober.follow("start2")
    assert prober._judge._right == set()
    # Without an engine there is nothing to accept.
    prober.follow("")
    prober.accept()


def test_an_engine_without_counters_is_never_hard(api: Api, tmp_path: Path) -> None:
    api.goes_on.clear()
    api.metrics = "vllm:num_requests_running 3.0\n"
    prober = probing(api, impatient(tmp_path, stall=0.05, hang=0.1))
    prober.follow("start1")
    within(lambda: prober.verdict().bad.startswith("a request has waited"))
    assert not prober.verdict().hard


def test_the_counters_are_summed(api: Api, tmp_path: Path) -> None:
    prober = Prober(config(tmp_path), Engine("c", "i", "decoder", 0, (), ""), api.at, lambda: None)
    assert prober._progress() == 111.0
    for nothing in ("", "vllm:num_requests_running 3.0\n"):
        api.metrics = nothing
        assert prober._progress() is None


def test_a_new_start_is_judged_anew(api: Api, tmp_path: Path) -> None:
    api.goes_on.clear()
    prober = probing(api, impatient(tmp_path, stall=0.05, hang=0.1))
    prober.follow("start1")
    within(lambda: prober.verdict().hard)
    prober.follow("")
    verdict = prober.verdict()
    assert (verdict.ready, verdict.bad, verdict.hard) == (False, "", False)
    # It no longer waits for the answer of the start before.
    prober.follow("start2")
    within(lambda: len(api.asked) > 1)


def test_what_an_earlier_start_has_answered_counts_no_more(api: Api, tmp_path: Path) -> None:
    prober = Prober(config(tmp_path), Engine("c", "i", "decoder", 0, (), ""), api.at, lambda: None)
    prober.follow("start2")
    prober._note("start1", lambda now: pytest.fail("it was told"))


def test_the_service_hears_of_each_change(api: Api, tmp_path: Path) -> None:
    told: list[Verdict] = []
    engine = Engine("c", "i", "decoder", 0, (api.at,), "")
    prober = Prober(config(tmp_path), engine, api.at, lambda: told.append(prober._verdict))
    prober.follow("start1")
    prober._note("start1", lambda now: prober._judge.health("", now))
    prober._note("start1", lambda now: prober._judge.health("", now))
    assert [verdict.ready for verdict in told] == [True]


def test_what_is_no_http_server_is_no_engine(tmp_path: Path) -> None:
    engine = Engine("c", "i", "decoder", 0, (), "")

    with socket.create_server(("127.0.0.1", 0)) as strange:

        def answer() -> None:
            link, _ = strange.accept()
            with link:
                link.recv(1000)
                link.sendall(b"\xff\xfe no HTTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        prober = Prober(config(tmp_path), engine, f"127.0.0.1:{strange.getsockname()[1]}", lambda: None)
        why, _ = prober._get("/health")
    assert why.startswith("/health: ")
