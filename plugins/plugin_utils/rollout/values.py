# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of values: each converts any value of an inventory to a typed value, or raises BadValue."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .findings import shown
from .model import DpMode, Mode, Mount, Parallel, Server
from .names import of_system

Word = TypeVar("Word", bound=str)

# Largest size of one parallel group, in ranks: a typo must not make the planner list a million ports.
MAX_PARALLEL = 65536


class BadValue(Exception):
    """A value that cannot be read; ``expected`` describes the values that can."""

    def __init__(self, expected: str, seen: object = None, message: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.seen = seen
        self.message = message


def whole(low: int, high: int, unit: str = "") -> Callable[[Any], int]:
    """Return a reader of whole numbers in [low, high], also from text of digits, as templates and -e pass it.

    ``unit`` follows the range in the error's description.
    """
    expected = f"a whole number from {low} to {high}{unit}"

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadValue(expected)
        return int(value)

    return read


port = whole(1, 65535)


def text(pattern: str, expected: str) -> Callable[[Any], str]:
    compiled = re.compile(pattern)

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise BadValue(expected)
        return str(value)

    return read


_PRINTABLE = r"[^\s\x00-\x1f\x7f]+"
_path = text(r"/[^\x00-\x1f\x7f:,\ud800-\udfff]*", "an absolute path without '..', ':' or ','")
word = text(_PRINTABLE, "text without spaces")


def absolute_path(value: Any) -> str:
    path = _path(value)
    if ".." in path.split("/"):
        raise BadValue("an absolute path without '..', ':' or ','")
    return path


def own_path(value: Any) -> str:
    """Read the path of a directory that the collection may create or replace."""
    path = absolute_path(value)
    if of_system(path):
        raise BadValue("an absolute path that is not a directory of the operating system")
    return path


def yes_or_no(value: Any) -> bool:
    if isinstance(value, bool):
        return bool(value)
    raise BadValue("true or false")


def switch(value: Any) -> bool:
    """Read true or false, also from text, as -e passes it."""
    words = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    return yes_or_no(value)


def one_of(*words: Word) -> Callable[[Any], Word]:
    """Return a reader that accepts one of ``words``."""

    def read(value: Any) -> Word:
        for known in words:
            if value == known:
                return known
        raise BadValue(f"{', '.join(words[:-1])} or {words[-1]}")

    return read


def read_chips(value: Any) -> tuple[int, ...]:
    expected = "chip numbers, such as [0, 1, 2] or 0-7,12"
    numbers: list[int] = []
    if isinstance(value, str):
        for part in value.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4}))?\s*", part)
            if not match:
                raise BadValue(expected)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise BadValue(expected)
            numbers.extend(range(first, last + 1))
    elif isinstance(value, (list, tuple)):
        read = whole(0, 9999)
        try:
            numbers = [read(item) for item in value]
        except BadValue:
            raise BadValue(expected) from None
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9999:
        numbers = [int(value)]
    else:
        raise BadValue(expected)
    if not numbers:
        raise BadValue("at least one chip")
    if len(set(numbers)) != len(numbers):
        raise BadValue("each chip once")
    return tuple(sorted(numbers))


def read_mode(value: Any) -> Mode:
    if value == "disaggregated":
        return "disaggregated"
    if value == "colocated":
        return "colocated"
    raise BadValue("disaggregated or colocated")


def read_server(value: Any) -> Server:
    if value == "atlas-a3":
        return "atlas-a3"
    if value == "atlas-a2":
        return "atlas-a2"
    raise BadValue("atlas-a3 or atlas-a2")


def read_dp_mode(value: Any) -> DpMode:
    if value == "internal":
        return "internal"
    if value == "external":
        return "external"
    raise BadValue("internal or external")


_PARALLEL_KEYS = ("tensor", "prefill_context", "decode_context", "pipeline", "data", "data_local")


