# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a transfer on a server: the partial archive, the status, the servers to ask."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

from .. import _process
from .._files import private_folder
from .._files.contents import read_json, write_json
from .catalogue import TRANSFER_CHECKS, TransferError
from .status import ImageStatus

# Where it is unless somebody chooses another disk: below folders that are root's alone.
DIRECTORY = "/var/lib/pd_rollout/image"
# Bytes that a file system keeps free besides: logs and containers need some, too.
MARGIN = 512 * 1024 * 1024
# Seconds that a process gets to end by itself.
GRACE = 2.0
# An engine image in a registry has some 40 % of the bytes that its layers have on a disk.
UNPACKED_RATIO = 2.5


class Folder:
    """Where a transfer keeps its things: a folder to which only root writes, which may hold other things."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.partial_archive = self.path / "archive.part"
        self._status = self.path / "status.json"
        self._sources = self.path / "sources.json"
        self._alive = self.path / "alive"
        self.process = self.path / "process.json"

    def make(self) -> None:
        """Have it, without what an earlier run has not taken in. Raises UnsafeFolder."""
        private_folder.ensure(str(self.path))
        for piece in self.path.glob("incoming.*"):
            piece.unlink()

    def is_ours(self) -> bool:
        """Whether it is there, and what is in it is believed: nobody else can have written it."""
        return private_folder.is_ours(str(self.path))

    def left(self) -> list[Path]:
        """What transfers have left in it."""
        if not self.is_ours():
            return []
        patterns = ("incoming.*", ".incoming", ".spool.*", ".*.json.*")
        known = [self.partial_archive, self._status, self._sources, self._alive, self.process]
        found = [path for path in known if path.exists()]
        return found + [path for pattern in patterns for path in self.path.glob(pattern)]

    def incoming(self, number: int) -> Path:
        """A piece of the archive from the controller that begins with this chunk."""
        return self.path / f"incoming.{number}"

    def receive(self, path: str, number: int) -> None:
        """Take a piece from where it was put; there is all of it or none."""
        draft = self.path / ".incoming"
        shutil.move(path, draft)
        draft.replace(self.incoming(number))

    def read_status(self) -> ImageStatus | None:
        """Return the status that the job wrote last; None if there is none."""
        status = read_json(self._status)
        return ImageStatus.from_dict(status) if status else None

    def write_status(self, status: ImageStatus) -> None:
        """Replace the status."""
        write_json(self._status, status.to_dict(), passing=True)

    def forget_status(self) -> None:
        """Remove the status of an earlier job."""
        with contextlib.suppress(FileNotFoundError):
            self._status.unlink()

    def sources(self) -> list[tuple[str, str, int]]:
        """Return the servers to fetch from: name, address and port, the best first."""
        return [tuple(source) for source in read_json(self._sources, [])]

    def touch(self, sources: list[list[Any]] | None = None) -> None:
        """The controller is there, and may know more sources."""
        if sources is not None:
            write_json(self._sources, sources, passing=True)
        self._alive.touch()

    def unwatched(self) -> float:
        """Seconds since the controller was there."""
        try:
            return time.time() - self._alive.stat().st_mtime
        except OSError:
            return float("inf")

    def end_job(self) -> ImageStatus | None:
        """End the process if there is one; return its last status."""
        status = self.read_status()
        _process.end(self.process, GRACE)
        return status

    def running(self) -> bool:
        """Whether the process is there."""
        return _process.noted(self.process) is not None

    def clear(self, keep_partial: bool) -> bool:
        """Remove the files of transfers, or all but the partial archive; return whether there was one."""
        going = self.left()
        for path in going:
            if not (keep_partial and path == self.partial_archive):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        if self.is_ours():
            # Not while the partial archive, or a file of somebody else, is in it.
            with contextlib.suppress(OSError):
                self.path.rmdir()
        return bool(going)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}"


def unpacked(size: int, packed: bool) -> int:
    """Bytes that an archive of so many bytes becomes when it is loaded: an estimate if it is compressed."""
    return int(size * UNPACKED_RATIO) if packed else size


def check_room(folder: str, archive: int, loaded: int, root: str = "/var/lib/docker") -> None:
    """Raise TransferError unless `archive` bytes fit into the folder, and `loaded` bytes into `root`.

    The Docker Engine needs room for the layers, and before that for the archive in a folder of its own.
    """
    needs: dict[int, tuple[str, int]] = {}
    for path, size in ((folder, max(0, archive)), (root if Path(root).exists() else "/", loaded)):
        device = Path(path).stat().st_dev
        where, known = needs.get(device, (path, 0))
        needs[device] = (where, known + size)
    for path, need in needs.values():
        free = shutil.disk_usage(path).free
        if free < need + MARGIN:
            need += MARGIN
            has, needs_there = megabytes(free), megabytes(need)
            seen = f"the disk of {path} has {has} MB free, the image needs {needs_there} MB there"
            raise TransferError(TRANSFER_CHECKS.finding("image-disk-full", path=path, seen=seen))
