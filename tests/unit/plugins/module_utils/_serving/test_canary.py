# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The canary against small engines that speak the two protocols over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import canary
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.canary_prompts import PROMPTS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.canary_requests import Fault
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.canary_verdict import (
    Asked,
    suspects,
)

TEXT = " six seven eight nine ten eleven twelve thirteen"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Engine:
    """An engine over HTTP, a good one unless a test sets its attributes otherwise."""

    def __init__(self, role, release="v0.13.0"):
        self.role, self.release = role, release
        self.alone = self.pulled = TEXT
        self.fails = self.silent = self.key = None
        self.hands_over, self.recomputes = True, False
        self.finish, self.tokens, self.details, self.stop_reason = "length", None, False, None
        self.others = {"transferred": 0, "computed": 0}
        self.asked, self.counts = [], {"transferred": 0, "computed": 0}
        self.lock, engine = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, engine.metrics())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                engine.key = self.headers["Authorization"]
                if engine.fails:
                    self.reply(engine.fails, '{"error": {"message": "EngineDeadError"}}')
                else:
                    self.reply(200, engine.answer(body, self.headers["X-Request-Id"]))

            def reply(self, status, text):
                # Who has asked may not wait any longer.
                with suppress(OSError):
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self):
        return self.server.server_address[1]

    @property
    def at(self):
        return {"host": "127.0.0.1", "port": self.port}

    def metrics(self):
        with self.lock:
            for what, tokens in self.others.items():
                self.counts[what] += tokens
            got, own = self.counts["transferred"], self.counts["computed"]
        if self.release == "v0.13.0":
            return (
                f'vllm:external_prefix_cache_queries_total{{engine="0"}} {got + own}\n'
                f'vllm:external_prefix_cache_hits_total{{engine="0"}} {got}\n'
            )
        sources = {"local_compute": own, "local_cache_hit": 0, "external_kv_transfer": got}
        return "".join(
            f'vllm:prompt_tokens_by_source_total{{engine="0",source="{source}"}} {tokens}\n'
            for source, tokens in sources.items()
        )

    def answer(self, body, request_id):
        with self.lock:
            self.asked.append((body, request_id))
        kv, prompt = body.get("kv_transfer_params") or {}, len(body["prompt"].split())
        answer = {"text": self.alone, "finish_reason": self.finish, "stop_reason": self.stop_reason}
        usage = {"prompt_tokens": prompt, "completion_tokens": self.tokens or body["max_tokens"]}
        given = None
        if self.role == "prefiller":
            if self.hands_over and kv.get("remote_block_ids") is None:
                given = {"do_remote_prefill": True, "remote_port": 30000, "request": request_id}
        elif kv.get("metaserver") and not self.silent:
            self.call(kv["metaserver"], request_id)
        got = bool(kv) and not self.recomputes
        if kv:
            answer["text"] = self.pulled
        with self.lock:
            self.counts["transferred" if got else "computed"] += prompt
        if self.details and got:
            usage["prompt_tokens_details"] = {"cached_tokens": prompt - 1}
        return json.dumps({"choices": [answer], "usage": usage, "kv_transfer_params": given})

    @staticmethod
    def call(url, request_id):
        told = {"request_id": f"cmpl-{request_id}-0", "remote_port": 30100, "remote_block_ids": [1, 2]}
        with suppress(OSError):
            OPENER.open(urllib.request.Request(url, json.dumps(told).encode()), timeout=10).read()


@pytest.fixture
def engines():
    """`engines(2, 1)`: two prefillers and a decoder."""
    made = []

    def make(prefillers, decoders, release="v0.13.0"):
        found = [[Engine(role, release) for _ in range(count)] for role, count in
                 (("prefiller", prefillers), ("decoder", decoders))]  # fmt: skip
        made.extend(found[0] + found[1])
        return found

    yield make
    for engine in made:
        engine.server.shutdown()
        engine.server.server_close()


def instances(role, engines):
    letters = "abcdefgh"
    return [{"instance": f"{role}_{letters[at]}", "apis": [one.at]} for at, one in enumerate(engines)]


def ask(left, right, **options):
    given = {name: argument.get("default") for name, argument in canary.ARGUMENTS.items()}
    return canary.result(
        {
            **given,
            "prefillers": instances("prefill", left),
            "decoders": instances("decode", right),
            "protocol": "pull",
            "release": "v0.13.0",
            "model": "deepseek_v3",
            "timeout": 10,
            "listen": {"host": "127.0.0.1", "port": 0},
            "_check_mode": False,
            **options,
        }
    )


def codes(result):
    """(code, pair) of each finding."""
    return [(finding["code"], finding["instance"]) for finding in result["findings"]]


PROTOCOLS = pytest.mark.parametrize("protocol", ["pull", "push"])
RELEASES = pytest.mark.parametrize("release", ["v0.13.0", "v0.18.0", "v0.23.0"])


@RELEASES
@PROTOCOLS
def test_good_engines_have_no_findings(engines, protocol, release):
    prefillers, decoders = engines(2, 2, release)
    result = ask(prefillers, decoders, protocol=protocol, release=release)
    assert "failed" not in result
    assert (result["changed"], result["findings"], result["suspects"]) == (False, [], [])
    assert [(pair["prefiller"], pair["decoder"]) for pair in result["pairs"]] == [
        ("prefill_a", "decode_a"),
        ("prefill_a", "decode_b"),
        ("prefill_b", "decode_a"),
        ("prefill_b", "decode_b"),
    ]
    for pair in result["pairs"]:
        assert (pair["ok"], pair["texts"], pair["transferred"]) == (True, [TEXT] * len(PROMPTS), 1.0)
    assert result["texts"]["prefill_a decode_b"] == [TEXT] * len(PROMPTS)


def test_the_prefiller_is_asked_as_upstream_s_proxy_does_and_the_decoder_gets_what_it_told(engines):
    ((prefiller,), (decoder,)) = engines(1, 1)
    ask([prefiller], [decoder], prompts=["Hello"], max_tokens=9)
    ((first, first_id),) = prefiller.asked
    alone, (second, second_id) = decoder.asked
    assert "kv_transfer_params" not in alone[0]
    assert (first["max_tokens"], first["min_tokens"], first["stream"]) == (1, 1, False)
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert second["kv_transfer_params"]["request"] == first_id == second_id != alone[1]
    assert (second["max_tokens"], second["temperature"]) == (9, 0)
    # What an earlier request has left in a prefix cache does not count.
    assert first["cache_salt"] == second["cache_salt"] != alone[0]["cache_salt"]


def test_the_prefiller_pushes_to_where_the_decoder_says(engines):
    ((prefiller,), (decoder,)) = engines(1, 1)
    ask([prefiller], [decoder], prompts=["Hello"], protocol="push")
    ((body, request_id),) = prefiller.asked
    assert body["kv_transfer_params"]["remote_block_ids"] == [1, 2]
    assert (body["max_tokens"], body["prompt"]) == (1, "Hello")
    assert request_id == decoder.asked[1][1]


def test_engines_that_do_both_are_asked_alone(engines):
    _, decoders = engines(0, 2)
    decoders[1].alone = ""
    result = ask([], decoders, protocol="none")
    assert codes(result) == [("canary-empty", "decode_b")]
    assert [(pair["prefiller"], pair["ok"], pair["transferred"]) for pair in result["pairs"]] == [
        ("", True, None),
        ("", False, None),
    ]
    assert list(result["texts"]) == ["decode_a"]
    assert result["suspects"] == ["decode_b"]


def spoil(engine, **behaviour):
    for name, value in behaviour.items():
        assert hasattr(engine, name), name
        setattr(engine, name, value)


@PROTOCOLS
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        pytest.param({"fails": 500}, "canary-no-answer", id="fails"),
        pytest.param({"pulled": "  "}, "canary-empty", id="empty"),
        pytest.param({"pulled": " the ans" * 8}, "canary-repeats", id="repeated"),
        pytest.param({"finish": None}, "canary-cut", id="no end"),
        pytest.param({"finish": "abort"}, "canary-cut", id="aborted"),
        pytest.param({"tokens": 3}, "canary-cut", id="few tokens"),
        pytest.param({"pulled": " six", "finish": "stop"}, "canary-cut", id="few words"),
        pytest.param({"pulled": " one two three four"}, "canary-wrong", id="wrong"),
        pytest.param({"recomputes": True}, "canary-recomputed", id="recomputed"),
    ],
)
def test_a_bad_decoder_fails_in_all_its_pairs_and_is_the_suspect(engines, protocol, behaviour, code):
    prefillers, decoders = engines(2, 2)
    spoil(decoders[1], **behaviour)
    result = ask(prefillers, decoders, protocol=protocol)
    assert codes(result) == [(code, "prefill_a → decode_b"), (code, "prefill_b → decode_b")]
    assert [pair["ok"] for pair in result["pairs"]] == [True, False, True, False]
    assert result["suspects"] == ["decode_b"]
    assert result["failed"]
    assert "2 of 4 pairs" in result["msg"]
    assert "no good one: decode_b" in result["msg"]
    assert code in result["msg"]
    assert set(result["texts"]) == {"prefill_a decode_a", "prefill_b decode_a"}


