# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Where root may write and remove: names and paths are judged here, at the place of their use.

The plan refuses the same values earlier and with more words. But a playbook that needs no plan, a role that
is used by itself, and a variable of the command line come here without one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from . import private_folder

# What a deployment, and what stands behind it in the name of a container, may be called: as Docker has it.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
NAME_EXPECTED = "letters, digits, dots, dashes and underscores, a letter or a digit first, at most 63"
# The last part of the path of a directory that is ours: such a name, and what it is for.
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
PATH_EXPECTED = "an absolute path without '..', line breaks and other control characters"

# Directories of the operating system and of the kernel: nothing of ours is made or removed right in them.
SYSTEM = re.compile(
    r"/|/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|proc|run|sbin|sys|tmp|usr|var)"
    r"|/usr/(bin|lib|lib32|lib64|local|sbin|share|src)|/var/(cache|lib|log|run|spool|tmp)"
    r"|/dev/(?!shm/).*|/(proc|sys)/.*"
)

API_KEY = "api_key"
KEY_ID = ".id"
# The ending of a note of the last start (deployment_nodes).
NOTE = ".started"
# Stands in every launch script, and in every note of a start.
SCRIPT_MARK = b"Written by ascend.pd_rollout"
MODE = 0o700


class Refused(Exception):
    """What was asked for would reach beyond what is ours."""


def refusal(variable: str, seen: object, expected: str) -> Refused:
    return Refused(f"{variable} is {seen!r}. Expected: {expected}. Nothing was changed or removed.")


def name(value: object, variable: str) -> str:
    """The value, if it can be the name of a deployment."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise refusal(variable, value, NAME_EXPECTED)
    return value


def path(value: object, variable: str) -> str:
    """The value as a path without needless slashes, if it can be one that leads nowhere else."""
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or ".." in value.split("/")
        or any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in value)
    ):
        raise refusal(variable, value, PATH_EXPECTED)
    return "/" + "/".join(part for part in value.split("/") if part not in ("", "."))


def own_path(value: object, variable: str) -> str:
    """The value, if it is the path of a directory that root may fill and empty: none of the system's."""
    found = path(value, variable)
    if SYSTEM.fullmatch(found):
        raise refusal(variable, value, f"{PATH_EXPECTED}, and not a directory of the operating system")
    return found


def directory(value: object, variable: str) -> str:
    """The value, if it can be the directory of a deployment: a name below a directory that is not the
    system's."""
    found = path(value, variable)
    parent, _, last = found.rpartition("/")
    if SYSTEM.fullmatch(parent or "/"):
        raise refusal(
            variable, value, "a directory below pd_host_dir, and that is none of the operating system's"
        )
    if not FOLDER.fullmatch(last):
        raise refusal(
            variable,
            value,
            "a path whose last part is a name of letters, digits, dots, dashes and underscores",
        )
    return found


def inside(value: object, parent: str, variable: str) -> str:
    """The value, if it is the path of a file right in that directory."""
    found = path(value, variable)
    if found.rpartition("/")[0] != parent:
        raise refusal(variable, value, f"a file in {parent}")
    return found


def others(status: os.stat_result, at: str = "") -> str | None:
    """Who other than root can put something into a directory of this status, or None. In one with the sticky
    bit nobody can exchange what is root's."""
    if status.st_uid not in private_folder.trusted():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    group = private_folder.writing_group(at, status)
    return f"can be written by {group}" if group else None


def distrust(wanted: str) -> str | None:
    """Why the way to a directory, and the directory, are not root's alone, or None. What is not there yet is.

    A link is followed as the kernel would, if nobody else can have made it.
    """
    try:
        for at, status, _last in private_folder.way(wanted):
            if status is None:
                return None
            if stat.S_ISLNK(status.st_mode):
                why = None
                if status.st_uid not in private_folder.trusted():
                    why = f"is a link of user {status.st_uid}"
            else:
                why = others(status, at) if stat.S_ISDIR(status.st_mode) else "is not a directory"
            if why is not None:
                return f"{at} {why}"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return f"{error.filename} is a link that leads to itself"
    return None


def trust(wanted: str, variable: str) -> None:
    """Refuse a directory in which others than root can exchange what root writes."""
    why = distrust(wanted)
    if why is not None:
        raise Refused(
            f"{variable} is {wanted!r}, but {why}: what root writes there could be exchanged, and root be "
            "led elsewhere. Expected: directories of root that nobody else can write to. Correct their owner "
            "or mode, or set pd_host_dir to a directory of root. Nothing was changed or removed."
        )


