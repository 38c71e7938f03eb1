# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Queries the engines behind a proxy directly, because the proxy's status does not show the cause.

Upstream's proxy answers 500 for whatever a prefiller answers, a 400 included, and 200 with an empty body
when a decoder fails (A@v0.13.0:examples/disaggregated_prefill_v1/
load_balance_proxy_server_example.py:556-580).
"""

from __future__ import annotations

import http.client
import json
import urllib.error
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

# Concurrent requests: with external data parallel an instance has an API for each of its ranks.
AT_ONCE = 16
# Number of addresses in one finding.
NAMED = 3
TEXT_LIMIT = 300

ANSWERS = "an answer"
UNREACHABLE = "unreachable"


class Client:
    """The interface of a client that sends the requests."""

    def post(self, url: str, body: Mapping[str, Any]) -> tuple[str, float, float]:
        """Return the text of an answer, seconds until its first byte, and seconds in total."""
        raise NotImplementedError


class Answer(NamedTuple):
    """The answer of one engine: its side (prefiller or decoder), URL, kind and text.

    ``kind`` is the HTTP status of an error, ``ANSWERS`` or ``UNREACHABLE``.
    """

    side: str
    url: str
    kind: object
    text: str


def error_text(error: Exception) -> str:
    """Return the error of a request as one sentence; for an HTTP error with the API's message."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            body = error.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException):
            return f"HTTP {error.code}, but its text was not received"
        return f"HTTP {error.code}: {api_message(body)!r}"
    return str(getattr(error, "reason", error)) or type(error).__name__


def api_message(body: str) -> str:
    """Return the message in the body of an error, or else the body, truncated.

    The format is that of V@0.13.0:vllm/entrypoints/openai/protocol.py:123-131.
    """
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict):
        inner = content.get("error")
        for candidate in (inner.get("message") if isinstance(inner, dict) else inner, content.get("message")):
            if isinstance(candidate, str) and candidate:
                return candidate[:TEXT_LIMIT]
    return body[:TEXT_LIMIT]


def ask_engines(
    http_client: Client, urls: Mapping[str, Sequence[str]], path: str, body: Mapping[str, Any]
) -> list[Answer]:
    """Send a request to all engines concurrently and return their answers.

    http_client: sends the requests.
    urls: base URLs of the engines by side, prefiller or decoder.
    path: path of the request.
    body: its body. A prefiller gets it as from the proxy: for one token, not streamed.
    """
    short = {**body, "max_tokens": 1, "stream": False}
    asked = [(side, url, short if side == "prefiller" else body) for side in urls for url in urls[side]]
    if not asked:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(asked))) as pool:
        return list(pool.map(lambda one: _ask(http_client, path, *one), asked))


def _ask(http_client: Client, path: str, side: str, url: str, body: Mapping[str, Any]) -> Answer:
    try:
        text = http_client.post(url + path, body)[0]
    except urllib.error.HTTPError as error:
        return Answer(side, url, error.code, error_text(error))
    except (OSError, http.client.HTTPException) as error:
        return Answer(side, url, UNREACHABLE, f"no complete answer ({error_text(error)})")
    if not text.strip():
        return Answer(side, url, 200, "HTTP 200 with an empty body")
    return Answer(side, url, ANSWERS, "an answer")


def report(answers: Sequence[Answer]) -> str:
    """Return one sentence with the engines' answers, grouped by answer."""
    alike: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        alike.setdefault((answer.side, answer.text), []).append(answer.url)
    parts = []
    for (side, text), urls in alike.items():
        more = f" and {len(urls) - NAMED} more" if len(urls) > NAMED else ""
        noun = side if len(urls) == 1 else f"{side}s"
        verb = "gives" if len(urls) == 1 else "give"
        parts.append(f"the {noun} {', '.join(urls[:NAMED])}{more} {verb} {text}")
    return f"Asked directly, {'; '.join(parts)}" if parts else ""


def cure(answers: Sequence[Answer], model: str) -> str:
    """Return what to do about the engines' answers; the worst answer decides. ``model``: name in the API."""
    alone = not any(answer.side == "prefiller" for answer in answers)
    kinds = {answer.kind for answer in answers}
    failing = [answer for answer in answers if answer.kind != ANSWERS]
    if not failing and alone:
        return "The engine answers this time. Its log shows what failed before."
    if not failing:
        return (
            "Each engine answers directly, so the fault is between them. Check the proxy's log and its list"
            " of engines, and the decoder's log for a failed transfer of the KV cache."
        )
    where = ", ".join(dict.fromkeys(answer.url for answer in failing[:NAMED]))
    for found, advice in (
        (
            UNREACHABLE,
            f"Check whether the engine at {where} is running, and its log; playbooks/deploy.yml starts it.",
        ),
        (401, "The engines require an API key. Check that pd_api_key is the same everywhere."),
        (403, "The engines require an API key. Check that pd_api_key is the same everywhere."),
        (404, f"Check that {model!r} is the engines' --served-model-name."),
    ):
        if found in kinds:
            return advice
    if any(isinstance(kind, int) and 400 <= kind < 500 for kind in kinds):
        return (
            "The engines refuse this request; they have not failed. Correct the request (for the smoke test"
            " smoke_test_prompt and smoke_test_max_tokens), or the limits in the engines' arguments."
        )
    return f"Check the log of the engine at {where}."
