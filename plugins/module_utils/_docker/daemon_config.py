# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Merges options into the text of Docker's daemon.json. Imports no Ansible."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

# Options that dockerd applies on SIGHUP, without affecting a container; all others need a restart
# (moby, daemon/reload.go of 20.10; "Configuration reload behavior" in the reference of dockerd).
RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
# Options whose flag differs from the key: lists and mappings have a flag for each element.
FLAGS = {
    "allow-nondistributable-artifacts": "allow-nondistributable-artifacts",
    "authorization-plugins": "authorization-plugin",
    "default-ulimits": "default-ulimit",
    "dns-opts": "dns-opt",
    "exec-opts": "exec-opt",
    "hosts": "host",
    "insecure-registries": "insecure-registry",
    "labels": "label",
    "log-opts": "log-opt",
    "registry-mirrors": "registry-mirror",
    "runtimes": "add-runtime",
    "storage-opts": "storage-opt",
}
SHORT_FLAGS = {"-H": "host", "-D": "debug", "-G": "group", "-l": "log-level", "-s": "storage-driver"}
DEFAULT_INDENT = 2


class BrokenConfig(ValueError):
    """The text of daemon.json is not a JSON object, so nothing can be merged into it."""


@dataclass(frozen=True)
class Merge:
    """The result of a merge: the new text, and the keys that changed."""

    text: str
    changed: tuple[str, ...]

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Those of the changed keys that a reload does not apply."""
        return tuple(key for key in self.changed if key not in RELOADABLE)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    keys = [key for key, _value in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise BrokenConfig(f"the key {twice[0]!r} occurs twice in one object")
    return dict(pairs)


def parse(text: str) -> dict[str, Any]:
    """Return the options in the text of daemon.json; an empty file has none, as for dockerd.

    Raises BrokenConfig if the text is not a JSON object.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BrokenConfig(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(value, dict):
        raise BrokenConfig(f"a JSON {type(value).__name__}, not an object")
    return value


def merge_values(present: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Merge ``wanted`` into ``present``: objects are merged, other values replaced, ``None`` removes a key.

    >>> merge_values({"debug": True, "log-opts": {"max-size": "10m"}}, {"log-opts": {"max-file": "3"}})
    {'debug': True, 'log-opts': {'max-size': '10m', 'max-file': '3'}}
    """
    merged = dict(present)
    for key, value in wanted.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = merge_values(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def indent_of(text: str) -> int | str:
    """Return the indentation that the text uses, in spaces or as the text of tabs."""
    found = re.search(r"^\{\s*\n([ \t]+)\"", text)
    if not found:
        return DEFAULT_INDENT
    return found[1] if "\t" in found[1] else len(found[1])


def merge(text: str, wanted: dict[str, Any]) -> Merge:
    """Merge options into the text of daemon.json; the text is unchanged if it has all of them.

    Raises BrokenConfig if the text is not a JSON object.
    """
    present = parse(text)
    merged = merge_values(present, wanted)
    if merged == present:
        return Merge(text, ())
    changed = tuple(sorted(key for key in {*present, *merged} if present.get(key) != merged.get(key)))
    return Merge(json.dumps(merged, indent=indent_of(text), ensure_ascii=False) + "\n", changed)


def given_as_flags(keys: tuple[str, ...], arguments: list[str]) -> tuple[str, ...]:
    """Return those of the keys that are also on dockerd's command line.

    dockerd refuses to start with an option in both places.
    """
    flags = set()
    for argument in arguments[1:]:
        if argument.startswith("--"):
            flags.add(argument[2:].split("=", 1)[0])
        elif argument[:2] in SHORT_FLAGS:
            flags.add(SHORT_FLAGS[argument[:2]])
    return tuple(key for key in keys if FLAGS.get(key, key) in flags)
