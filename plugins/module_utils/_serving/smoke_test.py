# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module smoke_test: two requests, the checks of their answers, and what a front refuses."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .completions import (
    BadAnswerError,
    chat_stream_text,
    completion_text,
    degenerate,
    metric_sum,
    same_beginning,
)
from .engine_answers import ANSWERS, ask_engines, cure, error_text, report
from .front_answers import KEY_CURE, TLS_CURE, WRONG_KEY, problems, untrusted
from .http_client import Http, verifying

# Counters of vLLM (V@0.13.0:vllm/v1/metrics/loggers.py): the prefiller computes the prompt, the decoder
# generates.
BACKENDS = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}},
}
ARGUMENTS: dict[str, Any] = {
    "proxy_url": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "prefillers": BACKENDS,
    "decoders": BACKENDS,
    "api_key_file": {"type": "path", "no_log": False},
    "front": {"type": "bool", "default": False},
    "client_key": {"type": "str", "default": "", "no_log": True},
    "ca": {"type": "str", "default": ""},
    "name": {"type": "str", "default": ""},
    "prompt": {"type": "str", "default": "The capital of France is"},
    "chat_prompt": {"type": "str", "default": "Name the capital of France in one sentence."},
    "max_tokens": {"type": "int", "default": 24, "no_log": False},
    "match_words": {"type": "int", "default": 2},
    "expect": {"type": "str"},
    "timeout": {"type": "float", "default": 120},
}
PREFILLER_METRIC = "vllm:prompt_tokens_total"
DECODER_METRIC = "vllm:generation_tokens_total"
# The counters are set after the answer is sent.
METRICS_SETTLE_SECONDS = 2.0

# HAProxy counts the requests of a key over 60 s (pd_front_requests_per_minute).
RATE_SECONDS = 61.0
RATE_CURE = "Put a key of its own first in pd_front_api_keys, or raise pd_front_requests_per_minute."

WRONG_KV = (
    "The decoder reads a wrong KV cache. Check that /etc/hccn.conf exists on every server and is mounted"
    " into every engine's container (otherwise the decoder's plog says `'device ip' is not set correctly`),"
    " and that prefiller and decoder have the same sizes in kv_connector_extra_config."
)

# If one engine does prefill and decode, there is neither a proxy nor a transfer.
WRONG_ENGINE = (
    "The engine computes nonsense. Check that its weights are complete and that config.json has bfloat16."
)


class SmokeTest:
    """Sends the requests and checks their answers.

    http: sends requests to engines.
    p: the module's options.
    client: sends those of a client, if these differ; to a front.
    stranger: sends a client's requests with a wrong key, if the front asks for one.
    """

    def __init__(
        self,
        http: Http,
        p: Mapping[str, Any],
        sleep: Callable[[float], None] = time.sleep,
        client: Http | None = None,
        stranger: Http | None = None,
    ) -> None:
        self.http, self.p, self.sleep = http, p, sleep
        self.client, self.stranger = client or http, stranger
        self.urls = {
            side: [f"http://{backend['host']}:{backend['port']}" for backend in p[side + "s"]]
            for side in ("prefiller", "decoder")
        }
        self.alone = not self.urls["prefiller"]
        self.text_cure = WRONG_ENGINE if self.alone else WRONG_KV
        self.problems: list[str] = []
        self.result: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        # (problem, path, body, cure if all engines answer) of requests through the proxy without an answer.
        self.unanswered: list[tuple[str, str, dict[str, Any], str]] = []

    def run(self) -> bool:
        if self.p.get("front") and not self._trusted():
            return False
        before = self._counters()
        completion = self._ask("completion", self.p["proxy_url"])
        chat = self._chat()
        if completion is not None or chat is not None:
            self._served(before)
        if completion is not None:
            self._compare(completion)
        if self.p.get("front"):
            body = self._body(prompt=self.p["prompt"], stream=False)
            asked = problems(self.client, self.stranger, self.p["proxy_url"], self.p["model"], body)
            self.problems += [f"{what}. {cure}" for what, cure in asked]
        # Last, because the engines count these requests too.
        self._explain()
        return not self.problems

    def _trusted(self) -> bool:
        """Return whether a client can connect; else no other request can be sent."""
        url = self.p["proxy_url"]
        try:
            self.client.get(url + "/health")
        except (OSError, http.client.HTTPException) as error:
            failed = untrusted(error)
            if failed is not None:
                why = getattr(failed, "verify_message", "") or failed
                self._wrong(f"A client cannot trust the front at {url}: {why}", TLS_CURE)
            return failed is None
        return True

    def _explain(self) -> None:
        """Add a problem for each request without an answer.

        The engines are queried directly, because the proxy's status does not show the cause.
        """
        for what, path, body, otherwise in self.unanswered:
            answers = ask_engines(self.http, self.urls, path, body)
            between = otherwise if all(answer.kind == ANSWERS for answer in answers) else ""
            self._wrong(f"{what}. {report(answers)}", between or cure(answers, self.p["model"]))

    def _wrong(self, what: str, cure: str) -> None:
        self.problems.append(f"{what}. {cure}")

    def _counters(self) -> dict[tuple[str, str], float | str]:
        return {
            (side, url): self._counter(url, metric)
            for side, metric in (("prefiller", PREFILLER_METRIC), ("decoder", DECODER_METRIC))
            for url in self.urls[side]
        }

    def _counter(self, url: str, metric: str) -> float | str:
        """Return the value of a counter, or why it cannot be read."""
        try:
            return metric_sum(self.http.get(url + "/metrics"), metric) or 0.0
        except (OSError, http.client.HTTPException) as error:
            return error_text(error)

    def _served(self, before: Mapping[tuple[str, str], float | str]) -> None:
        """Add a problem for each side without an engine whose counter has increased since ``before``."""
        still = {side for side, urls in self.urls.items() if urls}
        after: dict[tuple[str, str], float | str] = {}
        for _attempt in range(int(METRICS_SETTLE_SECONDS / 0.25)):
            after = self._counters()
            for (side, url), value in after.items():
                then = before[(side, url)]
                if isinstance(value, float) and isinstance(then, float) and value > then:
                    still.discard(side)
            if not still:
                return
            self.sleep(0.25)
        for side in sorted(still):
            urls = ", ".join(self.urls[side])
            refused = [
                f"{u}/metrics: {v}" for (s, u), v in after.items() if s == side and not isinstance(v, float)
            ]
            metric = PREFILLER_METRIC if side == "prefiller" else DECODER_METRIC
            self._wrong(
                f"No {side} served the requests: {metric} did not increase at {urls}"
                + "".join(f" ({r})" for r in refused),
                f"Check the proxy's list of {side}s and the {side}'s log. An answer to which only one side"
                " contributed does not test the transfer of the KV cache.",
            )

    def _body(self, **more: Any) -> dict[str, Any]:
        return {"model": self.p["model"], "max_tokens": self.p["max_tokens"], "temperature": 0, **more}

    def _post(self, name: str, url: str, path: str, body: dict[str, Any]) -> str | None:
        """Return the body of the answer, or None after recording why there is none."""
        try:
            text, first, seconds = self._sent(url, path, body)
        except urllib.error.HTTPError as error:
            how = f"The {name} ({url}{path}) fails with {error_text(error)}"
            if self._is_client(url) and error.code == 429:
                self._wrong(how, RATE_CURE)
            else:
                refused = self._is_client(url) and error.code == 401
                self.unanswered.append((how, path, body, KEY_CURE if refused else ""))
            return None
        except (OSError, http.client.HTTPException) as error:
            how = f"The {name} ({url}{path}) has no complete answer: {error_text(error)}"
            self.unanswered.append((how, path, body, ""))
            return None
        self.seconds[name] = round(seconds, 3)
        if body.get("stream"):
            self.seconds[name + "_first_byte"] = round(first, 3)
        return text

    def _is_client(self, url: str) -> bool:
        """Return whether a URL is the front's, which clients use."""
        return bool(self.p.get("front")) and url == self.p["proxy_url"]

    def _sent(self, url: str, path: str, body: dict[str, Any]) -> tuple[str, float, float]:
        if not self._is_client(url):
            return self.http.post(url + path, body)
        try:
            return self.client.post(url + path, body)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise
        # The key has sent what it may send in this minute.
        self.sleep(RATE_SECONDS)
        return self.client.post(url + path, body)

    def _ask(self, name: str, url: str) -> str | None:
        path, body = "/v1/completions", self._body(prompt=self.p["prompt"], stream=False)
        return self._text(name, path, body, self._post(name, url, path, body), completion_text)

    def _chat(self) -> str | None:
        path, messages = "/v1/chat/completions", [{"role": "user", "content": self.p["chat_prompt"]}]
        body = self._body(messages=messages, stream=True)
        return self._text(
            "chat", path, body, self._post("chat", self.p["proxy_url"], path, body), chat_stream_text
        )

    def _text(
        self, name: str, path: str, body: dict[str, Any], answer: str | None, read: Callable[[str], str]
    ) -> str | None:
        """Return the text of an answer after checking it; None if there is none.

        name: name of the request in messages.
        path, body: the request, to repeat it directly.
        answer: body of the answer, or None.
        read: extracts the text from it.
        """
        if answer is None:
            return None
        try:
            text = read(answer)
        except BadAnswerError as error:
            self.unanswered.append((f"The {name} is answered with status 200, but {error}", path, body, ""))
            return None
        self.result[name] = text
        fault = degenerate(text)
        if fault:
            self._wrong(f"The text of the {name} is not an answer: {fault}: {text[:200]!r}", self.text_cure)
        return text

    def _compare(self, completion: str) -> None:
        expect = self.p.get("expect")
        if expect and not re.search(expect, completion):
            self._wrong(
                f"The completion of {self.p['prompt']!r} does not match {expect!r}: {completion[:200]!r}",
                self.text_cure + " Or the expected text does not suit the model.",
            )
        if not self.p["match_words"] or self.alone:
            return
        reference = self._ask("reference", self.urls["decoder"][0])
        if reference is not None and not same_beginning(completion, reference, self.p["match_words"]):
            self._wrong(
                f"Through prefiller and decoder, {self.p['prompt']!r} is continued with {completion[:120]!r},"
                f" by the decoder alone with {reference[:120]!r}",
                WRONG_KV,
            )


def _clients(options: Mapping[str, Any]) -> tuple[Http, Http | None]:
    """Return who sends requests to a front: a client, and one with a wrong key if keys are used."""
    name, tls = options["name"] or None, None
    if options["proxy_url"].startswith("https:"):
        tls = verifying(options["ca"], name)
    key = options["client_key"]
    client = Http(options["timeout"], key or None, tls, name)
    return client, Http(options["timeout"], WRONG_KEY, tls, name) if key else None


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails."""
    if options["_check_mode"]:
        return {"changed": False, "skipped": True, "msg": "no requests are sent in check mode"}
    path = options["api_key_file"]
    try:
        key = Path(path).read_text(encoding="utf-8").strip() if path else None
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"Cannot read the API key: {error}"}
    engines = Http(options["timeout"], key)
    if options["front"]:
        client, stranger = _clients(options)
        test = SmokeTest(engines, options, client=client, stranger=stranger)
    else:
        test = SmokeTest(engines, options)
    if test.run():
        return {"changed": False, "seconds": test.seconds, **test.result}
    lines = [f"- {problem}" for problem in test.problems]
    return {
        **test.result,
        "failed": True,
        "changed": False,
        "msg": "\n".join(["The deployment does not answer correctly:", *lines]),
        "problems": test.problems,
    }
