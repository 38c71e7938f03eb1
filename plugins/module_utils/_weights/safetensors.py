# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a safetensors file and checks that the file is complete."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from .config_json import LFS_MAGIC

SHARD_SUFFIX = ".safetensors"

# The limit of the safetensors format for its header, in bytes.
MAX_HEADER_BYTES = 100_000_000

NUMBERED_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")


@dataclass(frozen=True)
class Shard:
    """The contents of one safetensors header."""

    name: str
    size: int
    expected_size: int
    tensors: frozenset[str]
    header_digest: str


@dataclass(frozen=True)
class ShardError:
    """Why a safetensors file cannot be complete: code of the finding, value seen, value expected."""

    name: str
    code: str
    seen: str
    expected: str


def read_shard(directory: Path, name: str) -> Shard | ShardError:
    """Read the header of a safetensors file and compare it with the file's size; the error is returned."""
    try:
        with (directory / name).open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return ShardError(name, "weights-shard-unreadable", "not a file", "a safetensors file")
            size = status.st_size
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8:
                return ShardError(name, "weights-shard-truncated", f"{size} bytes", "more than 8 bytes")
            if start == LFS_MAGIC[:8]:
                return ShardError(
                    name,
                    "weights-shard-lfs-pointer",
                    "a Git LFS pointer of a few bytes",
                    "the weights themselves",
                )
            if not 2 <= length <= MAX_HEADER_BYTES:
                return ShardError(
                    name,
                    "weights-shard-corrupt",
                    f"a header of {length} bytes",
                    f"2 to {MAX_HEADER_BYTES} bytes",
                )
            header = stream.read(length)
    except OSError as error:
        seen = f"cannot be read: {error.strerror}"
        if isinstance(error, FileNotFoundError) and (directory / name).is_symlink():
            seen = f"a link to {os.readlink(directory / name)}, which does not exist"
        return ShardError(name, "weights-shard-unreadable", seen, "a readable file")
    if len(header) < length:
        return ShardError(
            name, "weights-shard-truncated", f"{size} bytes", f"more than the header's {8 + length} bytes"
        )
    try:
        entries = json.loads(header)
        tensors = frozenset(key for key in entries if key != "__metadata__")
        end = max((entries[key]["data_offsets"][1] for key in tensors), default=0)
        expected = 8 + length + int(end)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return ShardError(
            name,
            "weights-shard-corrupt",
            "an unreadable header",
            "a JSON object of tensors with data_offsets",
        )
    if size < expected:
        return ShardError(name, "weights-shard-truncated", f"{size} bytes", f"{expected} bytes")
    if size > expected:
        return ShardError(name, "weights-shard-oversized", f"{size} bytes", f"{expected} bytes")
    return Shard(name, size, expected, tensors, hashlib.sha256(header).hexdigest())
