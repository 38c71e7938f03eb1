# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Folders on a server in which root works, and in which nobody else can exchange anything.

Whoever may write to a folder, or to one above it, decides what lies in it: an archive, a secret, the number
of the process that root ends. So each folder on the way from / belongs to somebody who may do everything here
already, and nobody else can write to it. A folder in which everybody may write but only owners may remove
(/tmp, /var/tmp) will do above one that exists and is ours.

Who may do everything already: root, the user that this runs as, and the one who became root by sudo, with a
group of which nobody else is.
Standard library alone; Python 3.7.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import unicodedata
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from .._findings import RolloutError
from .catalogue import FOLDER_CHECKS

# Links that are followed before they count as a circle, as the kernel has it.
MAX_LINKS = 40
# Kinds of signs that end a line, or steer a terminal.
BREAKING = ("Cc", "Zl", "Zp")
# Its list of rights: a version, and for each entry kind, rights and number (linux/posix_acl_xattr.h).
ACL = "system.posix_acl_access"
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 1, 2, 4, 8, 16, 32


class UnsafeFolder(RolloutError):
    """Why a folder cannot be used."""


def check_name(path: str) -> None:
    """Raise UnsafeFolder unless root may make and remove something at a path of this form."""
    parts = path.split("/")
    if not path.startswith("/"):
        seen = "a path that is not absolute"
    elif ".." in parts:
        seen = 'a path with ".."'
    elif not any(part not in ("", ".") for part in parts):
        seen = "the root directory"
    elif any(unicodedata.category(sign) in BREAKING for sign in path):
        seen = "a path with a line break or another control character"
    else:
        return
    raise UnsafeFolder(FOLDER_CHECKS.finding("folder-path-invalid", path=repr(path), seen=seen))


def trusted() -> set[int]:
    """The numbers of the users who may do everything here already."""
    users = {0, os.geteuid()}
    # sudo sets it in the environment of root, and nobody else can (sudo(8)).
    become = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and become.isdigit():
        users.add(int(become))
    return users


def ensure(path: str) -> Path:
    """Have a folder that is ours; what is missing is made. Raise UnsafeFolder where others can change it."""
    _walk(path, make=True)
    return Path(path)


def check(path: str, sticky: bool = False) -> bool:
    """Whether the folder is there; raise UnsafeFolder where others could change it.

    `sticky`: it will do that nobody can remove or rename what somebody else has in it.
    """
    return _walk(path, make=False, sticky=sticky)


def is_ours(path: str) -> bool:
    """Whether the folder is there, and nobody else can have put anything into it."""
    try:
        return check(path)
    except UnsafeFolder:
        return False


def way(path: str) -> Iterator[tuple[str, os.stat_result | None, bool]]:
    """The folders and links from / to a folder, as the kernel goes: path, status, and whether it is the last.

    One that is not there has no status. If it is there when the next one is asked for, it comes once more.
    """
    left, at, links = deque(part for part in path.split("/") if part not in ("", ".")), "/", 0
    yield at, os.lstat(at), not left
    while left:
        name = left.popleft()
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120 - a string, as the kernel reads it
            continue
        there = f"{at.rstrip('/')}/{name}"
        try:
            found = os.lstat(there)
        except FileNotFoundError:
            yield there, None, not left
            found = os.lstat(there)
        yield there, found, not left
        if not stat.S_ISLNK(found.st_mode):
            at = there
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), there)
        target = os.readlink(there)
        left.extendleft(part for part in reversed(target.split("/")) if part not in ("", "."))
        at = "/" if target.startswith("/") else at


def _walk(path: str, make: bool, sticky: bool = False) -> bool:
    """Judge all on the way to a folder; whether it is there."""
    check_name(path)
    users = trusted()
    try:
        for there, found, last in way(path):
            if found is None:
                if not make:
                    return False
                _make(there, last)
            elif stat.S_ISLNK(found.st_mode):
                _owned(there, found, users, "a link")
            else:
                _check_one(there, found, users, last and not sticky)
    except OSError as error:
        raise _unreadable(error.filename or path, error) from error
    return True


def _make(path: str, last: bool) -> None:
    try:
        # Whatever the mask for new files is, nobody else may write.
        os.mkdir(path, 0o700 if last else 0o755)  # noqa: PTH102
    except FileExistsError:
        # Somebody was quicker; what it is now is looked at next.
        return
    except OSError as error:
        raise UnsafeFolder(
            FOLDER_CHECKS.finding("folder-unwritable", path=path, seen=error.strerror or str(error))
        ) from error


def _check_one(path: str, found: os.stat_result, users: set[int], last: bool) -> None:
    """Raise UnsafeFolder for one folder of the way."""
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(FOLDER_CHECKS.finding("folder-is-none", path=path, seen="not a folder"))
    _owned(path, found, users, "a folder", last)
    writers = "all users" if found.st_mode & stat.S_IWOTH else writing_group(path, found)
    own = "its " if writers.startswith("group ") else ""
    if writers and (last or not found.st_mode & stat.S_ISVTX):
        raise UnsafeFolder(
            FOLDER_CHECKS.finding(
                "folder-writable-by-others",
                path=path,
                seen=f"mode {stat.S_IMODE(found.st_mode):04o}, in which {own}{writers} can write",
            )
        )


def _owned(path: str, found: os.stat_result, users: set[int], what: str, last: bool = True) -> None:
    if found.st_uid not in users:
        # What somebody else has put into the last one stays theirs, and may be open.
        cure = f"check its content and remove it (rm -r {path})" if last else f"run: chown root {path}"
        raise UnsafeFolder(
            FOLDER_CHECKS.finding(
                "folder-of-another-user",
                path=path,
                seen=f"{what} of {_user(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}",
                cure=f"choose a folder below one that belongs to root, or {cure}",
            )
        )


def writing_group(path: str, found: os.stat_result) -> str:
    """The group that can write besides the owner, and is not trusted; empty when there is none."""
    if not found.st_mode & stat.S_IWGRP:
        return ""
    # With a list of rights the group's bits are the most that any of the list has (acl(5)).
    rights = _list(path)
    if any(not _is_trusted(*right) for right in rights):
        return "users in its access control list (getfacl)"
    if rights and not any(tag == ACL_GROUP_OBJ for tag, _number in rights):
        return ""
    return "" if _trusted_group(found.st_gid) else f"group {_group(found.st_gid)}"


def _trusted_group(number: int) -> bool:
    """Whether all of a group may do everything here already.

    Beside root's that is the group of the same name that many systems give each user, in which new folders
    are writable for the group (pam_umask(8), usergroups). One that several users share is none.
    """
    if number == 0:
        return True
    if os.geteuid() != 0 or os.environ.get("SUDO_GID", "") != str(number):
        return False
    try:
        import grp
        import pwd

        group, user = grp.getgrgid(number), pwd.getpwuid(int(os.environ.get("SUDO_UID", "")))
    except (ImportError, KeyError, ValueError):
        # Nobody is known to be in it.
        return True
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _list(path: str) -> list[tuple[int, int]]:
    """Who may write by the folder's list of rights, beside its owner: kind and number of each."""
    try:
        rights = list(struct.iter_unpack("<HHI", os.getxattr(path, ACL)[4:]))
    except (OSError, AttributeError):
        return []
    except struct.error:
        return [(0, 0)]
    most = next((bits for tag, bits, _number in rights if tag == ACL_MASK), 7)
    return [
        (tag, number)
        for tag, bits, number in rights
        if tag not in (ACL_USER_OBJ, ACL_MASK, ACL_OTHER) and bits & most & 2
    ] or [(ACL_USER_OBJ, 0)]


def _is_trusted(tag: int, number: int) -> bool:
    if tag == ACL_USER:
        return number in trusted()
    if tag == ACL_GROUP:
        return _trusted_group(number)
    # The owner and the group of the folder are looked at as without a list.
    return tag in (ACL_USER_OBJ, ACL_GROUP_OBJ)


def _user(number: int) -> str:
    # pwd is not part of every Python.
    try:
        import pwd

        return f"user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"user {number}"


def _group(number: int) -> str:
    try:
        import grp

        return str(grp.getgrgid(number).gr_name)
    except (ImportError, KeyError):
        return str(number)


def _unreadable(path: str, error: OSError) -> UnsafeFolder:
    return UnsafeFolder(
        FOLDER_CHECKS.finding("folder-unreadable", path=path, seen=error.strerror or str(error))
    )
