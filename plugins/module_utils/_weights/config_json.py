# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the JSON files of a model, and changes a single value in one."""

from __future__ import annotations

import json
import re
from json import decoder as json_decoder
from pathlib import Path
from typing import Any

CONFIG_NAME = "config.json"

# The dtype's key up to transformers 4.55, and from 4.56.
DTYPE_KEYS = ("torch_dtype", "dtype")

LFS_MAGIC = b"version https://git-lfs"


class JsonError(ValueError):
    """A JSON file that cannot be used; the text describes what was found."""


_WHITESPACE = re.compile(r"[ \t\r\n]*")


def _skip(text: str, start: int) -> int:
    """Return the position of the first character from ``start`` on that is not white space."""
    match = _WHITESPACE.match(text, start)
    return match.end() if match else start


# Parses a JSON string up to its end. Missing from type stubs, but in every Python.
_scan_string = json_decoder.scanstring  # type: ignore[attr-defined]


def value_spans(text: str, start: int = 0) -> dict[str, tuple[int, int]]:
    """Return the span (first character, end) of each value of the JSON object at ``start``, by key."""
    decoder = json.JSONDecoder()
    spans: dict[str, tuple[int, int]] = {}
    position = _skip(text, start)
    if text[position : position + 1] != "{":
        raise JsonError("not a JSON object")
    position = _skip(text, position + 1)
    while text[position : position + 1] == '"':
        key, position = _scan_string(text, position + 1, True)
        position = _skip(text, position) + 1  # the colon
        position = _skip(text, position)
        _value, end = decoder.raw_decode(text, position)
        spans[key] = (position, end)
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
    return spans


def load_object(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the JSON object in a file, and the file's bytes; raise JsonError if there is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JsonError(f"cannot be read: {error.strerror}") from error
    if data.startswith(LFS_MAGIC):
        raise JsonError("a Git LFS pointer, not the file itself")
    if not data.strip():
        raise JsonError("an empty file")
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise JsonError(
            f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise JsonError("JSON nested too deeply") from error
    if not isinstance(value, dict):
        raise JsonError(f"a JSON {type(value).__name__}, not an object")
    return value, data


def dtype_spans(text: str) -> dict[str, tuple[int, int]]:
    """Return the spans of the model's dtype in the text of config.json, by key.

    It is a key of the object itself; multi-modal models have it in ``text_config``, which vLLM asks next.
    """
    spans = value_spans(text)
    found = {key: spans[key] for key in DTYPE_KEYS if key in spans}
    if not found and "text_config" in spans:
        start, _end = spans["text_config"]
        if text[start] == "{":
            inner = value_spans(text, start)
            found = {f"text_config.{key}": inner[key] for key in DTYPE_KEYS if key in inner}
    return found


def with_dtype(text: str, wanted: str, replaceable: tuple[str, ...]) -> str:
    """Return the text of config.json with the dtype replaced and every other character unchanged.

    ``wanted``: the new dtype; ``replaceable``: the dtypes that may be replaced by it.
    """
    for start, end in sorted(dtype_spans(text).values(), reverse=True):
        if json.loads(text[start:end]) in replaceable:
            text = text[:start] + json.dumps(wanted) + text[end:]
    return text
