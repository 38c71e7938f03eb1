# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Parses the answers of an OpenAI-like API, and checks their text. Pure functions.

Status 200 from a proxy proves nothing, as it passes on an empty body when the decoder fails. A model that
reads a wrong KV cache still answers with text: a wrong first token, then repetition. So the text itself is
checked.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

# A unit of up to 24 characters, five times in a row or more.
_REPEATED = re.compile(r"(.{1,24}?)\1{4,}", re.DOTALL)
# Shares beyond which a text counts as degenerate.
REPEATED_SHARE = 0.5
ONE_WORD_SHARE = 0.6
UNREADABLE_SHARE = 0.2
# With fewer words a share is not meaningful.
ENOUGH_WORDS = 6
_METRIC = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})?\s+(?P<value>\S+)")


class BadAnswerError(ValueError):
    """The answer does not have the format of the API."""


def degenerate(text: str) -> str | None:
    """Return why a text is degenerate (empty, unreadable or repetitive), or None."""
    shown = text.strip()
    if not shown:
        return "it is empty"
    unreadable = sum(1 for c in shown if c == "\ufffd" or not (c.isprintable() or c.isspace()))
    if unreadable / len(shown) > UNREADABLE_SHARE:
        return f"{unreadable} of its {len(shown)} characters are unreadable"
    for match in _REPEATED.finditer(shown):
        if match.group(1).strip() and len(match.group(0)) / len(shown) >= REPEATED_SHARE:
            times = len(match.group(0)) // len(match.group(1))
            return f"it repeats {match.group(1)!r} {times} times"
    words = shown.split()
    if len(words) >= ENOUGH_WORDS:
        word, times = Counter(words).most_common(1)[0]
        if times / len(words) > ONE_WORD_SHARE:
            return f"{times} of its {len(words)} words are {word!r}"
    return None


def same_beginning(text: str, reference: str, words: int) -> bool:
    """Return whether two texts begin with the same words, up to the end of the shorter one."""
    ours, theirs = text.split()[:words], reference.split()[:words]
    length = min(len(ours), len(theirs))
    return length > 0 and ours[:length] == theirs[:length]


class Completion(NamedTuple):
    """A completion that was not streamed. None: the engine does not say.

    ``tokens`` and ``prompt_tokens`` are counts, ``cached`` that of prompt tokens that were not computed.
    ``kv`` are the parameters of the KV transfer that a prefiller returns.
    """

    text: str
    finish_reason: str | None
    stop_reason: object
    tokens: int | None
    prompt_tokens: int | None
    cached: int | None
    kv: dict[str, Any] | None


def completion(body: str) -> Completion:
    """Parse a completion that was not streamed. Raises BadAnswerError."""
    text = completion_text(body)
    answer = json.loads(body)
    choice = answer["choices"][0]
    usage = _mapping(answer.get("usage"))
    return Completion(
        text=text,
        finish_reason=choice.get("finish_reason"),
        stop_reason=choice.get("stop_reason"),
        tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
        cached=_mapping(usage.get("prompt_tokens_details")).get("cached_tokens"),
        kv=_mapping(answer.get("kv_transfer_params")) or None,
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def completion_text(body: str) -> str:
    """Return the text of a completion that was not streamed. Raises BadAnswerError."""
    if not body.strip():
        raise BadAnswerError("the body is empty")
    try:
        return str(json.loads(body)["choices"][0]["text"] or "")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BadAnswerError(f"the body is not a completion: {body[:300]!r}") from error


def chat_stream_text(body: str) -> str:
    """Return the text of a streamed chat completion, joined from its events. Raises BadAnswerError."""
    if not body.strip():
        raise BadAnswerError("the body is empty")
    parts: list[str] = []
    ended = False
    for line in body.splitlines():
        if not line.startswith("data:"):
            continue
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            ended = True
            break
        try:
            event = json.loads(data)
            for choice in event.get("choices", []):
                delta = choice.get("delta") or {}
                parts.append(delta.get("reasoning_content") or "")
                parts.append(delta.get("content") or "")
        except (ValueError, AttributeError) as error:
            raise BadAnswerError(f"an event is not JSON: {data[:300]!r}") from error
        if "error" in event:
            raise BadAnswerError(f"the stream contains an error: {json.dumps(event['error'])[:300]}")
    if not parts and not ended:
        raise BadAnswerError(f"the body is not an event stream: {body[:300]!r}")
    if not ended:
        raise BadAnswerError(f"the stream broke off before [DONE], after {''.join(parts)[:120]!r}")
    return "".join(parts)


def metric_sum(exposition: str, name: str, label: str = "") -> float | None:
    """Return the sum of a counter over its labels, from Prometheus' text format; None without the counter.

    label: count only series with this label, such as ``source="local_compute"``.
    """
    values = []
    for line in exposition.splitlines():
        match = _METRIC.match(line)
        if match and match.group("name") == name and label in (match.group("labels") or ""):
            values.append(float(match.group("value")))
    return sum(values) if values else None
