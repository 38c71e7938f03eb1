# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Decides where root may write and remove: names and paths are checked here, where they are used.

The plan refuses the same values earlier and in more detail. But a playbook that needs no plan, a role that is
used on its own, and a variable from the command line reach this code without a plan.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from .._findings import RolloutError
from . import private_folder
from .catalogue import FOLDER_CHECKS

# The name of a deployment, which is also a part of the names of its containers: Docker's rule.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# The last part of a deployment directory's path: such a name, and a suffix for its purpose.
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
PATH_EXPECTED = "an absolute path without '..', line breaks and other control characters"

# Directories of the operating system and of the kernel: nothing is created or removed directly in them.
SYSTEM = re.compile(
    r"/|/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|proc|run|sbin|sys|tmp|usr|var)"
    r"|/usr/(bin|lib|lib32|lib64|local|sbin|share|src)|/var/(cache|lib|log|run|spool|tmp)"
    r"|/dev/(?!shm/).*|/(proc|sys)/.*"
)

API_KEY = "api_key"
KEY_ID = ".id"
# Says that the server is drained.
DRAINED = "drained.json"
# The suffix of the file that records the last start of a node (_serving/nodes.py).
NOTE = ".started"
# The directory of a router's modules: how its name begins, and the file in it that says what it was made of.
MODULES = "vllm-router-"
MODULES_NOTE = "made-from"
# The directory of the revisions, and the file that each of them has (_serving/history.py). The name of a
# draft begins with a dot.
HISTORY = "history"
REVISION = re.compile(r"\d{4,9}")
RECORD = "revision.json"
# The directory of the guard, and its files: program, configuration, secret, state; and the note that a guard
# has not read them yet (_serving/guard_unit.py).
GUARD = "guard"
GUARD_FILES = ("pd-guard.pyz", "guard.json", "secret", "state.json")
GUARD_PENDING = "restart.pending"
# Contained in every launch script and in every record of a start.
SCRIPT_MARK = b"Written by ascend.pd_rollout"
MODE = 0o700


# Every refusal ends its message with this.
UNTOUCHED = "nothing was changed or removed"


class Refused(RolloutError):
    """A name or a path with which root must not work; its finding gives the reason."""


def refusal(
    code: str, what: str, variable: str, seen: str, expected: str | None = None, path: str | None = None
) -> Refused:
    """Return the error for a value that is refused.

    ``code``: of FOLDER_CHECKS; ``what``: what is wrong, as the predicate of a sentence about the variable;
    ``variable``: the variable or option that sets the value; ``seen``: the value, or what was found there;
    ``expected``: instead of the catalogue's; ``path``: the directory concerned, if it exists.
    """
    message = f"{variable} {what}; {UNTOUCHED}"
    return Refused(
        FOLDER_CHECKS.finding(code, message, variable=variable, seen=seen, expected=expected, path=path)
    )


def _invalid(what: str, variable: str, value: object, expected: str) -> Refused:
    """Return the error for a path that is not valid, judged by its text alone."""
    return refusal("folder-path-invalid", what, variable, repr(value), expected)


def name(value: object, variable: str) -> str:
    """Return the value if it is a valid name of a deployment; raise Refused otherwise."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise refusal("folder-name-invalid", "is not a valid name", variable, repr(value))
    return value


def path(value: object, variable: str) -> str:
    """Return the value as a path without redundant slashes; raise Refused if it is not absolute and plain."""
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or ".." in value.split("/")
        or any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in value)
    ):
        raise _invalid("is not a valid path", variable, value, PATH_EXPECTED)
    return "/" + "/".join(component for component in value.split("/") if component not in ("", "."))


def own_path(value: object, variable: str) -> str:
    """Return the path if root may fill and empty that directory: it is not one of the operating system's."""
    found = path(value, variable)
    if SYSTEM.fullmatch(found):
        raise _invalid(
            "is a directory of the operating system",
            variable,
            value,
            f"{PATH_EXPECTED}, and not a directory of the operating system",
        )
    return found


