# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the front on a server: what they must hold, and how they differ from it."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files.contents import sha256, text_sha256

MARK = b"Written by ascend.pd_rollout"
UNITS = "/etc/systemd/system"
# For what holds until the next boot at most.
RUN_UNITS = "/run/systemd/system"
CONFIG, PEM, LUA = "haproxy.cfg", "front.pem", "keys.lua"
SHARED, CHECK = "keepalived.conf", "serves.py"
# Where the server fills in its NIC.
NIC = "@NIC@"
KEYS, ROUTER, ENGINES = "keys.map", "router.map", "engines.map"
# There while files have been written that the running front has not read. It holds the folder of those that
# are read instead, if that is another one.
PENDING = "reload.pending"
# How the folders begin in which a new configuration is judged.
DRAFTS = ".check-"
NAMES = (PENDING, CONFIG, PEM, LUA, KEYS, ROUTER, ENGINES, SHARED, CHECK)
COLOURS = ("blue", "green")
# The front's directory and its files are root's alone: the master reads them before its workers give root up.
FOLDER_MODE, FILE_MODE, UNIT_MODE = 0o700, 0o600, 0o644


def by_digest(keys: Mapping[str, str]) -> dict[str, str]:
    """Return the names of API keys by their SHA-256, as HAProxy looks them up."""
    return {value: name for name, value in keys.items()}


def key_map(keys: Mapping[str, str]) -> str:
    """Return the map of API keys: their SHA-256, and the names."""
    return "".join(f"{key} {name}\n" for key, name in sorted(keys.items()))


def router_map(colour: str) -> str:
    """Return the map that says which router gets the requests."""
    return f"active {colour}\n"


def units(front: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a front's units by name: that of HAProxy, and that of a shared address."""
    found = {str(front["unit"]): str(front["service"])}
    shared = front.get("shared")
    if shared:
        found[shared["unit"]] = shared["service"]
    return found


def unit_path(unit: str) -> Path:
    """Return the path of a unit."""
    return Path(UNITS, f"{unit}.service")


def drop_in(unit: str) -> Path:
    """Return the path of an addition to a unit."""
    return Path(RUN_UNITS, f"{unit}.service.d", "once.conf")


def wanted(
    front: Mapping[str, Any], certificate: str, keys: Mapping[str, str], engine_key: str
) -> dict[str, str | None]:
    """Return what each file must hold; None: it must not exist. The map of the router is left to the switch,
    the NIC of a shared address to the server.

    front: the slice of the plan.
    certificate: the chain and its private key in PEM.
    keys: the names of the API keys by their SHA-256.
    engine_key: the key that the front sends to the engines.
    """
    shared = front.get("shared") or {}
    return {
        CONFIG: front["config"],
        PEM: certificate if front["tls"] else None,
        LUA: front["lua"],
        KEYS: key_map(keys) if front["keys"] else None,
        ENGINES: f"engines {engine_key}\n" if front["engine_key"] else None,
        SHARED: shared.get("config"),
        CHECK: shared.get("check"),
    }


def digests(texts: Mapping[str, str | None]) -> dict[str, str]:
    """Return the SHA-256 of each text; empty for a file that must not exist."""
    return {name: "" if text is None else text_sha256(text) for name, text in texts.items()}


def outdated(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Return the names of files that differ from their SHA-256 (empty: must not exist), owner or mode."""
    return [name for name, value in expected.items() if not _holds(folder / name, value, FILE_MODE)]


def _holds(path: Path, value: str, mode: int) -> bool:
    try:
        status = path.lstat()
        if not value or not stat.S_ISREG(status.st_mode):
            return False
        same = sha256(path) == value
    except OSError:
        return not value
    return same and stat.S_IMODE(status.st_mode) == mode and status.st_uid == os.geteuid()


def units_outdated(expected: Mapping[str, str]) -> list[str]:
    """Return the units that differ from their SHA-256, by name."""
    return [unit for unit, value in expected.items() if not _holds(unit_path(unit), value, UNIT_MODE)]


def foreign(path: Path) -> bool:
    """Return whether there is a unit of that name that this collection has not written."""
    try:
        return MARK not in path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def active(folder: Path) -> str | None:
    """Return the colour of the router that gets the requests; None if nothing says so."""
    try:
        words = (folder / ROUTER).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[1] if len(words) == 2 and words[0] == "active" and words[1] in COLOURS else None


def moved_from(unit: str, folder: Path) -> Path | None:
    """Return the folder whose files the front reads, if that is another one; None if not, or without a front.

    A run that ended after it had replaced the unit has noted it.
    """
    try:
        noted = (folder / PENDING).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        noted = ""
    if noted.startswith("/"):
        return Path(noted)
    try:
        text = unit_path(unit).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^ExecStart=.* -f (\S+)/haproxy\.cfg ", text, re.MULTILINE)
    return Path(found[1]) if found and Path(found[1]) != folder else None


def clear_drafts(folder: Path) -> None:
    """Remove what a run has left that ended while it had a configuration judged: it has the private key."""
    for draft in folder.glob(f"{DRAFTS}*"):
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(str(draft))


def clear(folder: Path) -> None:
    """Remove the files of a front from its folder, and the folder if it is then empty."""
    if folder.is_symlink() or not folder.is_dir():
        return
    clear_drafts(folder)
    for name in NAMES:
        for path in (folder / name, folder / f".{name}.new"):
            if path.exists() or path.is_symlink():
                path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def write(path: Path, text: str, mode: int = FILE_MODE) -> None:
    """Replace a file at once; at no time can anybody else read it."""
    draft = path.with_name(f".{path.name}.new")
    if draft.exists() or draft.is_symlink():
        draft.unlink()
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(handle, mode)
        stream.write(text)
    draft.replace(path)