@PROTOCOLS
def test_a_prefiller_that_fails_is_named_and_its_decoder_is_not(engines, protocol):
    ((prefiller,), decoders) = engines(1, 1)
    prefiller.fails = 503
    result = ask([prefiller], decoders, protocol=protocol)
    assert codes(result) == [("canary-no-answer", "prefill_a → decode_a")]
    assert f"the prefiller at http://127.0.0.1:{prefiller.port}" in result["findings"][0]["message"]
    assert "EngineDeadError" in result["findings"][0]["message"]
    assert result["suspects"] == ["prefill_a"]


def test_a_prefiller_that_does_not_say_where_its_cache_is(engines):
    prefillers, decoders = engines(2, 1)
    prefillers[0].hands_over = False
    result = ask(prefillers, decoders)
    assert codes(result) == [("canary-no-kv-params", "prefill_a → decode_a")]
    assert result["suspects"] == ["prefill_a"]


def test_a_decoder_that_does_not_run(engines):
    prefillers, decoders = engines(1, 1)
    gone = Engine("decoder")
    gone.server.shutdown()
    gone.server.server_close()
    result = ask(prefillers, [*decoders, gone])
    assert codes(result) == [("canary-no-answer", "prefill_a → decode_b")]
    assert result["suspects"] == ["decode_b"]
    # The prefiller was not asked in vain.
    assert len(prefillers[0].asked) == len(PROMPTS)


def test_a_layerwise_decoder_that_does_not_call(engines):
    prefillers, (decoder,) = engines(1, 1)
    decoder.silent = True
    spoil_pairs_only(decoder)
    result = ask(prefillers, [decoder], protocol="push")
    assert codes(result) == [("canary-not-called", "prefill_a → decode_a")]
    assert "/v1/metaserver" in result["findings"][0]["message"]
    assert result["suspects"] == ["decode_a"]


def spoil_pairs_only(decoder):
    """It refuses what comes with transfer parameters."""
    good = decoder.answer
    decoder.answer = lambda body, name: "" if body.get("kv_transfer_params") else good(body, name)


def test_a_layerwise_prefiller_that_does_not_answer(engines):
    (prefiller,), (decoder,) = engines(1, 1)
    answered = threading.Event()
    prefiller.answer = lambda *_: str(answered.wait(20))
    try:
        result = ask([prefiller], [decoder], protocol="push", timeout=0.5)
    finally:
        answered.set()
    assert codes(result) == [("canary-no-answer", "prefill_a → decode_a")]
    assert f"the prefiller at http://127.0.0.1:{prefiller.port}" in result["findings"][0]["message"]
    assert result["suspects"] == ["prefill_a"]


PREFILLER_FAULT = Fault("canary-no-answer", "", side="prefiller")
FAULT = Fault("canary-wrong", "")


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        pytest.param([("a", "x", FAULT)], ["a", "x"], id="either"),
        pytest.param([("a", "x", PREFILLER_FAULT)], ["a"], id="the side is known"),
        pytest.param([("a", "x", FAULT), ("b", "x", None)], ["a"], id="the other is good elsewhere"),
        pytest.param([("a", "x", FAULT), ("a", "y", None), ("b", "x", None)], [], id="the pair alone"),
        pytest.param(
            [("a", "x", PREFILLER_FAULT), ("b", "x", PREFILLER_FAULT), ("a", "y", None), ("b", "y", None)],
            ["x"],
            id="every prefiller fails with one decoder",
        ),
        pytest.param([("", "x", FAULT), ("", "y", None)], ["x"], id="alone"),
        pytest.param([("a", "x", None)], [], id="good"),
    ],
)
def test_suspects_are_in_no_good_pair(pairs, named):
    assert suspects(Asked(p, d, (fault,) if fault else ()) for p, d, fault in pairs) == named