def directory(value: object, variable: str) -> str:
    """Return the path if it can be the directory of a deployment: a name below a directory that is not the
    operating system's. Raise Refused otherwise."""
    found = path(value, variable)
    parent, _, last = found.rpartition("/")
    if SYSTEM.fullmatch(parent or "/"):
        raise _invalid(
            "is directly below a directory of the operating system",
            variable,
            value,
            "a directory below pd_host_dir, which is not a directory of the operating system",
        )
    if not FOLDER.fullmatch(last):
        raise _invalid(
            "does not end with a valid name",
            variable,
            value,
            "a path whose last part consists of letters, digits, dots, dashes and underscores",
        )
    return found


def inside(value: object, parent: str, variable: str) -> str:
    """Return the path if it is a file directly in the directory ``parent``; raise Refused otherwise."""
    found = path(value, variable)
    if found.rpartition("/")[0] != parent:
        raise _invalid("is not in the deployment directory", variable, value, f"a file in {parent}")
    return found


def others(status: os.stat_result, at: str = "") -> str | None:
    """Return which users other than root can change entries of a directory, or None.

    ``status``: the directory's; ``at``: its path, to read its access control list. In a directory with the
    sticky bit nobody else can replace what root owns.
    """
    if status.st_uid not in private_folder.trusted():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "is writable by every user"
    group = private_folder.writing_group(at, status)
    return f"is writable by {group}" if group else None


def distrust(folder: str) -> str | None:
    """Return why users other than root can change a directory or the path to it; None if they cannot.

    What does not exist yet is trusted. A link is followed, as the kernel does, if no other user can have made
    it.
    """
    try:
        for at, status, _last in private_folder.way(folder):
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


def trust(folder: str, variable: str) -> None:
    """Raise Refused if users other than root can replace what root writes to a directory."""
    why = distrust(folder)
    if why is not None:
        raise refusal(
            "folder-not-trusted",
            f"is {folder!r}, which users other than root can change",
            variable,
            why,
            path=folder,
        )


def problem(folder: str) -> str | None:
    """Return why root must not work in a directory at this path, whether it exists or not; None if it may."""
    why = distrust(str(Path(folder).parent))
    if why is not None:
        return why
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return f"{folder} is {'a link' if stat.S_ISLNK(status.st_mode) else 'a file'}"


def existing(folder: str, variable: str) -> os.stat_result | None:
    """Return the status of a deployment directory, None if it does not exist yet.

    Raise Refused if a link or a file is in its place, or if users other than root can change the path to it.
    """
    trust(str(Path(folder).parent), variable)
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "a file"
        raise refusal(
            "folder-is-none",
            f"is {folder!r}, which is {kind}",
            variable,
            kind,
            "a directory, or nothing",
            path=folder,
        )
    return status


def _begins(file: str, mark: bytes) -> bool:
    """Return whether a regular file (not a link) contains the mark near its beginning."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as stream:
        return stat.S_ISREG(os.fstat(handle).st_mode) and mark in stream.read(4096)


def is_launch_script(file: str) -> bool:
    """Return whether the file is a launch script that this collection has written."""
    return file.endswith(".sh") and _begins(file, SCRIPT_MARK)


def is_ours(file: str) -> bool:
    """Return whether a file in a deployment directory was written by a deployment."""
    last = Path(file).name
    if last in (API_KEY, API_KEY + KEY_ID):
        status = os.lstat(file)
        return stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
    if is_launch_script(file) or is_modules(file) or is_history(file) or is_guard(file):
        return True
    return (file.endswith(NOTE) or last == DRAINED) and _begins(file, SCRIPT_MARK)


def is_modules(folder: str) -> bool:
    """Return whether this is a directory of a router's modules, or the draft of one, that a deployment made
    (_serving/router_modules.py)."""
    last = Path(folder).name.lstrip(".")
    try:
        ours = _is_own_directory(folder)
    except OSError:
        return False
    return ours and last.startswith(MODULES) and _begins(f"{folder}/{MODULES_NOTE}", SCRIPT_MARK)


def is_history(folder: str) -> bool:
    """Return whether this is the directory of a deployment's revisions, and has nothing else."""
    if Path(folder).name != HISTORY:
        return False
    try:
        return _is_own_directory(folder) and all(_is_revision(entry) for entry in Path(folder).iterdir())
    except OSError:
        return False


