# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a server's guard consists of: its program, as an archive that Python runs, and its configuration."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ...module_utils._serving import guard_unit
from .._run.fast_script import sources
from ..rollout.values import BadValue

PACKAGE = "pd_guard"
ENTRY = "_guard.main"
MAIN = f"""\
# Written by ascend.pd_rollout: the guard of a deployment.
import sys

from {PACKAGE}.{ENTRY} import main

sys.exit(main())
"""
# The earliest that an archive can say.
EPOCH = (1980, 1, 1, 0, 0, 0)
# The settings by their names in the configuration; the variables begin with guard_.
SETTINGS = {
    "attempts": "guard_attempts",
    "pause": "guard_pause_seconds",
    "probe": "guard_probe_seconds",
    "stall": "guard_stall_seconds",
    "hang": "guard_hang_seconds",
    "canary": "guard_canary_seconds",
    "answer": "guard_answer_seconds",
}


@cache
def program() -> bytes:
    """Return the archive: the same bytes on every controller, so that servers can be compared with it."""
    buffer = io.BytesIO()
    # Not compressed: what another version of the library makes of the same text may differ.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in _files():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text)
    return buffer.getvalue()


@cache
def program_sha256() -> str:
    """Return the SHA-256 of the archive."""
    return hashlib.sha256(program()).hexdigest()


def _files() -> Iterator[tuple[str, str]]:
    """Yield the names of the files in the archive, with their texts."""
    yield "__main__.py", MAIN
    for name, text in sorted(sources(ENTRY).items()):
        path = "/".join([PACKAGE, *name.split(".")]).rstrip("/")
        yield (f"{path}/__init__.py", "") if text is None else (f"{path}.py", text)


def config(guard: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the text of a guard's configuration.

    guard: the guard in the plan.
    settings: its other settings, by their names in the configuration.

    Raises BadValue for a setting that is not a positive number.
    """
    content = {**_plain(guard["config"]), "settings": numbers(settings)}
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a value without Ansible's own containers, some of which make their items on access."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def numbers(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings as numbers. Raises BadValue."""
    if {*settings} != {*SETTINGS}:
        raise BadValue(f"the settings {', '.join(SETTINGS)}", seen=", ".join(settings))
    found = {name: _positive(SETTINGS[name], value) for name, value in settings.items()}
    if found["attempts"] != int(found["attempts"]):
        raise BadValue(f"{SETTINGS['attempts']} to be a whole number", seen=settings["attempts"])
    return found


def _positive(variable: str, value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise BadValue(f"{variable} to be a positive number", seen=value)
    # The same text of a whole number, however it was written.
    return int(number) if number == int(number) else number


def reduced(guard: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server needs to know of its guard beside the configuration, without secrets."""
    return {key: guard[key] for key in ("unit", "directory", "run", "service")}


def digests(guard: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files of a guard whose content is known. Raises BadValue."""
    text = config(guard, settings)
    return {
        guard_unit.PROGRAM: program_sha256(),
        guard_unit.CONFIG: hashlib.sha256(text.encode()).hexdigest(),
    }
