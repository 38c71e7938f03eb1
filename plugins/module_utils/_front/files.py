# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the front on a server: what they must hold, and how they differ from it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files.contents import text_sha256
from .._systemd import unit_path

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


def by_digest(keys: Mapping[str, str]) -> dict[str, str]:
    """Return the names of API keys by their SHA-256, as HAProxy looks them up."""
    return {value: name for name, value in keys.items()}


def key_map(keys: Mapping[str, str]) -> str:
    """Return the map of API keys: their SHA-256, and the names."""
    return "".join(f"{key} {name}\n" for key, name in sorted(keys.items()))


def router_map(colour: str, closed: str = "") -> str:
    """Return the map that says which router gets the requests.

    closed: why the front answers 503 instead; empty: it does not.
    """
    reason = one_line(closed)
    return f"active {colour}\n" + (f"closed {reason}\n" if reason else "")


def one_line(text: str) -> str:
    """Return a text as a value of a map and of HAProxy's commands can be: words of printable ASCII."""
    return " ".join("".join(one if " " < one <= "~" else " " for one in text).split())


def units(front: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a front's units by name: that of HAProxy, and that of a shared address."""
    found = {str(front["unit"]): str(front["service"])}
    shared = front.get("shared")
    if shared:
        found[shared["unit"]] = shared["service"]
    return found


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


def active(folder: Path) -> str | None:
    """Return the colour of the router that gets the requests; None if nothing says so."""
    colour = _entries(folder / ROUTER).get("active")
    return colour if colour in COLOURS else None


def closed(folder: Path) -> str:
    """Return why the front answers 503 to every request for an answer; empty if it does not."""
    return _entries(folder / ROUTER).get("closed", "")


def _entries(path: Path) -> dict[str, str]:
    """Return the entries of a map; none of one that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.strip().partition(" ") for line in lines)
    return {key: value.strip() for key, _, value in pairs if value.strip()}


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