def test_a_port_that_is_taken_is_a_finding(engines):
    prefillers, decoders = engines(1, 1)
    result = ask(prefillers, decoders, protocol="push", listen=decoders[0].at)
    assert codes(result) == [("canary-no-listener", None)]
    assert result["failed"]


def test_the_last_good_revision_is_compared_by_pair_and_prompt(engines):
    prefillers, decoders = engines(1, 2)
    known = {
        "prefill_a decode_a": [TEXT, " six seven of nine"],
        "prefill_a decode_b": [TEXT, " once upon a time"],
    }
    result = ask(prefillers, decoders, known=known)
    assert codes(result) == [("canary-changed", "prefill_a → decode_b")]
    assert "once upon" in result["findings"][0]["seen"]
    assert "failed" not in ask(prefillers, decoders, known=known, match_words=0)


def test_a_decoder_that_computes_nonsense_alone_is_told_once_by_pair(engines):
    prefillers, (decoder,) = engines(2, 1)
    decoder.alone = " !!!!!!!!!!!!!!!!"
    result = ask(prefillers, [decoder])
    assert codes(result) == [
        ("canary-repeats", "prefill_a → decode_a"),
        ("canary-repeats", "prefill_b → decode_a"),
    ]
    assert "alone" in result["findings"][0]["message"]
    assert result["suspects"] == ["decode_a"]
    assert prefillers[0].asked == []


def test_everything_is_reported_at_once(engines):
    prefillers, decoders = engines(2, 2)
    prefillers[0].fails = 500
    decoders[1].pulled = ""
    result = ask(prefillers, decoders)
    assert codes(result) == [
        ("canary-empty", "prefill_b → decode_b"),
        ("canary-no-answer", "prefill_a → decode_a"),
        ("canary-no-answer", "prefill_a → decode_b"),
    ]
    assert result["suspects"] == ["prefill_a", "decode_b"]


@RELEASES
@pytest.mark.parametrize(
    ("others", "recomputes", "expected"),
    [
        pytest.param({"transferred": 5000}, False, [], id="good beside good"),
        pytest.param({"computed": 5000}, True, ["canary-recomputed"], id="bad beside bad"),
        pytest.param({"computed": 5000}, False, ["canary-transfer-unknown"], id="good beside bad"),
        pytest.param({"transferred": 5000}, True, ["canary-transfer-unknown"], id="bad beside good"),
    ],
)
def test_other_requests_hide_a_transfer_but_never_turn_it_around(
    engines, release, others, recomputes, expected
):
    prefillers, (decoder,) = engines(1, 1, release)
    spoil(decoder, recomputes=recomputes)
    decoder.others.update(others)
    result = ask(prefillers, [decoder], release=release)
    assert [code for code, _pair in codes(result)] == expected
    assert ("failed" in result) == ("canary-recomputed" in expected)
    assert result["suspects"] == (["prefill_a", "decode_a"] if "failed" in result else [])


def test_the_answer_itself_tells_a_transfer_where_the_engine_says_so(engines):
    prefillers, (decoder,) = engines(1, 1)
    spoil(decoder, details=True)
    decoder.others["computed"] = 5000
    result = ask(prefillers, [decoder])
    assert result["findings"] == []
    assert 0.9 < result["pairs"][0]["transferred"] < 1


def test_one_prefiller_whose_prompts_are_recomputed_is_told_from_the_others_of_the_same_decoder(engines):
    prefillers, (decoder,) = engines(3, 1)
    lost, good = f"{prefillers[1].port}", decoder.answer
    told = prefillers[1].answer

    def answer(body, name):
        return told(body, name).replace("30000", lost)

    def pull(body, name):
        kv = body.get("kv_transfer_params") or {}
        return good(
            {**body, "kv_transfer_params": None} if str(kv.get("remote_port")) == lost else body, name
        )

    prefillers[1].answer, decoder.answer = answer, pull
    result = ask(prefillers, [decoder])
    assert codes(result) == [("canary-recomputed", "prefill_b → decode_a")]
    assert [pair["transferred"] for pair in result["pairs"]] == [1.0, 0.0, 1.0]
    assert result["suspects"] == ["prefill_b"]


