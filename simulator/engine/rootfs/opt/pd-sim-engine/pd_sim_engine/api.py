"""The OpenAI-compatible server: the routes of vLLM's that a rollout meets."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from . import RELEASE, VLLM_VERSION, model
from .engine import Engine
from .http_server import Request, Response, json_response
from .request import EngineDead, Outcome, RequestFailed, Work

ROUTES = {
    "/health": "GET",
    "/load": "GET",
    "/ping": "GET, POST",
    "/version": "GET",
    "/metrics": "GET",
    "/tokenize": "POST",
    "/v1/models": "GET",
    "/v1/completions": "POST",
    "/v1/chat/completions": "POST",
}
COMPLETION_MAX_TOKENS = 16
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class _Refused(Exception):
    def __init__(self, message: str, kind: str = "BadRequestError", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.kind, self.status = message, kind, status


def _error(message: str, kind: str, status: int) -> Response:
    return json_response({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


class Api:
    """Answers requests by the engine; `on_dead` is called when the engine turns out to be dead, on releases
    whose API server leaves then."""

    def __init__(self, engine: Engine, on_dead: Callable[[], None]) -> None:
        self.engine = engine
        self.on_dead = on_dead
        keys = engine.config.args.api_key or [os.environ.get("VLLM_API_KEY")]
        self.keys = [key for key in keys if key]

    async def __call__(self, request: Request) -> Response:
        allowed = ROUTES.get(request.path)
        if self.keys and request.path.startswith("/v1") and not self._authorized(request):
            return json_response({"error": "Unauthorized"}, 401)
        if allowed is None:
            return json_response({"detail": "Not Found"}, 404)
        if request.method not in allowed:
            return json_response({"detail": "Method Not Allowed"}, 405)
        try:
            return await self._route(request)
        except _Refused as refused:
            return _error(refused.message, refused.kind, refused.status)
        except RequestFailed:
            return _error("Internal server error", "InternalServerError", 500)
        except EngineDead:
            if RELEASE.goes_with_a_request:
                self.on_dead()
            return _error(DEAD, "InternalServerError", 500)

    def _authorized(self, request: Request) -> bool:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and key.strip() in self.keys

    async def _route(self, request: Request) -> Response:
        engine = self.engine
        match request.path:
            case "/health" | "/ping":
                return Response(503 if engine.state.died.done() else 200)
            case "/version":
                return json_response({"version": VLLM_VERSION})
            case "/load":
                return json_response({"server_load": 0})
            case "/metrics":
                text = engine.state.metrics.render().encode()
                return Response(200, text, "text/plain; version=0.0.4; charset=utf-8")
            case "/v1/models":
                return json_response(self._models())
            case "/tokenize":
                tokens = model.tokenize(self._prompt_text(self._body(request).get("prompt", "")))
                ids = [model.token_id(token) for token in tokens]
                return json_response(
                    {"count": len(ids), "max_model_len": engine.config.model.max_model_len, "tokens": ids}
                )
            case "/v1/chat/completions":
                return await self._chat(request)
            case _:
                return await self._completions(request)

    def _models(self) -> dict[str, Any]:
        config = self.engine.config
        rows: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": int(self.engine.state.metrics.created),
                "owned_by": "vllm",
                "root": config.model.path,
                "parent": None,
                "max_model_len": config.model.max_model_len,
                "permission": [],
            }
            for name in config.served_names
        ]
        return {"object": "list", "data": rows}

    # -- requests ------------------------------------------------------------------------------------

    def _body(self, request: Request) -> dict[str, Any]:
        try:
            body = request.json()
        except ValueError as error:
            raise _Refused(
                f"[{{'type': 'json_invalid', 'msg': 'JSON decode error', 'ctx': {{'error': '{error}'}}}}]"
            ) from None
        if not isinstance(body, dict):
            raise _Refused("Input should be a valid dictionary or object to extract fields from")
        return body

    def _model(self, body: dict[str, Any]) -> str:
        name = body.get("model")
        if name is not None and name not in self.engine.config.served_names:
            raise _Refused(f"The model `{name}` does not exist.", "NotFoundError", 404)
        return name or self.engine.config.served_names[0]

    @staticmethod
    def _prompt_text(prompt: Any) -> str:
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, list):
            return " ".join(str(item) for item in prompt)
        raise _Refused("Either prompt or prompt_embeds must be provided and non-empty.")

    def _work(
        self, body: dict[str, Any], request_id: str, prompt: str, right: list[str], default: int | None
    ) -> tuple[Work, Outcome]:
        prompt_tokens = max(1, len(model.tokenize(prompt)))
        limit = self.engine.config.model.max_model_len
        if prompt_tokens > limit:
            raise _Refused(
                f"This model's maximum context length is {limit} tokens. However, your request has "
                f"{prompt_tokens} input "
                "tokens. Please reduce the length of the input messages."
            )
        room = limit - prompt_tokens
        given = body.get("max_completion_tokens", body.get("max_tokens"))
        max_tokens = given if given is not None else (default if default is not None else room)
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise _Refused(f"max_tokens must be at least 1, got {max_tokens}.")
        if given is not None and given > room:
            raise _Refused(
                f"'max_tokens' or 'max_completion_tokens' is too large: {given}. This model's maximum "
                "context length is "
                f"{limit} tokens and your request has {prompt_tokens} input tokens ({given} > {limit} "
                f"- {prompt_tokens})."
            )
        stop = body.get("stop") or []
        work = Work(
            request_id=request_id,
            prompt=prompt,
            right=right,
            max_tokens=max_tokens,
            min_tokens=int(body.get("min_tokens") or 0),
            ignore_eos=bool(body.get("ignore_eos")),
            stop=[stop] if isinstance(stop, str) else list(stop),
            kv=body.get("kv_transfer_params"),
        )
        return work, Outcome(prompt_tokens)

    async def _completions(self, request: Request) -> Response:
        body = self._body(request)
        name = self._model(body)
        prompt = body.get("prompt")
        if not prompt:
            raise _Refused("Either prompt or prompt_embeds must be provided and non-empty.")
        several = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
        texts = [self._prompt_text(item) for item in prompt] if several else [self._prompt_text(prompt)]
        response_id = f"cmpl-{request.headers.get('x-request-id') or uuid.uuid4().hex}"
        jobs = [
            self._work(body, f"{response_id}-{index}", text, model.complete(text), COMPLETION_MAX_TOKENS)
            for index, text in enumerate(texts)
        ]
        head = {"id": response_id, "object": "text_completion", "created": int(time.time()), "model": name}
        if body.get("stream"):
            return self._streamed(self._completion_events(body, head, jobs))
        choices = []
        for index, (work, outcome) in enumerate(jobs):
            text = "".join([token async for token in self.engine.generate(work, outcome)])
            if body.get("echo"):
                text = work.prompt + text
            choices.append(
                {
                    "index": index,
                    "text": text,
                    "logprobs": None,
                    "finish_reason": outcome.finish_reason,
                    "stop_reason": outcome.stop_reason,
                    "token_ids": None,
                    "prompt_logprobs": None,
                    "prompt_token_ids": None,
                }
            )
        return json_response(
            {
                **head,
                "choices": choices,
                "service_tier": None,
                "system_fingerprint": None,
                "usage": _usage([outcome for _, outcome in jobs]),
                "kv_transfer_params": jobs[-1][1].kv,
            }
        )

    async def _completion_events(
        self, body: dict[str, Any], head: dict[str, Any], jobs: list[tuple[Work, Outcome]]
    ) -> AsyncGenerator[dict[str, Any], None]:
        for index, (work, outcome) in enumerate(jobs):
            held: str | None = None
            async with aclosing(self.engine.generate(work, outcome)) as tokens:
                async for token in tokens:
                    if held is not None:
                        yield {**head, "choices": [_text_choice(index, held, None, None)]}
                    held = token
            yield {
                **head,
                "choices": [_text_choice(index, held or "", outcome.finish_reason, outcome.stop_reason)],
            }
        if (body.get("stream_options") or {}).get("include_usage"):
            yield {**head, "choices": [], "usage": _usage([outcome for _, outcome in jobs])}

    async def _chat(self, request: Request) -> Response:
        body = self._body(request)
        name = self._model(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _Refused("[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
        response_id = f"chatcmpl-{request.headers.get('x-request-id') or uuid.uuid4().hex}"
        work, outcome = self._work(body, response_id, model.chat_prompt(messages), model.chat(messages), None)
        created = int(time.time())
        if body.get("stream"):
            head = {"id": response_id, "object": "chat.completion.chunk", "created": created, "model": name}
            return self._streamed(self._chat_events(body, head, work, outcome))
        text = "".join([token async for token in self.engine.generate(work, outcome)])
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [],
            "reasoning": None,
            "reasoning_content": None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": outcome.finish_reason,
            "stop_reason": outcome.stop_reason,
            "token_ids": None,
        }
        return json_response(
            {
                "id": response_id,
                "object": "chat.completion",
                "created": created,
                "model": name,
                "choices": [choice],
                "service_tier": None,
                "system_fingerprint": None,
                "usage": _usage([outcome]),
                "prompt_logprobs": None,
                "prompt_token_ids": None,
                "kv_transfer_params": outcome.kv,
            }
        )

    async def _chat_events(
        self, body: dict[str, Any], head: dict[str, Any], work: Work, outcome: Outcome
    ) -> AsyncGenerator[dict[str, Any], None]:
        def choice(
            delta: dict[str, Any], finish: str | None = None, stop: str | None = None
        ) -> dict[str, Any]:
            row = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            if finish is not None:
                row["stop_reason"] = stop
            return {**head, "choices": [{**row, "token_ids": None}]}

        started = False
        held: str | None = None
        async with aclosing(self.engine.generate(work, outcome)) as tokens:
            async for token in tokens:
                if not started:
                    started = True
                    yield choice({"role": "assistant", "content": ""})
                if held is not None:
                    yield choice({"content": held})
                held = token
        yield choice({"content": held or ""}, outcome.finish_reason, outcome.stop_reason)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield {**head, "choices": [], "usage": _usage([outcome])}

    def _streamed(self, events: AsyncGenerator[dict[str, Any], None]) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                async with aclosing(events):
                    async for event in events:
                        yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            except RequestFailed:
                yield _error_event("Internal server error", 500, "InternalServerError")
            except EngineDead:
                yield _error_event(DEAD, *RELEASE.death_code)
            yield b"data: [DONE]\n\n"

        return Response(200, content_type="text/event-stream; charset=utf-8", stream=pieces())


def _error_event(message: str, code: int, kind: str) -> bytes:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return f"data: {json.dumps({'error': error})}\n\n".encode()


def _text_choice(index: int, text: str, finish: str | None, stop: str | None) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": stop,
        "prompt_token_ids": None,
        "token_ids": None,
    }


def _usage(outcomes: list[Outcome]) -> dict[str, Any]:
    prompt = sum(outcome.prompt_tokens for outcome in outcomes)
    completion = sum(outcome.completion_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }
