# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Folders on a server in which root works, and whose content no other user can replace.

Whoever can write to a folder, or to one above it, decides on its content: an archive, a secret, the ID of the
process that root ends. So each folder on the path from / must belong to a trusted user, and nobody else may
be able to write to it. A folder with the sticky bit (/tmp, /var/tmp) is accepted above an existing folder of
ours.

Trusted are users who may do everything here already: root, the user that this runs as, and the user who
became root with sudo, with a group that has no other members. Standard library alone; Python 3.7.
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

# Number of links that are followed before they count as a loop, as in the kernel.
MAX_LINKS = 40
# Unicode categories of characters that end a line or control a terminal.
BREAKING = ("Cc", "Zl", "Zp")
# Access control list: a version, and for each entry tag, permissions and ID (linux/posix_acl_xattr.h).
ACL = "system.posix_acl_access"
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 1, 2, 4, 8, 16, 32


class UnsafeFolder(RolloutError):
    """A folder that cannot be used; its finding gives the reason."""


def check_name(path: str) -> None:
    """Raise UnsafeFolder unless root may create and remove files at a path of this form."""
    components = path.split("/")
    if not path.startswith("/"):
        seen = "a path that is not absolute"
    elif ".." in components:
        seen = 'a path with ".."'
    elif not any(component not in ("", ".") for component in components):
        seen = "the root directory"
    elif any(unicodedata.category(sign) in BREAKING for sign in path):
        seen = "a path with a line break or another control character"
    else:
        return
    raise UnsafeFolder(FOLDER_CHECKS.finding("folder-path-invalid", path=repr(path), seen=seen))


def trusted() -> set[int]:
    """Return the IDs of the users who may do everything here already."""
    users = {0, os.geteuid()}
    # sudo sets it in the environment of root, and nobody else can (sudo(8)).
    become = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and become.isdigit():
        users.add(int(become))
    return users


def ensure(path: str) -> Path:
    """Create a folder and those above it if missing. Raises UnsafeFolder if other users can change it."""
    _walk(path, make=True)
    return Path(path)


def check(path: str, sticky: bool = False) -> bool:
    """Return whether the folder exists; raise UnsafeFolder if other users could change it.

    path: the folder.
    sticky: whether the sticky bit is sufficient, with which users cannot remove or rename files of others.
    """
    return _walk(path, make=False, sticky=sticky)


def is_ours(path: str) -> bool:
    """Return whether the folder exists, and no other user can have written to it."""
    try:
        return check(path)
    except UnsafeFolder:
        return False


def way(path: str) -> Iterator[tuple[str, os.stat_result | None, bool]]:
    """Yield the folders and links from / to a folder in the kernel's order: path, status, whether it is last.

    A missing one has status None. If it exists when the next one is requested, it is yielded again.
    """
    left, at, links = deque(component for component in path.split("/") if component not in ("", ".")), "/", 0
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
        left.extendleft(component for component in reversed(target.split("/")) if component not in ("", "."))
        at = "/" if target.startswith("/") else at


def _walk(path: str, make: bool, sticky: bool = False) -> bool:
    """Check a folder and all folders above it; return whether it exists. Raises UnsafeFolder.

    path: the folder.
    make: whether to create what is missing.
    sticky: as in check().
    """
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
        # Whatever the umask is, no other user may write.
        os.mkdir(path, 0o700 if last else 0o755)  # noqa: PTH102
    except FileExistsError:
        # Another process was faster; the result is checked next.
        return
    except OSError as error:
        raise UnsafeFolder(
            FOLDER_CHECKS.finding("folder-unwritable", path=path, seen=error.strerror or str(error))
        ) from error


def _check_one(path: str, found: os.stat_result, users: set[int], last: bool) -> None:
    """Raise UnsafeFolder if one folder of the path is not safe.

    path, found: the folder and its status.
    users: trusted user IDs.
    last: whether the sticky bit is not sufficient.
    """
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
        # Files that another user has put into the last one remain theirs, and may be open.
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
    """Return who can write besides the owner and is not trusted, a group or users; empty if nobody."""
    if not found.st_mode & stat.S_IWGRP:
        return ""
    # With an access control list, the group's bits are the mask of its entries (acl(5)).
    rights = _list(path)
    if any(not _is_trusted(*right) for right in rights):
        return "users in its access control list (getfacl)"
    if rights and not any(tag == ACL_GROUP_OBJ for tag, _number in rights):
        return ""
    return "" if _trusted_group(found.st_gid) else f"group {_group(found.st_gid)}"


def _trusted_group(number: int) -> bool:
    """Return whether all members of a group may do everything here already.

    This holds for root's group, and for the group with the user's name that many systems create for each
    user, where new folders are writable for the group (pam_umask(8), usergroups). A shared group is not
    trusted.
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
        # It has no known members.
        return True
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _list(path: str) -> list[tuple[int, int]]:
    """Return tag and ID of each entry of the access control list, besides the owner, that may write."""
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
    # The owner and the group of the folder are checked as without a list.
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