def is_guard(folder: str) -> bool:
    """Return whether this is the directory of a deployment's guard, and has nothing else."""
    if Path(folder).name != GUARD:
        return False
    try:
        return _is_own_directory(folder) and all(
            is_guard_file(entry.name) for entry in Path(folder).iterdir()
        )
    except OSError:
        return False


def is_guard_file(last: str) -> bool:
    """Return whether a file in that directory, given its name, is the guard's, or the draft of one."""
    names = (*GUARD_FILES, GUARD_PENDING)
    return last in names or (last.startswith(".") and last[1:].startswith(tuple(f"{one}." for one in names)))


def _is_revision(entry: Path) -> bool:
    """Return whether a directory is a revision, or the draft of one, which may be incomplete."""
    if not _is_own_directory(str(entry)):
        return False
    if entry.name.startswith("."):
        return REVISION.match(entry.name[1:]) is not None
    complete = _begins(f"{entry}/{RECORD}", SCRIPT_MARK)
    return REVISION.fullmatch(entry.name) is not None and complete


def _is_own_directory(folder: str) -> bool:
    """Return whether this is a directory, not a link, of root or of the user who runs this."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid())


def _owned(status: os.stat_result) -> bool:
    return stat.S_IMODE(status.st_mode) == MODE and status.st_uid in (0, os.geteuid())


def _make_parents(folder: Path) -> None:
    """Create a directory and its missing parents, for root alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for parent in reversed(missing):
        parent.mkdir(MODE)


def _held(folder: str, status: os.stat_result, variable: str) -> list[str]:
    """Return the names of the entries of a deployment directory.

    Below a directory with the sticky bit another user may have created it first, and can still replace it or
    write to its files: that is refused, whatever it looks like.
    """
    held = sorted(entry.name for entry in Path(folder).iterdir())
    if held and status.st_uid not in private_folder.trusted():
        raise refusal(
            "folder-of-another-user",
            f"is {folder!r}, which belongs to user {status.st_uid} and contains {listed(held)}",
            variable,
            f"owner {status.st_uid}",
            "a directory of root, or none",
            path=folder,
        )
    return held


def make(folder: str, variable: str, check_mode: bool = False) -> bool:
    """Create a directory for root alone; return whether that changed anything.

    ``variable``: the variable that sets its path, for messages. Raise Refused if it exists and contains only
    files that no deployment has written, because its owner and mode are then somebody else's.
    """
    status = existing(folder, variable)
    if status is not None and _owned(status):
        return False
    if status is not None:
        held = _held(folder, status, variable)
        if held and not any(is_ours(f"{folder}/{name}") for name in held):
            raise refusal(
                "folder-not-empty",
                f"is {folder!r}, which contains {listed(held)} and no files of a deployment",
                variable,
                f"{len(held)} other files",
                "an empty directory, one of a deployment, or none",
                path=folder,
            )
    if check_mode:
        return True
    if status is None:
        _make_parents(Path(folder).parent)
        trust(str(Path(folder).parent), variable)
        Path(folder).mkdir(MODE)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() == 0:
            os.fchown(handle, 0, 0)
        os.fchmod(handle, MODE)
    finally:
        os.close(handle)
    return True


def remove(folder: str, variable: str, check_mode: bool = False) -> tuple[bool, list[str]]:
    """Remove the files of a deployment from its directory, and the directory if it is then empty.

    Returns whether that changed anything, and the names of the files that stay because no deployment has
    written them. ``variable``: the variable that sets its path, for messages.
    """
    status = existing(folder, variable)
    if status is None:
        return False, []
    held = _held(folder, status, variable)
    left = [name for name in held if not is_ours(f"{folder}/{name}")]
    if not check_mode:
        for name in held:
            if name in left:
                continue
            if any(is_it(f"{folder}/{name}") for is_it in (is_modules, is_history, is_guard)):
                shutil.rmtree(f"{folder}/{name}")
            else:
                Path(folder, name).unlink()
        if not left:
            Path(folder).rmdir()
    return len(left) < len(held) or not left, left


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