def problem(wanted: str) -> str | None:
    """Why root should not work in a directory of this path, there or not, or None."""
    why = distrust(str(Path(wanted).parent))
    if why is not None:
        return why
    try:
        status = os.lstat(wanted)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return f"{wanted} is {'a link' if stat.S_ISLNK(status.st_mode) else 'a file'}"


def existing(wanted: str, variable: str) -> os.stat_result | None:
    """The status of a directory of ours, None where there is none yet. A link or a file in its place is
    refused."""
    trust(str(Path(wanted).parent), variable)
    try:
        status = os.lstat(wanted)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "a file"
        raise Refused(
            f"{variable} is {wanted!r}, which is {kind}. Expected: a directory, or nothing. Remove it, or "
            "choose another name. Nothing was changed or removed."
        )
    return status


def _begins(file: str, mark: bytes) -> bool:
    """Whether a regular file, no link, has the mark near its beginning."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as stream:
        return stat.S_ISREG(os.fstat(handle).st_mode) and mark in stream.read(4096)


def is_launch_script(file: str) -> bool:
    """Whether a path is that of a launch script that this collection has written."""
    return file.endswith(".sh") and _begins(file, SCRIPT_MARK)


def is_ours(file: str) -> bool:
    """Whether a file in a deployment's directory is one that a deployment writes."""
    last = Path(file).name
    if last in (API_KEY, API_KEY + KEY_ID):
        status = os.lstat(file)
        return stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
    return is_launch_script(file) or (file.endswith(NOTE) and _begins(file, SCRIPT_MARK))


def _owned(status: os.stat_result) -> bool:
    return stat.S_IMODE(status.st_mode) == MODE and status.st_uid in (0, os.geteuid())


def _make_parents(folder: Path) -> None:
    """Make a directory and those above it that are not there, for root alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(MODE)


def _held(wanted: str, status: os.stat_result, variable: str) -> list[str]:
    """The names of what is in a directory of ours.

    Below one with the sticky bit somebody else may have made it first, who can still exchange it, or write to
    what is in it: that is refused, whatever it looks like.
    """
    held = sorted(one.name for one in Path(wanted).iterdir())
    if held and status.st_uid not in private_folder.trusted():
        raise Refused(
            f"{variable} is {wanted!r}, which belongs to user {status.st_uid} and holds {listed(held)}. "
            "Expected: a directory of root, or none. Look at what is in it, and remove it yourself. Nothing "
            "was changed or removed."
        )
    return held


def make(wanted: str, variable: str, check_mode: bool = False) -> bool:
    """Make a directory that is root's alone; whether that changed something. One that is there and not ours
    is refused: its owner and mode are somebody's."""
    status = existing(wanted, variable)
    if status is not None and _owned(status):
        return False
    if status is not None:
        held = _held(wanted, status, variable)
        if held and not any(is_ours(f"{wanted}/{one}") for one in held):
            raise Refused(
                f"{variable} is {wanted!r}, which holds {listed(held)} and nothing of a deployment. "
                "Expected: a directory of its own. Set pd_deployment or pd_host_dir to another one. Nothing "
                "was changed."
            )
    if check_mode:
        return True
    if status is None:
        _make_parents(Path(wanted).parent)
        trust(str(Path(wanted).parent), variable)
        Path(wanted).mkdir(MODE)
    handle = os.open(wanted, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() == 0:
            os.fchown(handle, 0, 0)
        os.fchmod(handle, MODE)
    finally:
        os.close(handle)
    return True


def remove(wanted: str, variable: str, check_mode: bool = False) -> tuple[bool, list[str]]:
    """Remove what a deployment has written into its directory, and the directory if it is empty then: whether
    that changed something, and what is left. Nothing that somebody else has put there is removed."""
    status = existing(wanted, variable)
    if status is None:
        return False, []
    held = _held(wanted, status, variable)
    left = [one for one in held if not is_ours(f"{wanted}/{one}")]
    if not check_mode:
        for one in held:
            if one not in left:
                Path(wanted, one).unlink()
        if not left:
            Path(wanted).rmdir()
    return len(left) < len(held) or not left, left


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