def test_without_metrics_the_texts_still_count(engines):
    prefillers, (decoder,) = engines(1, 1)
    decoder.metrics = lambda: ""
    result = ask(prefillers, [decoder])
    assert codes(result) == [("canary-transfer-unknown", "prefill_a → decode_a")]
    assert result["findings"][0]["severity"] == "hint"
    assert "failed" not in result
    assert result["pairs"][0]["transferred"] is None


def test_a_first_request_that_fails_is_asked_again_where_that_is_wanted(engines):
    ((prefiller,), (decoder,)) = engines(1, 1)

    def once():
        good, left = decoder.answer, [1]

        def answer(body, name):
            if body.get("kv_transfer_params") and left:
                left.pop()
                return ""
            return good(body, name)

        return answer

    good, decoder.answer = decoder.answer, once()
    assert codes(ask([prefiller], [decoder])) == [("canary-no-answer", "prefill_a → decode_a")]
    decoder.answer = good
    decoder.answer = once()
    assert ask([prefiller], [decoder], attempts=2)["findings"] == []


def test_a_request_that_a_full_decoder_gives_back_is_asked_again(engines):
    ((prefiller,), (decoder,)) = engines(1, 1)
    good, left = decoder.answer, [1]

    def answer(body, name):
        text = good(body, name)
        if body.get("kv_transfer_params") and left:
            left.pop()
            return text.replace('"stop_reason": null', '"stop_reason": "recomputed"')
        return text

    decoder.answer = answer
    assert ask([prefiller], [decoder])["findings"] == []


def test_only_pairs_with_a_named_instance_are_asked(engines):
    prefillers, decoders = engines(2, 2)
    result = ask(prefillers, decoders, only=["prefill_a"])
    assert list(result["texts"]) == ["prefill_a decode_a", "prefill_a decode_b"]
    assert prefillers[1].asked == []
    result = ask(prefillers, decoders, only=["prefill_a", "decode_b"])
    assert list(result["texts"]) == ["prefill_a decode_a", "prefill_a decode_b", "prefill_b decode_b"]
    assert "prefill_x" in ask(prefillers, decoders, only=["prefill_x"])["msg"]


def test_every_api_of_an_instance_is_asked(engines):
    prefillers, decoders = engines(2, 3)
    decoders[2].pulled = ""
    result = ask(
        [],
        [],
        prefillers=[{"instance": "p", "apis": [engine.at for engine in prefillers]}],
        decoders=[{"instance": "d", "apis": [engine.at for engine in decoders]}],
    )
    assert codes(result) == [("canary-empty", "p → d")]
    assert str(decoders[2].port) in result["findings"][0]["message"]
    # Three combinations, each with all prompts; a decoder also alone.
    assert [len(engine.asked) for engine in prefillers] == [2 * len(PROMPTS), len(PROMPTS)]
    assert [len(engine.asked) for engine in decoders] == [2 * len(PROMPTS)] * 3
    assert len(result["pairs"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "push", "listen": None}, "listen"),
        ({"decoders": [{"instance": "d", "apis": []}]}, "apis"),
        ({"api_key_file": "/nonexistent"}, "API key"),
    ],
    ids=["nowhere to listen", "no API", "no key"],
)
def test_wrong_options_are_refused(options, message):
    result = ask([], [], **options)
    assert result["failed"]
    assert message in result["msg"]


def test_the_key_is_sent_and_check_mode_sends_nothing(engines, tmp_path):
    prefillers, decoders = engines(1, 1)
    (tmp_path / "key").write_text("s3cret\n")
    assert ask(prefillers, decoders, api_key_file=str(tmp_path / "key"))["findings"] == []
    assert prefillers[0].key == decoders[0].key == "Bearer s3cret"
    asked = len(decoders[0].asked)
    result = ask(prefillers, decoders, _check_mode=True)
    assert (result["skipped"], result["pairs"], result["texts"]) == (True, [], {})
    assert len(decoders[0].asked) == asked


def test_the_own_prompts_are_short_but_for_one_that_is_longer_than_a_block():
    lengths = [len(prompt.replace(",", " ,").split()) for prompt in PROMPTS]
    assert lengths[:2] < [20, 20]
    assert lengths[2] > 128
    assert PROMPTS[2].endswith("amber, birch, candle, dragon,")
