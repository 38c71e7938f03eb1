# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A process of ours that outlives the task which starts it: how it is noted, recognized and ended.

Its number alone proves nothing: it may be another's by now, after a reboot even with the same start time, and
whoever can write a note can put any number into it. So the process keeps its note open as long as it lives.
Only a process of this user, begun when the note says, that has this very file open, is the one noted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

# Seconds between looks whether a process has gone.
LOOK = 0.02


def start_time(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def note(path: Path) -> int:
    """Note the process that calls this; the open file, which it keeps until it ends."""
    draft = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    pid = os.getpid()
    os.write(handle, json.dumps({"pid": pid, "started": start_time(pid)}).encode())
    draft.replace(path)
    return handle


def noted(path: Path) -> int | None:
    """The process of a note, if it lives and is proved to be the one."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        pid, started = int(known["pid"]), int(known["started"])
        file = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if pid <= 1 or start_time(pid) != started:
        return None
    return pid if _is_ours(pid) and _has_open(pid, file) else None


def _is_ours(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except OSError:
        return False


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for entry in entries:
        with contextlib.suppress(OSError):
            opened = entry.stat()
            if (opened.st_dev, opened.st_ino) == (file.st_dev, file.st_ino):
                return True
    return False


def end(path: Path, patience: float) -> bool:
    """End the process of a note, by force after `patience` seconds; whether there was one."""
    pid = noted(path)
    if pid is None:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        if noted(path) != pid:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while noted(path) == pid and time.monotonic() < deadline:
            time.sleep(LOOK)
    return True
