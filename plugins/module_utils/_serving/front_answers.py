# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a client sees of the front beside answers of the model: its errors, its closed paths, its models."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

from .engine_answers import Client, error_text

# What routers and engines serve, and clients must not reach.
CLOSED = ("/metrics", "/instances/add")
WRONG_KEY = "wrong-key-of-the-smoke-test"

TLS_CURE = (
    "Check that pd_front_ca has the authority of pd_front_certificate, and that the certificate is valid for"
    " pd_front_name and is followed by its intermediate ones."
)
CONFIG_CURE = "Run playbooks/deploy.yml, and see journalctl -u for the unit of the front."
KEY_CURE = "Run playbooks/deploy.yml: the front may have other keys than pd_front_api_keys."


def untrusted(error: Exception) -> ssl.SSLError | None:
    """Return the failure of TLS behind an error of a request; None if it is another one."""
    reason = getattr(error, "reason", error)
    return reason if isinstance(reason, ssl.SSLError) else None


class Refusal:
    """The status of an answer, and the code in an error of the OpenAI API; None if it is not of that form."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        try:
            error = json.loads(text)["error"]
            self.code = str(error["code"]) if isinstance(error["message"], str) else None
        except (ValueError, KeyError, TypeError):
            self.code = None


def refusal(request: Callable[[], Any]) -> Refusal:
    """Send a request that must be refused. Raises OSError, HTTPException without any answer."""
    try:
        request()
    except urllib.error.HTTPError as error:
        return Refusal(error.code, error.read().decode("utf-8", errors="replace"))
    return Refusal(200, "")


def problems(
    client: Any, stranger: Client | None, url: str, model: str, body: Any
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong and its cure.

    client: sends a client's requests.
    stranger: sends requests with a wrong key; None if the front asks for none.
    url: base URL of the front.
    model: its name in the API.
    body: a completion.
    """
    try:
        yield from _models(client, url, model)
        refused: list[tuple[str, int, Callable[[], Any], str]] = [
            (f"{url}{path} as a client", 404, lambda path=path: client.get(url + path), CONFIG_CURE)  # type: ignore[misc]
            for path in CLOSED
        ]
        if stranger is not None:
            who = stranger
            refused.append(
                (
                    f"{url}/v1/completions with a wrong key",
                    401,
                    lambda: who.post(url + "/v1/completions", body),
                    "Check pd_front_api_keys. " + CONFIG_CURE,
                )
            )
        for what, status, request, cure in refused:
            answer = refusal(request)
            if answer.status != status:
                yield f"{what} is answered with status {answer.status}, not {status}", cure
            elif answer.code is None:
                yield f"{what} is answered with status {status}, but not with an error in JSON", cure
    except (OSError, http.client.HTTPException) as error:
        yield f"The front {url} does not answer: {error_text(error)}", CONFIG_CURE


def _models(client: Any, url: str, model: str) -> Iterator[tuple[str, str]]:
    at = f"{url}/v1/models"
    try:
        text = client.get(at)
    except urllib.error.HTTPError as error:
        # The key has sent what it may send in this minute.
        if error.code == 429:
            return
        cure = KEY_CURE if error.code == 401 else CONFIG_CURE
        yield f"{at} fails with {error_text(error)}", cure
        return
    try:
        found = [str(one["id"]) for one in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError):
        yield f"{at} is answered with status 200, but not with a list of models", CONFIG_CURE
        return
    if model not in found:
        yield (
            f"{at} lists {', '.join(found) or 'no model'}, not {model}",
            "Check pd_served_model_name, and which engines the router knows.",
        )
