# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The canary's requests: what upstream's proxies send, to engines of the caller's choice."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from .canary_metaserver import Call, Metaserver
from .completions import BadAnswerError, Completion, completion
from .engine_answers import error_text
from .http_client import Http

PATH = "/v1/completions"
PREFILLER, DECODER = "prefiller", "decoder"
# A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:540-551; the layerwise
# script sends the same, with the parameters that the decoder has told it.
FIRST_TOKEN = {"stream": False, "max_tokens": 1, "min_tokens": 1}
PULL = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
# What a decoder ends a request with that it has no room for, so that a proxy has it prefilled again
# (A@v0.13.0:vllm_ascend/core/recompute_scheduler.py). It happens under load, and is no fault.
RECOMPUTED = "recomputed"
RECOMPUTED_TRIES = 3


class Fault(NamedTuple):
    """What is wrong with an answer: the code of the finding, its message, and the value seen.

    ``side``: the only side that can have caused it, prefiller or decoder; empty if it may be either.
    """

    code: str
    message: str
    seen: str = ""
    side: str = ""


class FaultyAnswer(Exception):
    """There is no answer that could be examined."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Requests:
    """Sends requests to engines.

    http: sends them.
    model: name of the model in the API.
    max_tokens: maximum length of an answer in tokens.
    """

    def __init__(self, http_client: Http, model: str, max_tokens: int) -> None:
        self.http, self.model, self.max_tokens = http_client, model, max_tokens

    def alone(self, decoder: str, prompt: str) -> Completion:
        """Return the answer of a decoder that computes the prompt itself. Raises FaultyAnswer."""
        return self.send(DECODER, decoder, self.body(prompt), new_id())

    def pair(self, prefiller: str, decoder: str, prompt: str) -> Completion:
        """Return the decoder's answer to a prompt that the prefiller has computed. Raises FaultyAnswer.

        prefiller, decoder: base URLs.
        """
        answer = self._pair(prefiller, decoder, prompt)
        for _again in range(RECOMPUTED_TRIES - 1):
            if answer.stop_reason != RECOMPUTED:
                break
            answer = self._pair(prefiller, decoder, prompt)
        return answer

    def _pair(self, prefiller: str, decoder: str, prompt: str) -> Completion:
        raise NotImplementedError

    def body(self, prompt: str) -> dict[str, Any]:
        """Return the body of a request.

        Its own salt keeps it from blocks that earlier requests have left in a prefix cache, and does not
        change the text (V@0.13.0:vllm/entrypoints/openai/protocol.py:1118).
        """
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": False,
            "cache_salt": uuid.uuid4().hex,
        }

    def send(self, side: str, url: str, body: Mapping[str, Any], request_id: str) -> Completion:
        """Return an engine's answer. Raises FaultyAnswer.

        side: prefiller or decoder.
        url: base URL of the engine.
        request_id: of v0.13.0 both sides must have the same.
        """
        # A decoder may also fail because of what it gets from the prefiller.
        blamed = "" if side == DECODER and body.get("kv_transfer_params") else side
        try:
            return completion(self.http.post(url + PATH, body, {"X-Request-Id": request_id})[0])
        except BadAnswerError as error:
            why = f"answers with status 200, but {error}"
        except (OSError, http.client.HTTPException) as error:
            why = f"gives no complete answer: {error_text(error)}"
        raise FaultyAnswer(Fault("canary-no-answer", f"the {side} at {url} {why}", side=blamed))


class Pull(Requests):
    """The prefiller first; its answer says where the decoder finds the KV cache (MooncakeConnectorV1)."""

    def _pair(self, prefiller: str, decoder: str, prompt: str) -> Completion:
        request_id, body = new_id(), self.body(prompt)
        first = self.send(
            PREFILLER, prefiller, {**body, **FIRST_TOKEN, "kv_transfer_params": PULL}, request_id
        )
        if first.kv is None:
            message = f"the prefiller at {prefiller} answers without kv_transfer_params"
            seen = f"finish_reason {first.finish_reason}"
            raise FaultyAnswer(Fault("canary-no-kv-params", message, seen, PREFILLER))
        return self.send(DECODER, decoder, {**body, "kv_transfer_params": first.kv}, request_id)


class Push(Requests):
    """The decoder first; it calls a metaserver, which has the prefiller push (MooncakeLayerwiseConnector).

    metaserver: which the decoders can reach.
    """

    def __init__(self, http_client: Http, model: str, max_tokens: int, metaserver: Metaserver) -> None:
        super().__init__(http_client, model, max_tokens)
        self.metaserver = metaserver

    def _pair(self, prefiller: str, decoder: str, prompt: str) -> Completion:
        request_id, body = new_id(), self.body(prompt)
        parameters = {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "metaserver": self.metaserver.url,
        }
        ended, prefilled = threading.Event(), threading.Event()
        answers: list[Completion] = []
        faults: list[Fault] = []

        def prefill(told: Mapping[str, Any]) -> None:
            asked = {**body, **FIRST_TOKEN, "kv_transfer_params": told}
            try:
                self.send(PREFILLER, prefiller, asked, request_id)
                prefilled.set()
            except FaultyAnswer as error:
                # The decoder waits for it without a limit of time.
                faults.append(error.fault)
                ended.set()

        def decode() -> None:
            try:
                asked = {**body, "kv_transfer_params": parameters}
                answers.append(self.send(DECODER, decoder, asked, request_id))
            except FaultyAnswer as error:
                faults.append(error.fault)
            finally:
                ended.set()

        call = Call(prefill)
        with self.metaserver.awaiting(request_id, call):
            threading.Thread(target=decode, daemon=True).start()
            ended.wait()
        if answers:
            return answers[0]
        if not call.came:
            message = f"the decoder at {decoder} does not call {self.metaserver.url}"
            raise FaultyAnswer(Fault("canary-not-called", message, faults[0].message, DECODER))
        if not prefilled.is_set() and faults[0].side != PREFILLER:
            # The decoder's time has passed first, as it was asked first.
            message = f"the prefiller at {prefiller} does not answer, and the decoder waits for it"
            raise FaultyAnswer(Fault("canary-no-answer", message, faults[0].message, PREFILLER))
        raise FaultyAnswer(faults[0])


def new_id() -> str:
    """Return the id of a request, by which it is found in the engines' logs."""
    return f"canary-{uuid.uuid4().hex}"
