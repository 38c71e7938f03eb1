# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The Python modules of a router on its server: wheels, unpacked into a directory that is complete or absent.

Wheels are zip files. They are brought into a draft beside the directory, compared with their hashes, unpacked
there, and the draft is renamed. A file in it says what it was made of, and that it is ours.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import safe_paths
from .._files.contents import sha256
from .._findings import RolloutError
from .catalogue import ENGINE_CHECKS

# The names of such directories and of their drafts begin with these.
PREFIX = safe_paths.MODULES
DRAFT = "."
NOTE = safe_paths.MODULES_NOTE
INCOMING = "wheels"
MODE = 0o700
FAILED = "The router's modules cannot be provided."


class Unpackable(RolloutError):
    """Wheels that cannot be unpacked; the finding gives the reason."""


ARGUMENTS = {
    "path": {"type": "str", "required": True},
    "wheels": {"type": "dict", "required": True},
    "stage": {"type": "str", "choices": ["look", "begin", "finish"], "required": True},
}


def note_of(wheels: Mapping[str, str]) -> str:
    """Return the content of the file that says what a directory was made of."""
    listed = "\n".join(f"{pin}  {name}" for name, pin in sorted(wheels.items()))
    return f"{safe_paths.SCRIPT_MARK.decode()}, from:\n{listed}\n"


def is_complete(path: str, wheels: Mapping[str, str], owner: int = 0) -> bool:
    """Return whether a directory was made from these wheels, and is root's alone.

    owner: user ID that must own it.
    """
    try:
        status = os.lstat(path)
        made_from = Path(path, NOTE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == owner and stat.S_IMODE(status.st_mode) == MODE
    return mine and made_from == note_of(wheels)


def leftovers(directory: str, planned: list[str]) -> list[str]:
    """Return the directories of routers' modules in a deployment's directory that are not planned."""
    try:
        entries = sorted(entry.path for entry in os.scandir(directory) if entry.name.startswith(PREFIX))
    except OSError:
        return []
    return [path for path in entries if path not in planned and safe_paths.is_modules(path)]


def unpack(wheel: Path, target: Path) -> None:
    """Unpack a wheel below a directory. Raises Unpackable if it is none, or would write elsewhere."""
    # The inspection of a deployment reads this file too, and needs none of it.
    import zipfile

    try:
        with zipfile.ZipFile(str(wheel)) as archive:
            names = archive.namelist()
            outside = [name for name in names if name.startswith("/") or ".." in Path(name).parts]
            if outside:
                raise zipfile.BadZipFile(f"it contains {outside[0]!r}")
            archive.extractall(str(target))
    except zipfile.BadZipFile as error:
        raise Unpackable(
            ENGINE_CHECKS.finding("router-wheel-wrong", path=str(wheel), seen=str(error))
        ) from error


def look(path: Path, wheels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return whether the directory is complete, and the architecture whose wheels it needs if not.

    path: the directory.
    wheels: wheels by architecture.
    """
    machine = platform.machine()
    mine = wheels.get(machine)
    if mine is None:
        raise Unpackable(
            ENGINE_CHECKS.finding(
                "router-machine-unknown", seen=machine, expected=", ".join(sorted(wheels)), path=str(path)
            )
        )
    complete = is_complete(str(path), mine, os.geteuid())
    return {"changed": not complete, "complete": complete, "machine": machine, "incoming": ""}


def begin(path: Path, wheels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Prepare a draft beside the directory, into which the wheels must come, if it is not complete."""
    found = look(path, wheels)
    if found["complete"]:
        return found
    safe_paths.make(str(path.parent), "the directory of pd_host_dir and pd_deployment")
    draft = draft_of(path)
    for place in (path, draft):
        remove(place)
    draft.mkdir(MODE)
    (draft / NOTE).write_text(note_of(wheels[found["machine"]]), encoding="utf-8")
    (draft / INCOMING).mkdir(MODE)
    return {**found, "incoming": str(draft / INCOMING)}


def finish(path: Path, wheels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Unpack the wheels that have come into the draft, and put it in its place."""
    draft = draft_of(path)
    for name, pin in wheels[platform.machine()].items():
        wheel = draft / INCOMING / name
        found = sha256(wheel)
        if found != pin:
            raise Unpackable(
                ENGINE_CHECKS.finding("router-wheel-wrong", path=str(wheel), seen=found, expected=pin)
            )
        unpack(wheel, draft)
    shutil.rmtree(str(draft / INCOMING))
    draft.rename(path)
    return {"changed": True, "complete": True, "machine": platform.machine(), "incoming": ""}


def draft_of(path: Path) -> Path:
    """Return the place of a directory while it is being made."""
    return path.with_name(DRAFT + path.name)


def remove(path: Path) -> None:
    """Remove a directory of ours. Raises Refused for anything else in its place."""
    if not os.path.lexists(path):
        return
    if not safe_paths.is_modules(str(path)):
        raise safe_paths.refusal(
            "folder-not-empty",
            f"is {str(path)!r}, which this collection has not made",
            "the directory of the router's modules",
            "something else",
            path=str(path),
        )
    shutil.rmtree(str(path))


def work(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of router_modules_unpack. ``_check_mode``: whether check mode is on."""
    path = Path(options["path"])
    try:
        # The directory of the deployment, which is checked when it is made.
        parent = safe_paths.directory(str(path.parent), "container_directory (pd_host_dir)")
        safe_paths.inside(str(path), parent, "the path of the router's modules")
        if not path.name.startswith(PREFIX):
            raise safe_paths.refusal(
                "folder-name-invalid",
                f"is {path.name!r}, which is no name for the router's modules",
                "the path of the router's modules",
                path.name,
                f"{PREFIX}…",
            )
        safe_paths.existing(parent, "container_directory (pd_host_dir)")
        if options["stage"] == "look" or options["_check_mode"]:
            return look(path, options["wheels"])
        stage = begin if options["stage"] == "begin" else finish
        return stage(path, options["wheels"])
    except (safe_paths.Refused, Unpackable) as error:
        return error.failure() if isinstance(error, safe_paths.Refused) else error.failure(FAILED)
    except OSError as error:
        why = f"{error.filename or path}: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            why += f" ({shutil.disk_usage(str(path.parent)).free / 1e6:.0f} MB free)"
        found = Unpackable(ENGINE_CHECKS.finding("router-modules-unwritten", path=str(path), seen=why))
        return found.failure(FAILED)
