# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Detects what looks like a secret by its name or its value, and hides it in texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .findings import Finding
from .model import Cluster, Declaration, Settings
from .values import as_json

HIDDEN = "(not shown)"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# A name with one of these words is that of a secret …
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "passcode", "secret", "secrets", "credential", "credentials"}
    | {"apikey", "appkey", "appsecret", "authorization", "authtoken", "accesskey", "secretkey"}
)
# … and so is one that ends in these.
_SECRET_ENDS = (
    ("api", "key"),
    ("access", "key"),
    ("access", "key", "id"),
    ("secret", "key"),
    ("private", "key"),
    ("account", "key"),
    ("signing", "key"),
    ("encryption", "key"),
    ("pwd",),
    ("token",),
)
# The same of a variable of the environment, where they are too short for other names (OBS_AK, DB_PASS).
_UPPER_ENDS = frozenset({"ak", "sk", "pass", "token"})
# But not one that names the secret's location, or another property of it.
_ABOUT = frozenset(
    {"file", "path", "dir", "directory", "folder", "name", "type", "mode", "timeout", "size", "count"}
    | {"length", "url", "endpoint", "ttl", "header", "prefix", "provider", "enable", "enabled", "version"}
    | {"max", "min"}
)
# Tokens of a text, not of a login.
_TEXT_TOKENS = frozenset(
    {"eos", "bos", "pad", "unk", "mask", "sep", "cls", "image", "video", "audio", "start", "end", "stop"}
    | {"special", "think", "begin", "per", "next", "first", "draft", "bonus", "last", "max", "new", "single"}
    | {"multi", "block"}
)
_PLACEHOLDERS = frozenset({"empty", "none", "null", "dummy", "unused", "placeholder", "true", "false"})

# Values that can be recognized by themselves.
_VALUES = re.compile(
    r"(?i:(?<=://)[^\s/:@\"']*:[^\s/@\"']+(?=@))"  # user:password in an address
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON Web Token
    r"|(?i:(?<=\bbearer )|(?<=\bbasic ))[A-Za-z0-9._~+/=-]{16,}"
    r"|(?<![\w/.-])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}"  # OpenAI and those that are like it
    r"|\bhf_[A-Za-z0-9]{30,}"
    r"|(?<![\w/.-])ms-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # ModelScope
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|(?<![\w/.-])glpat-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bLTAI[A-Za-z0-9]{12,20}\b"  # AWS, Alibaba Cloud
)


# The default of a reference to a variable.
_DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:?[-+]([^$]+)\}")


def of_name(name: str) -> bool:
    """Whether a name looks like that of a secret."""
    words = tuple(word.lower() for word in _WORDS.findall(name))
    if not words or words[-1] in _ABOUT:
        return False
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    if name.isupper() and words[-1] in _UPPER_ENDS and (len(words) > 1 or words[0] != "pass"):
        return words[-1] != "token" or len(words) < 2 or words[-2] not in _TEXT_TOKENS
    if words[-1] in ("token", "pwd") and (len(words) < 2 or words[-2] in _TEXT_TOKENS):
        return False
    return any(words[-len(end) :] == end for end in _SECRET_ENDS)


def in_value(name: str, value: str) -> Iterator[str]:
    """Yield the secret parts of a value: all of it if the name is a secret's and the value can be one."""
    text = value.strip()
    if default := _DEFAULT.fullmatch(text):
        text = default[1]
    number = re.fullmatch(r"[-+0-9.,xX]{0,5}", text) is not None
    place = re.fullmatch(r"(/|\./|~/|[a-z]+://)[^\s@]*", text) is not None
    if of_name(name) and not (number or place or text.startswith("$") or text.lower() in _PLACEHOLDERS):
        yield text
    else:
        yield from (match[0] for match in _VALUES.finditer(value))


