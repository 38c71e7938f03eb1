# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Where a transfer keeps its things on a server: the part that has come, how far it is, whom to ask."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path

from ansible_collections.ascend.pd_rollout.plugins.module_utils import host_listener

# Bytes that a file system keeps free besides: logs and containers need some, too.
MARGIN = 512 * 1024 * 1024
# An engine image in a registry has some 40 % of the bytes that its layers have on a disk.
UNPACKED_RATIO = 2.5


class JobError(Exception):
    """What ends a transfer. `kind` as of a RegistryError, or disk."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


class Folder:
    """Where a transfer keeps its things; root's own."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.part = self.path / "archive.part"
        self._status = self.path / "status.json"
        self._sources = self.path / "sources.json"
        self._alive = self.path / "alive"

    def make(self) -> None:
        """Have it, without what an earlier run has not taken in."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for piece in self.path.glob("incoming.*"):
            piece.unlink()

    def incoming(self, number: int) -> Path:
        """A piece of the archive from the controller that begins with this chunk."""
        return self.path / f"incoming.{number}"

    def receive(self, path: str, number: int) -> None:
        """Take a piece from where it was put; there is all of it or none."""
        draft = self.path / ".incoming"
        shutil.move(path, draft)
        draft.replace(self.incoming(number))

    def read(self) -> dict:
        """The status that the job told last; empty when there is none."""
        return _read(self._status, {})

    def write(self, status: dict) -> None:
        """Tell the status."""
        _write(self._status, status)

    def sources(self) -> list[tuple[str, str, int]]:
        """From whom to take: name, address, port, best first."""
        return [tuple(one) for one in _read(self._sources, [])]

    def touch(self, sources: list[list] | None = None) -> None:
        """The controller is there, and may know more sources."""
        if sources is not None:
            _write(self._sources, sources)
        self._alive.touch()

    def unwatched(self) -> float:
        """Seconds since the controller was there."""
        try:
            return time.time() - self._alive.stat().st_mtime
        except OSError:
            return float("inf")

    def end_job(self) -> dict:
        """End the process if there is one; its last status."""
        status = self.read()
        if status.get("pid"):
            host_listener.stop(status["pid"], status["started"])
        return status

    def running(self) -> bool:
        """Whether the process is there."""
        status = self.read()
        return bool(status.get("pid")) and host_listener.start_time(status["pid"]) == status["started"]

    def clear(self, keep_part: bool) -> bool:
        """Remove everything, or everything but the part; whether there was something."""
        if not self.path.exists():
            return False
        if keep_part and self.part.exists():
            for entry in self.path.iterdir():
                if entry != self.part:
                    entry.unlink()
        else:
            shutil.rmtree(self.path)
        return True


def _read(path: Path, default):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def _write(path: Path, content) -> None:
    """All of it or, on a full disk, nothing: what was there stays, and is written again soon."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}"


def unpacked(size: int, packed: bool) -> int:
    """Bytes that an archive of so many bytes becomes in the engine: an estimate if it is compressed."""
    return int(size * UNPACKED_RATIO) if packed else size


def check_room(folder: str, archive: int, engine: int, root: str = "/var/lib/docker") -> None:
    """Raise JobError unless `archive` bytes fit into the folder, and `engine` bytes where the engine is.

    The engine needs room for the layers, and before that for the archive in a folder of its own.
    """
    needs: dict[int, tuple[str, int]] = {}
    for path, size in ((folder, max(0, archive)), (root if Path(root).exists() else "/", engine)):
        device = Path(path).stat().st_dev
        where, known = needs.get(device, (path, 0))
        needs[device] = (where, known + size)
    for path, need in needs.values():
        free = shutil.disk_usage(path).free
        if free < need + MARGIN:
            raise JobError(
                f"the disk of {path} has {megabytes(free)} MB free, the image needs"
                f" {megabytes(need + MARGIN)} MB there"
                " (its archive until it is loaded, what the engine unpacks, and some to spare)",
                "disk",
            )
