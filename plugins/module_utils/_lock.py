# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A lock file that records its holder and start time.

Every change happens while a file beside the lock is held with flock, so two runs never both believe that
they are first. No other user can open that file, because whoever can open it can hold it forever. Both files
are in /run, so a reboot removes the lock. The lock's modification time is the last sign of life of its run;
zero means that none is expected.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._files import private_folder
from ._findings import ERROR, Catalogue, Check, RolloutError

LOCK_CHECKS = Catalogue(
    Check(
        "lock-held",
        "Another rollout is running on a server",
        "Concurrent rollouts would undo each other's changes. A run releases its lock when it ends; a run "
        "that gives no sign of life loses its lock after some time.",
        ERROR,
        "one rollout at a time",
        "wait until it ends; if you know that it has ended, -e deploy_lock_force=true  # or rm {path} there",
        "this collection, docs/architecture.md",
    ),
    Check(
        "lock-unusable",
        "The lock file of a server cannot be used",
        "It is a file in a folder to which only root can write.",
        ERROR,
        "a lock file that root can read and write, in an existing folder",
        "ls -l {path}  # the lock needs root (become: true)",
        "this collection, docs/architecture.md",
    ),
)

# Arguments of the module rollout_lock and its action.
ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "deployment": {"type": "str", "default": "pd"},
    "path": {"type": "path", "default": "/run/pd_rollout.lock"},
    "max_age": {"type": "int", "default": 21600},
    "max_silence": {"type": "int", "default": 300},
    "force": {"type": "bool", "default": False},
    "owner": {"type": "dict"},
    "replace": {"type": "str"},
}


class LockError(RolloutError):
    """The lock at a path cannot be read or written."""

    def __init__(self, path: str, seen: str) -> None:
        super().__init__(LOCK_CHECKS.finding("lock-unusable", path=path, seen=seen), f"{path}: {seen}")


def held_beside(path: str) -> str:
    """Return the path of the file that is held while the lock at ``path`` is changed."""
    folder, _slash, name = path.rpartition("/")
    return f"{folder}/.{name}.held"


@contextlib.contextmanager
def _alone(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    try:
        private_folder.check(str(path.parent), sticky=True)
    except private_folder.UnsafeFolder as error:
        raise LockError(str(path), error.finding.sentence) from error
    held = held_beside(str(path))
    handle = os.open(held, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        owner = os.fstat(handle).st_uid
        if owner not in private_folder.trusted():
            seen = f"belongs to user {owner}, who could hold it forever; check the file and remove it"
            raise LockError(held, seen)
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


class RolloutLock:
    """The lock at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def holder(self) -> dict[str, Any] | None:
        """Return the holder of the lock, or None.

        To the data that the holder recorded this adds, by this server's clock: ``since`` in seconds since the
        epoch, ``age`` in seconds, and ``silent``, the seconds since the last sign of life (None before the
        first). Raises LockError if the file cannot be read.
        """
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            touched = self._path.stat().st_mtime
        except FileNotFoundError:
            return None
        except ValueError:
            content, touched = None, self._path.stat().st_mtime
        except OSError as error:
            raise LockError(str(self._path), f"cannot be read: {error.strerror}") from error
        now = time.time()
        if isinstance(content, dict) and isinstance(content.get("since"), (int, float)):
            silent = max(0.0, now - touched) if touched else None
            return {**content, "age": max(0.0, now - content["since"]), "silent": silent}
        # Not written by this collection, but still a lock, as old as the file.
        return {"run": "", "since": touched, "age": max(0.0, now - touched), "silent": None}

    def acquire(
        self, owner: dict[str, Any], replace: str | None = None, dry_run: bool = False
    ) -> dict[str, Any] | None:
        """Acquire the lock; return None, or the holder if it is another run.

        owner: the run that acquires it.
        replace: the run whose lock may be taken over.
        dry_run: only report who would hold it.

        Raises LockError.
        """
        try:
            with contextlib.nullcontext() if dry_run else _alone(self._path):
                other = self.holder()
                if other and other.get("run") not in (owner["run"], replace):
                    return other
                if not dry_run and not (other and other.get("run") == owner["run"]):
                    self._write({**owner, "since": time.time()})
        except OSError as error:
            raise LockError(str(self._path), f"cannot be written: {error.strerror}") from error
        return None

    def release(self, run: str, dry_run: bool = False) -> bool:
        """Release the lock if this run holds it; return whether it did. Raises LockError."""
        try:
            with contextlib.nullcontext() if dry_run else _alone(self._path):
                mine = (self.holder() or {}).get("run") == run
                if mine and not dry_run:
                    self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LockError(str(self._path), f"cannot be removed: {error.strerror}") from error
        return mine

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep runs from acquiring the lock while the context lasts: they wait. Others may do the same at a
        time. Raises LockError."""
        try:
            with _alone(self._path, fcntl.LOCK_SH):
                yield
        except FileNotFoundError as error:
            raise LockError(str(self._path), f"cannot be written: {error.strerror}") from error

    def _write(self, content: dict[str, Any]) -> None:
        handle, draft = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            Path(draft).chmod(0o644)
            os.utime(draft, (0, 0))
            Path(draft).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
            raise


def change(options: dict[str, Any]) -> dict[str, Any]:
    """The work of the module rollout_lock: acquire or release a lock, and return the module's result."""
    owner = options["owner"]
    if not owner or not owner.get("run"):
        return {"failed": True, "msg": "owner is missing: the action rollout_lock sets it, but did not run"}
    lock = RolloutLock(options["path"])
    try:
        if options["state"] == "absent":
            released = lock.release(owner["run"], options["_check_mode"])
            return {"changed": False, "released": released}
        holder = lock.acquire(owner, options["replace"], options["_check_mode"])
    except LockError as error:
        return error.failure()
    return {"changed": False, "holder": holder}
