# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""An archive that grows chunk by chunk while others already read it.

Each chunk has its SHA-256. Of what an interrupted transfer left, those chunks are kept whose hashes are the
source's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

# Bytes. A cut costs at most this; the hashes of an image of 15 GB are some 250 kB.
CHUNK = 4 * 1024 * 1024
# When a disk is full, this much (bytes) is given back to it: a server with nothing left has other troubles.
GIVEN_BACK = 16 * CHUNK


class DiskFull(Exception):
    """No room is left for the archive."""


class Store:
    """The archive in an open file; `spare`: hashes of chunks that lie in it from an earlier transfer."""

    def __init__(self, handle: int, spare: list[str] | None = None) -> None:
        self.handle = handle
        self._news = threading.Condition()
        self.spare = spare or []
        self.hashes: list[str] = []
        self.size = 0
        self.complete = False
        # Bytes that were there from an earlier transfer.
        self.adopted = 0
        # What the whole will have, in bytes, as far as known; and the digest of its manifest in a registry.
        self.total: int | None = None
        self.unpacked: int | None = None
        self.digest = ""
        # How often what had come turned out to be wrong and was begun anew.
        self.epoch = 0

    def append(self, data: bytes) -> None:
        """The next chunk; all but the last are of CHUNK bytes."""
        try:
            at = self.size
            view = memoryview(data)
            while view:
                written = os.pwrite(self.handle, view, at)
                at, view = at + written, view[written:]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._give_back()
            raise DiskFull(str(error)) from error
        self.spare = self.spare[: len(self.hashes)]
        self.note(hashlib.sha256(data).hexdigest(), len(data))

    def note(self, digest: str, length: int) -> None:
        """A chunk that lies in the file is part of the archive."""
        with self._news:
            # In this order: who sees the hash reads the chunk, up to the size.
            self.size += length
            self.hashes.append(digest)
            self._news.notify_all()

    def adopt(self, digest: str) -> bool:
        """Take the next chunk from what lies there already, if it is the one."""
        number = len(self.hashes)
        if number < len(self.spare) and self.spare[number] == digest:
            self.note(digest, CHUNK)
            self.adopted += CHUNK
            return True
        self.spare = self.spare[:number]
        return False

    def begin_anew(self, epoch: int, trust: bool) -> None:
        """Nothing counts any longer. `trust`: what lies there may be adopted again, chunk by chunk."""
        with self._news:
            self.spare = self.hashes + self.spare[len(self.hashes) :] if trust else []
            self.hashes, self.size, self.epoch = [], 0, epoch
        if not trust:
            self.adopted = 0
            os.ftruncate(self.handle, 0)

    def whole(self) -> int:
        """Bytes of the file, with what is spare."""
        return os.fstat(self.handle).st_size

    def finish(self, truncate: bool = True) -> None:
        """There is no more to come."""
        if truncate:
            os.ftruncate(self.handle, self.size)
        with self._news:
            self.complete, self.total = True, self.size
            self._news.notify_all()

    def news(self, known: int, seconds: float) -> None:
        """Wait until there are more chunks than known, or it is complete."""
        with self._news:
            self._news.wait_for(lambda: len(self.hashes) > known or self.complete, seconds)

    def read_back(self, at: int, size: int) -> bytes:
        """Bytes that lie in the file."""
        return os.pread(self.handle, size, at)

    def read(self, number: int) -> bytes:
        """One chunk."""
        return os.pread(self.handle, min(CHUNK, self.size - number * CHUNK), number * CHUNK)

    def content(self) -> Iterator[bytes]:
        """All of it, chunk by chunk."""
        return (self.read(number) for number in range(len(self.hashes)))

    def _give_back(self) -> None:
        left = max(0, os.fstat(self.handle).st_size - GIVEN_BACK) // CHUNK * CHUNK
        os.ftruncate(self.handle, min(left, self.size))


def chunk_hashes(handle: int) -> Iterator[tuple[str, int]]:
    """The hashes and sizes of a file's chunks."""
    number = 0
    data = os.pread(handle, CHUNK, 0)
    while data:
        yield hashlib.sha256(data).hexdigest(), len(data)
        number += 1
        data = os.pread(handle, CHUNK, number * CHUNK)


def open_partial(path: Path) -> int:
    """The file in which an archive is put together; it stays when the transfer is cut.

    One that somebody else made, or that has another name besides, may be changed while it is loaded.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def open_nameless(folder: Path) -> int:
    """A file that is gone with the process, however that ends."""
    path = folder / f".spool.{os.getpid()}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    return handle
