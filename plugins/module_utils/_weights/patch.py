# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Sets the dtype in config.json atomically: other processes see either the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .config_json import CONFIG_NAME


@dataclass(frozen=True)
class ConfigPatch:
    """The text of config.json before and after the dtype is set."""

    before: bytes
    after: bytes


class ConfigChanged(Exception):
    """config.json has changed since it was read."""


def _write_beside(target: Path, data: bytes) -> Path:
    """Write a temporary file next to the target, with its mode and owner, and return its path."""
    status = target.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.{socket.gethostname()}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode))
            # A share may refuse the owner (root squashing); the mode above keeps the file readable.
            with contextlib.suppress(OSError):
                os.fchown(stream.fileno(), status.st_uid, status.st_gid)
            os.fsync(stream.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _keep_original(target: Path, data: bytes) -> Path:
    """Keep the replaced file as config.json.orig, never overwriting an older original; return its path."""
    temporary = _write_beside(target, data)
    try:
        number = 0
        while True:
            kept = target.with_name(f"{target.name}.orig" + (f".{number}" if number else ""))
            try:
                os.link(temporary, kept)
                return kept
            except FileExistsError:
                if kept.read_bytes() == data:
                    return kept
            except OSError:
                # A file system without hard links: a rename is atomic as well.
                if not kept.exists():
                    temporary.replace(kept)
                    return kept
                if kept.read_bytes() == data:
                    return kept
            number += 1
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def apply_patch(directory: Path, patch: ConfigPatch) -> Path:
    """Replace config.json with its patched text and return the path of the original.

    Servers that share the directory may do this at the same time without a lock: each writes a file of
    its own name and renames it over config.json, and all of them compute the same text. Raises OSError if
    the directory is not writable, and ConfigChanged if another process has changed the file in between. A
    symbolic link (as in the hub's cache) is replaced by a file; its target stays unchanged.
    """
    target = directory / CONFIG_NAME
    kept = _keep_original(target, patch.before)
    temporary = _write_beside(target, patch.after)
    try:
        if target.read_bytes() not in (patch.before, patch.after):
            raise ConfigChanged(f"{target} was changed by someone else during this run; run again")
        temporary.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return kept
