# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module smoke_test: two requests, and the checks of their answers."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
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
from .engine_answers import Client, ask_engines, cure, error_text, report

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

WRONG_KV = (
    "The decoder reads a wrong KV cache. Check that /etc/hccn.conf exists on every server and is mounted"
    " into every engine's container (otherwise the decoder's plog says `'device ip' is not set correctly`),"
    " and that prefiller and decoder have the same sizes in kv_connector_extra_config."
)

# If one engine does prefill and decode, there is neither a proxy nor a transfer.
WRONG_ENGINE = (
    "The engine computes nonsense. Check that its weights are complete and that config.json has bfloat16."
)


class Http(Client):
    """HTTP requests to engines and proxy, never through an HTTP proxy of the environment."""

    def __init__(self, timeout: float, key: str | None = None) -> None:
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._timeout = timeout
        self._key = key

    def get(self, url: str) -> str:
        return self._send(urllib.request.Request(url))[0]

    def post(self, url: str, body: Mapping[str, Any]) -> tuple[str, float, float]:
        """Return (text, seconds until the first byte, seconds in total). Raises OSError, HTTPException."""
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return self._send(request)

    def _send(self, request: urllib.request.Request) -> tuple[str, float, float]:
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        begin = time.monotonic()
        with self._open(request, timeout=self._timeout) as response:
            head = response.read(1)
            first = time.monotonic() - begin
            text = (head + response.read()).decode("utf-8", errors="replace")
        return text, first, time.monotonic() - begin


class SmokeTest:
    """Sends the requests and checks their answers. ``p``: the module's options."""

    def __init__(self, http: Http, p: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> None:
        self.http, self.p, self.sleep = http, p, sleep
        self.urls = {
            side: [f"http://{backend['host']}:{backend['port']}" for backend in p[side + "s"]]
            for side in ("prefiller", "decoder")
        }
        self.alone = not self.urls["prefiller"]
        self.text_cure = WRONG_ENGINE if self.alone else WRONG_KV
        self.problems: list[str] = []
        self.result: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        # (problem, path, body) of requests through the proxy that got no answer.
        self.unanswered: list[tuple[str, str, dict[str, Any]]] = []

    def run(self) -> bool:
        before = self._counters()
        completion = self._ask("completion", self.p["proxy_url"])
        chat = self._chat()
        if completion is not None or chat is not None:
            self._served(before)
        if completion is not None:
            self._compare(completion)
        # Last, because the engines count these requests too.
        self._explain()
        return not self.problems

    def _explain(self) -> None:
        """Add a problem for each request without an answer.

        The engines are queried directly, because the proxy's status does not show the cause.
        """
        for what, path, body in self.unanswered:
            answers = ask_engines(self.http, self.urls, path, body)
            self._wrong(f"{what}. {report(answers)}", cure(answers, self.p["model"]))

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
            text, first, seconds = self.http.post(url + path, body)
        except (OSError, http.client.HTTPException) as error:
            how = "fails with" if isinstance(error, urllib.error.HTTPError) else "has no complete answer:"
            self.unanswered.append((f"The {name} ({url}{path}) {how} {error_text(error)}", path, body))
            return None
        self.seconds[name] = round(seconds, 3)
        if body.get("stream"):
            self.seconds[name + "_first_byte"] = round(first, 3)
        return text

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
            self.unanswered.append((f"The {name} is answered with status 200, but {error}", path, body))
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


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails."""
    if options["_check_mode"]:
        return {"changed": False, "skipped": True, "msg": "no requests are sent in check mode"}
    path = options["api_key_file"]
    try:
        key = Path(path).read_text(encoding="utf-8").strip() if path else None
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"Cannot read the API key: {error}"}
    test = SmokeTest(Http(options["timeout"], key), options)
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