def read_parallel(value: Any) -> Parallel:
    expected = "a mapping of " + ", ".join(_PARALLEL_KEYS)
    if not isinstance(value, Mapping):
        raise BadValue(expected)
    sizes: dict[str, int] = {}
    read = whole(1, MAX_PARALLEL)
    problems: list[str] = []
    for key, size in value.items():
        if not isinstance(key, str) or key not in _PARALLEL_KEYS:
            problems.append(f"{shown(key, 40)} is not a size{did_you_mean(key, _PARALLEL_KEYS)}")
            continue
        if key == "data_local" and size is None:
            continue
        try:
            sizes[str(key)] = read(size)
        except BadValue as error:
            problems.append(f"{key} is {shown(size, 40)}, not {error.expected}")
    if problems:
        raise BadValue(expected, message="; ".join(problems))
    return Parallel(**sizes)


def plain(value: Any, depth: int = 0) -> Any:
    """Convert a value to plain JSON types; raises BadValue if it contains anything else."""
    if depth > 20:
        raise BadValue("a value nested at most 20 deep")
    if value is None or isinstance(value, bool):
        return None if value is None else bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadValue("a finite number")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise BadValue("names of text", seen=key, message=f"the name {shown(key, 40)} is not text")
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    raise BadValue(
        "text, numbers, true, false, null, lists and mappings",
        message=f"a value of type {type(value).__name__}",
    )


def read_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadValue("a mapping")
    result = plain(value)
    json.dumps(result)
    return dict(result)


def read_flags(value: Any) -> dict[str, Any]:
    flags = read_mapping(value)
    for name in flags:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
            hint = f" (write {name.lstrip('-')})" if name.startswith("--") else ""
            raise BadValue(f"names of long flags without dashes{hint}", seen=name)
    return flags


# Kinds of options whose text vLLM's parser reads as JSON: all of it, or only text in braces.
JSON, JSON_OR_TEXT = "json", "union_dict_and_str"
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')


def as_json(text: str) -> Any:
    """Parse JSON text; raises ValueError if it is not JSON.

    Numbers may have units without quotes, as from v0.23.0 on
    (V@0.23.0:vllm/engine/arg_utils.py, _expand_json_human_readable_numbers).
    """
    parts = _QUOTED.split(text)
    parts[::2] = [re.sub(r"\b[0-9]+(\.[0-9]+)?[kKmMgGtT]\b", r'"\g<0>"', part) for part in parts[::2]]
    try:
        return plain(json.loads("".join(parts)))
    except (BadValue, RecursionError):
        raise ValueError("nested too deeply, or with numbers that are not finite") from None


_ENV_VALUES = "text or a number; quote true and false, because programs read them differently"


def read_env(value: Any) -> dict[str, str | None]:
    if not isinstance(value, Mapping):
        raise BadValue("a mapping of environment variables")
    result: dict[str, str | None] = {}
    for name, item in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadValue("names of letters, digits and underscores", seen=name)
        if item is None:
            result[str(name)] = None
        elif isinstance(item, (str, int, float)) and not isinstance(item, bool):
            line = str(item)
            if any(ord(c) < 32 or ord(c) == 127 for c in line) or not _encodable(line):
                raise BadValue("text of one line", seen=name)
            result[str(name)] = line
        else:
            raise BadValue(_ENV_VALUES, seen=name)
    return result


def read_mounts(value: Any) -> tuple[Mount, ...]:
    expected = "a list of absolute paths, or of {source, target, read_only}"
    if not isinstance(value, (list, tuple)):
        raise BadValue(expected)
    mounts = []
    for item in value:
        if isinstance(item, str):
            mounts.append(Mount(absolute_path(item), absolute_path(item), True))
        elif (
            isinstance(item, Mapping) and set(item) <= {"source", "target", "read_only"} and "source" in item
        ):
            source = absolute_path(item["source"])
            mounts.append(
                Mount(
                    source, absolute_path(item.get("target", source)), yes_or_no(item.get("read_only", True))
                )
            )
        else:
            raise BadValue(expected, seen=item)
    return tuple(mounts)


