# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import http.client
import io
import json
import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.engine_answers import (
    Answer,
    api_message,
    error_text,
    report,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.smoke_test import Http, SmokeTest

PROXY, PREFILLER, DECODER = "http://10.0.0.1:8005", "http://10.0.0.1:8004", "http://10.0.0.3:8004"
PARAMETERS = {
    "proxy_url": PROXY,
    "model": "deepseek_v3",
    "prefillers": [{"host": "10.0.0.1", "port": 8004}],
    "decoders": [{"host": "10.0.0.3", "port": 8004}],
    "prompt": "The capital of France is",
    "chat_prompt": "Name it.",
    "max_tokens": 24,
    "match_words": 2,
    "expect": None,
}


def completion(text):
    return json.dumps({"choices": [{"text": text}]})


def stream(text):
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]}) + "\n\ndata: [DONE]\n\n"


class Deployment:
    """Answers as proxy and engines; C(answers) by URL, an exception is raised."""

    def __init__(self, **answers):
        self.answers = {
            "completion": completion(" Paris, a city on the Seine."),
            "chat": stream("It is Paris."),
            "reference": completion(" Paris, a city by the Seine."),
            "prefiller": completion(" Paris"),
            "decoder": stream("It is Paris."),
            **answers,
        }
        self.prompt_tokens = self.generation_tokens = 0.0
        self.served = answers.get("served", ("prefiller", "decoder"))
        self.posted = []

    def get(self, url):
        if url == PREFILLER + "/metrics":
            return f'vllm:prompt_tokens_total{{engine="0"}} {self.prompt_tokens}\n'
        if url == DECODER + "/metrics":
            return f'vllm:generation_tokens_total{{engine="0"}} {self.generation_tokens}\n'
        raise AssertionError(url)

    def post(self, url, body):
        self.posted.append((url, body))
        if url.startswith(PROXY):
            self.prompt_tokens += 5 if "prefiller" in self.served else 0
            self.generation_tokens += 5 if "decoder" in self.served else 0
        name = {
            PROXY + "/v1/completions": "completion",
            PROXY + "/v1/chat/completions": "chat",
            DECODER + "/v1/completions": "reference",
            DECODER + "/v1/chat/completions": "decoder",
            PREFILLER + "/v1/completions": "prefiller",
            PREFILLER + "/v1/chat/completions": "prefiller",
        }[url]
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]
        return self.answers[name], 0.1, 0.2


def ask(deployment, **parameters):
    test = SmokeTest(deployment, {**PARAMETERS, **parameters}, sleep=lambda seconds: None)
    test.run()
    return test


def test_a_sound_deployment():
    deployment = Deployment()
    test = ask(deployment, expect="Paris")
    assert test.problems == []
    assert test.result == {
        "completion": " Paris, a city on the Seine.",
        "chat": "It is Paris.",
        "reference": " Paris, a city by the Seine.",
    }
    assert test.seconds == {"completion": 0.2, "chat": 0.2, "chat_first_byte": 0.1, "reference": 0.2}
    assert all(
        body["temperature"] == 0 and body["model"] == "deepseek_v3" for _url, body in deployment.posted
    )
    assert [body["stream"] for _url, body in deployment.posted] == [False, True, False]


def http_error(code, text=""):
    return urllib.error.HTTPError("http://x", code, "", None, io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("answers", "parameters", "problem", "cure"),
    [
        pytest.param(
            {"completion": completion(" is is is is is is is is")}, {}, "repeats", "hccn.conf", id="garbage"
        ),
        pytest.param(
            {"completion": completion(" Berlin, a big city.")},
            {},
            "by the decoder alone with",
            "hccn.conf",
            id="other",
        ),
        pytest.param({"completion": completion("")}, {}, "it is empty", "hccn.conf", id="empty-text"),
        pytest.param({}, {"expect": "Rome"}, "does not match 'Rome'", "the expected text", id="unexpected"),
        pytest.param(
            {"served": ("decoder",)}, {}, "No prefiller served", "list of prefillers", id="no-prefiller"
        ),
        pytest.param(
            {"served": ("prefiller",)}, {}, "No decoder served", "list of decoders", id="no-decoder"
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(answers, parameters, problem, cure):
    problems = ask(Deployment(**answers), **parameters).problems
    assert any(problem in text and cure in text for text in problems), problems


TOO_LONG = json.dumps({"error": {"message": "The prompt is longer than 16384 tokens.", "code": 400}})


@pytest.mark.parametrize(
    ("answers", "said", "cure"),
    [
        pytest.param(
            {"completion": http_error(500, "Internal Server Error"), "prefiller": http_error(400, TOO_LONG)},
            f"the prefiller {PREFILLER} gives HTTP 400: 'The prompt is longer than 16384 tokens.'",
            "Correct the request",
            id="the-proxy-says-500-for-400",
        ),
        pytest.param(
            {"completion": http_error(500), "prefiller": ConnectionRefusedError("refused")},
            f"the prefiller {PREFILLER} gives no complete answer (refused)",
            f"Check whether the engine at {PREFILLER} is running",
            id="prefiller-gone",
        ),
        pytest.param(
            {"completion": http_error(500), "prefiller": http_error(500, "EngineDeadError")},
            f"the prefiller {PREFILLER} gives HTTP 500: 'EngineDeadError'",
            f"Check the log of the engine at {PREFILLER}.",
            id="prefiller-failed",
        ),
        pytest.param(
            {"completion": http_error(500), "prefiller": http_error(401)}, "HTTP 401", "pd_api_key", id="401"
        ),
        pytest.param(
            {"completion": http_error(500), "prefiller": http_error(404)},
            "HTTP 404",
            "'deepseek_v3' is the engines' --served-model-name",
            id="404",
        ),
        pytest.param(
            {"completion": "", "reference": http_error(500, "out of memory")},
            f"the decoder {DECODER} gives HTTP 500: 'out of memory'",
            f"the engine at {DECODER}",
            id="empty-body",
        ),
        pytest.param(
            {"chat": "", "decoder": ConnectionRefusedError("refused")},
            f"the decoder {DECODER} gives no complete answer (refused)",
            f"the engine at {DECODER}",
            id="empty-stream",
        ),
        pytest.param(
            {"chat": "", "decoder": ""},
            f"the decoder {DECODER} gives HTTP 200 with an empty body",
            f"the engine at {DECODER}",
            id="empty-everywhere",
        ),
        pytest.param(
            {"completion": ConnectionRefusedError("refused")},
            f"the prefiller {PREFILLER} gives an answer; the decoder {DECODER} gives an answer",
            "Check the proxy's log",
            id="proxy-gone",
        ),
    ],
)
def test_the_cause_is_what_the_engines_answer_themselves(answers, said, cure):
    problems = ask(Deployment(**answers)).problems
    assert any(said in text and cure in text for text in problems), problems


def test_a_prefiller_is_asked_for_one_token_in_one_piece_and_the_decoder_for_the_request():
    deployment = Deployment(chat="")
    ask(deployment)
    asked = {url: body for url, body in deployment.posted if "chat" in url}
    assert (
        asked[PREFILLER + "/v1/chat/completions"]["max_tokens"],
        asked[DECODER + "/v1/chat/completions"],
    ) == (
        1,
        asked[PROXY + "/v1/chat/completions"],
    )
    assert asked[PREFILLER + "/v1/chat/completions"]["stream"] is False


def test_asking_the_engines_hides_no_side_that_did_not_serve():
    problems = ask(Deployment(chat="", served=("prefiller",))).problems
    assert any("No decoder served" in text for text in problems), problems


def test_many_engines_with_one_answer_are_one_part_of_the_report():
    answers = [Answer("decoder", f"http://d{n}", 500, "HTTP 500: 'dead'") for n in range(5)]
    assert report(answers) == (
        "Asked directly, the decoders http://d0, http://d1, http://d2 and 2 more give HTTP 500: 'dead'"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (TOO_LONG, "The prompt is longer than 16384 tokens."),
        ('{"object": "error", "message": "too long"}', "too long"),
        ('{"error": "Unauthorized"}', "Unauthorized"),
        ("<html>busy</html>", "<html>busy</html>"),
        ("[1]", "[1]"),
    ],
)
def test_the_message_of_an_error(body, message):
    assert api_message(body) == message


def test_everything_wrong_is_told_together():
    problems = ask(Deployment(completion=completion(""), chat="", served=())).problems
    assert len(problems) == 4 + 1  # text, stream, two sides, and the beginning


def test_the_comparison_can_be_left_out():
    test = ask(Deployment(completion=completion(" Berlin, a big city.")), match_words=0)
    assert test.problems == []
    assert "reference" not in test.result


ALONE = {"proxy_url": DECODER, "prefillers": []}


class OneEngine(Deployment):
    """Does prefill and decode itself."""

    def post(self, url, body):
        self.posted.append((url, body))
        self.generation_tokens += 5
        answer = self.answers["chat" if "chat" in url else "completion"]
        if isinstance(answer, Exception):
            raise answer
        return answer, 0.1, 0.2


def test_one_engine_for_both_is_asked_itself_and_compared_with_nothing():
    deployment = OneEngine()
    test = ask(deployment, expect="Paris", **ALONE)
    assert test.problems == []
    assert [url for url, _body in deployment.posted] == [
        DECODER + "/v1/completions",
        DECODER + "/v1/chat/completions",
    ]


@pytest.mark.parametrize(
    ("answers", "cure"),
    [
        ({"completion": http_error(500)}, "Check the log of the engine"),
        ({"completion": http_error(400, TOO_LONG)}, "Correct the request"),
        ({"completion": ConnectionRefusedError("refused")}, "is running"),
        ({"chat": ""}, "Check the log of the engine"),
        ({"completion": completion(" is is is is is is is is")}, "weights"),
    ],
    ids=["500", "400", "refused", "empty", "garbage"],
)
def test_what_is_wrong_with_one_engine_blames_no_proxy_and_no_transfer(answers, cure):
    (problem,) = ask(OneEngine(**answers), **ALONE).problems
    assert cure in problem
    assert "proxy" not in problem
    assert "KV" not in problem


class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(b"")

    def do_POST(self):
        self.reply(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, body):
        text = f"{self.headers.get('Authorization')} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Nothing on the screen."""


@pytest.mark.parametrize(("key", "sent"), [("secret", "Bearer secret"), (None, "None")])
def test_the_key_goes_into_the_header_and_no_environment_proxy_is_used(monkeypatch, key, sent):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert Http(5, key).get(url) == f"{sent} "
        text, first, seconds = Http(5, key).post(url, {"a": 1})
        server.shutdown()
    assert text == f'{sent} {{"a": 1}}'
    assert 0 <= first <= seconds


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), http.client.IncompleteRead(b"{")])
def test_an_error_whose_text_does_not_come_is_still_one(error):
    class Cut(io.BytesIO):
        def read(self, *_):
            raise error

    told = urllib.error.HTTPError("http://x", 500, "", None, Cut())
    assert error_text(told) == "HTTP 500, but its text was not received"
