# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Files that a server's root has for itself: whether they hold what they must, and how they are replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from .contents import sha256

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def holds(path: Path, value: str, mode: int = FILE_MODE) -> bool:
    """Return whether a file has this SHA-256 (empty: it must not exist), this mode, and the user as owner."""
    try:
        status = path.lstat()
        if not value or not stat.S_ISREG(status.st_mode):
            return False
        same = sha256(path) == value
    except OSError:
        return not value
    return same and stat.S_IMODE(status.st_mode) == mode and status.st_uid == os.geteuid()


def outdated(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Return the names of files that differ from their SHA-256 (empty: must not exist), owner or mode."""
    return [name for name, value in expected.items() if not holds(folder / name, value)]


def write(path: Path, content: str | bytes, mode: int = FILE_MODE) -> None:
    """Replace a file at once; at no time can anybody else read it. Raises OSError."""
    draft = path.with_name(f".{path.name}.new")
    if draft.exists() or draft.is_symlink():
        draft.unlink()
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(handle, mode)
        stream.write(content if isinstance(content, bytes) else content.encode())
    draft.replace(path)