def read_engine_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadValue("text or a number")
    return text(r"[A-Za-z0-9._-]{1,64}", "letters, digits, dots, dashes and underscores")(str(value))


def read_secret(value: Any) -> bool:
    """Return whether a secret is set, never its value.

    All clients send it in an HTTP header; httpx in the proxy accepts ASCII only
    (A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:557), and servers accept
    no control characters.
    """
    if value is None:
        return False
    if not isinstance(value, str):
        raise BadValue("text", seen="(not shown)")
    if not re.fullmatch(r"[\x21-\x7e]*", value):
        raise BadValue(
            "ASCII letters, digits and punctuation, without blanks and line breaks", seen="(not shown)"
        )
    return str(value) != ""


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_NOT_SHOWN = "(not shown)"
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


# Characters from which a key cannot be found out from its SHA-256 by trying.
LONG_KEY = 20


@dataclass(frozen=True)
class ApiKeys:
    """The names of API keys, and of those that are short."""

    names: tuple[str, ...] = ()
    short: tuple[str, ...] = ()


def read_api_keys(value: Any) -> ApiKeys:
    """Return the names of API keys, never the keys: these must be different, and fit into an HTTP header."""
    if not isinstance(value, Mapping):
        raise BadValue("a mapping from names to keys", seen=_NOT_SHOWN)
    for name, key in value.items():
        if not isinstance(name, str) or not _KEY_NAME.fullmatch(name):
            raise BadValue(
                "names of letters, digits, dots, dashes and underscores, at most 63", seen=shown(name, 70)
            )
        if not isinstance(key, str) or not re.fullmatch(r"[\x21-\x7e]+", key):
            raise BadValue(
                "keys of ASCII letters, digits and punctuation, without blanks and line breaks",
                seen=f"{name}: {_NOT_SHOWN}",
            )
    if len(set(value.values())) < len(value):
        raise BadValue("a key of its own for each name", seen=_NOT_SHOWN)
    return ApiKeys(
        tuple(str(name) for name in value),
        tuple(str(name) for name, key in value.items() if len(key) < LONG_KEY),
    )


def read_address(value: Any) -> str:
    """Read an IPv4 address that a server may have."""
    try:
        address = ipaddress.IPv4Address(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise BadValue("an IPv4 address") from None
    kinds = {
        "0.0.0.0, which stands for every address": address.is_unspecified,
        "a loopback address, which stays on its server": address.is_loopback,
        "a multicast address": address.is_multicast,
        "the broadcast address": address == _BROADCAST,
    }
    for kind, is_kind in kinds.items():
        if is_kind:
            raise BadValue("an IPv4 address that a server may have", message=f"{address} is {kind}")
    return str(address)


def is_pem(text: str) -> bool:
    """Return whether this is text in PEM, not a path; tools write what a block contains in front of it."""
    return "-----BEGIN " in text


def read_pem(value: Any) -> bool:
    """Return whether a file's path or a PEM text is set."""
    if value is None or value == "":
        return False
    text_ = str(value) if isinstance(value, str) else ""
    if not is_pem(text_) and ("\n" in text_.strip() or not text_.strip()):
        raise BadValue("the path of a file on the controller, or text in PEM", seen=_NOT_SHOWN)
    return True


_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def read_size(value: Any) -> int:
    """Read a number of bytes, also as text with k, m or g for powers of 1024."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})([kmg]?)b?", str(value).strip().lower())
    size = int(match[1]) * _SIZE_UNITS[match[2]] if match and not isinstance(value, bool) else 0
    if not 1024 <= size <= 2**31:
        raise BadValue("a size from 1k to 2g, such as 64m")
    return size


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# How similar one of hundreds of names must be for a helpful suggestion.
SAME = 0.8


def did_you_mean(name: object, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a suggestion ("; did you mean …?"); empty if no known name is as similar as ``cutoff``."""
    matches = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=cutoff)
    return f"; did you mean {matches[0]}?" if matches else ""