def _parts(place: str, name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the place of each secret, and the secret, at every depth, also in JSON text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(f"{place}.{key}", str(key), item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(place, name, item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from ((place, part) for part in in_value(name, str(value)))
    elif isinstance(value, str):
        below: Any = None
        if value.lstrip().startswith(("{", "[")):
            try:
                below = as_json(value)
            except ValueError:
                below = None
        if isinstance(below, (dict, list)):
            yield from _parts(place, name, below)
        else:
            yield from ((place, part) for part in in_value(name, value))


def in_settings(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield (variable, place in it, secret) for everything in an instance's settings that looks like one."""
    for variable, values in (
        ("pd_engine_env", settings.engine_env),
        ("pd_engine_args", settings.engine_args),
        ("pd_kv_extra_config", settings.kv_extra_config),
    ):
        for name, value in values.items():
            yield from ((variable, place, part) for place, part in _parts(name, name, value))


def in_router(declaration: Declaration) -> Iterator[tuple[str, str]]:
    """Yield (place, secret) for everything in pd_router_args that looks like one."""
    for name, value in declaration.router_args.items():
        yield from _parts(name, name, value)


def values_of(cluster: Cluster) -> frozenset[str]:
    """Return everything in a cluster's variables that looks like a secret."""
    found = [
        secret
        for instance in cluster.instances
        for node in instance.nodes
        for _, _, secret in in_settings(node.settings)
    ]
    found.extend(secret for _, secret in in_router(cluster.declaration))
    return frozenset(secret for secret in found if len(secret) > 3)


def without(text: str, values: Iterable[str]) -> str:
    """Return a text without these values: literal, as Python or JSON writes them, or truncated at its end."""
    for value in sorted(values, key=len, reverse=True):
        for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]):
            text = text.replace(form, HIDDEN)
        if text.endswith("…"):
            begun = next((n for n in range(len(value), 3, -1) if text[:-1].endswith(value[:n])), 0)
            text = text[: -begun - 1] + HIDDEN + "…" if begun else text
    return text


def hidden(findings: Iterable[Finding], values: frozenset[str]) -> list[Finding]:
    """Return the findings of any rule without these values."""
    if not values:
        return list(findings)
    return [
        replace(
            finding,
            message=without(finding.message, values),
            seen=None if finding.seen is None else without(finding.seen, values),
            expected=None if finding.expected is None else without(finding.expected, values),
        )
        for finding in findings
    ]


_EXPORT = re.compile(r"(?m)^(export ([A-Za-z_][A-Za-z0-9_]*)=)(.+)$")
_PAIR = re.compile(r'("([^"\\]+)": *)"((?:[^"\\]|\\.)*)"')


def masked(text: str, values: Iterable[str] = ()) -> str:
    """Return a text, such as a file of an earlier plan, with everything that looks like a secret hidden."""
    if text.startswith("{"):
        try:
            return json.dumps(_masked(json.loads(text), "", values), indent=2, ensure_ascii=False) + "\n"
        except (ValueError, RecursionError):
            pass

    def export(match: re.Match[str]) -> str:
        return match[1] + HIDDEN if _whole(match[2], match[3].strip("'")) else match[0]

    def pair(match: re.Match[str]) -> str:
        return f'{match[1]}"{HIDDEN}"' if _whole(match[2], match[3]) else match[0]

    text = _PAIR.sub(pair, _EXPORT.sub(export, without(text, values)))
    return _VALUES.sub(HIDDEN, text)


def _whole(name: str, value: str) -> bool:
    return of_name(name) and any(True for _ in in_value(name, value))


def _masked(value: Any, name: str, values: Iterable[str]) -> Any:
    """Return parsed JSON with everything that looks like a secret hidden."""
    if isinstance(value, dict):
        return {key: _masked(item, key, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, name, values) for item in value]
    if isinstance(value, (str, int)) and not isinstance(value, bool) and _whole(name, str(value)):
        return HIDDEN
    return masked(value, values) if isinstance(value, str) else value
