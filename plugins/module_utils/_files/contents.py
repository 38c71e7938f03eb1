# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The contents of files and folders: hashes, names below a folder, JSON that is replaced in one step."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

# Bytes that are read at a time.
CHUNK = 4 * 1024 * 1024
# Files hashed at a time: each takes a core, and network storage answers several readers faster than one.
READERS = 8


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. Raises OSError where it cannot be read."""
    return digest_of(path, hashlib.sha256())


def text_sha256(text: str) -> str:
    """The SHA-256 of a text as it is written to a file, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def git_blob_sha1(path: Path) -> str:
    """The SHA-1 by which Git, and a hub for its small files, names a file. Raises OSError."""
    return digest_of(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size))


def digest_of(path: Path, made: Any) -> str:
    """The digest of a file, added to a hash object of hashlib, in hexadecimal. Raises OSError."""
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            made.update(chunk)
    return str(made.hexdigest())


def files_below(directory: Path) -> list[str]:
    """The names of all files below a directory, relative to it and sorted; hidden ones too.

    What cannot be listed is left out.
    """
    found: list[str] = []
    for folder, _folders, names in os.walk(directory):
        inner = os.path.relpath(folder, directory)
        found += [name if inner == "." else f"{inner}/{name}" for name in names]
    return sorted(found)


def read_json(path: Path, default: Any = None) -> Any:
    """The value in a JSON file; the default where there is none, or something else than JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def write_json(path: Path, value: object, *, mode: int = 0o600, passing: bool = False) -> None:
    """Replace a JSON file in one step: whoever reads it sees the old value or the new one.

    mode: its permissions.
    passing: it will be written again soon, so on a full disk the old value stays and nothing is raised.

    Raises OSError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        descriptor = os.open(str(draft), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if not (passing and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise
