# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads files, directories, devices and free space."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..._hccn.query import npu_smi_at


def other_npu_smi(path: str | None) -> str | None:
    """Return the path of npu-smi if it is not at the path that the containers mount, otherwise None."""
    found = npu_smi_at(path) if path and not path_exists(path) else path
    return found if found != path else None


def path_exists(path: str) -> bool:
    """Return whether the path exists; also True if access is denied, since it is not known to be missing."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def is_device(path: str) -> bool:
    """Return whether the path is a character device."""
    try:
        return stat.S_ISCHR(Path(path).stat().st_mode)
    except OSError:
        return False


def free_bytes(path: str) -> int | None:
    """Return the free bytes where the path is or will be; None if the file system is not writable."""
    existing = Path(path)
    while not path_exists(str(existing)) and existing != existing.parent:
        existing = existing.parent
    try:
        found = os.statvfs(existing)
    except OSError:
        return None
    return None if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize


def file_bytes(path: str) -> int | None:
    """Return the size of a file in bytes; None if there is none, or no path is given."""
    try:
        return Path(path).stat().st_size if path else None
    except OSError:
        return None


def file_system_bytes(path: str) -> int | None:
    """Return the size in bytes of the file system mounted at the path; None if there is none."""
    try:
        found = os.statvfs(path) if os.path.ismount(path) else None
    except OSError:
        return None
    return found.f_blocks * found.f_frsize if found else None
