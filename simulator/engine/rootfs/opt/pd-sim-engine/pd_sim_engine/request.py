"""A request on its way through the engine, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class EngineDead(Exception):
    """The engine core has died; the API server answers 500 and goes."""


class Aborted(Exception):
    """The engine core is told to end, and does not wait for this request."""


class RequestFailed(Exception):
    """This request only: the API answers 500 and goes on."""


@dataclass
class Work:
    """One request."""

    request_id: str
    prompt: str
    right: list[str]
    """The answer of the model to this prompt."""
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: list[str] = field(default_factory=list)
    kv: dict[str, Any] | None = None


@dataclass
class Outcome:
    """What is known when the request is finished."""

    prompt_tokens: int
    finish_reason: str | None = None
    stop_reason: str | None = None
    kv: dict[str, Any] | None = None
    completion_tokens: int = 0
