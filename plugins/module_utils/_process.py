# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Starts, records, recognizes and ends a process that outlives the task which starts it.

A process ID alone proves nothing: it may have been reused, after a reboot even with the same start time, and
whoever can write the record can put any number into it. The process therefore keeps its record open as long
as it lives. A process is the recorded one only if it belongs to this user, has the recorded start time, and
has this very file open.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

# Seconds between checks whether a process has ended.
POLL_INTERVAL = 0.02


def detach(
    work: Callable[[], None],
    *,
    note_at: Path | None = None,
    log: Path | None = None,
    keep: Iterable[int] | None = (),
) -> int:
    """Run a function in a new process that outlives this one.

    work: the function; the process ends when it returns.
    note_at: file in which the process records itself (see note()), before this function returns.
    log: file to which its output is appended; without one the output is lost.
    keep: file descriptors that stay open besides the standard ones; None keeps all.

    Returns the process ID. The process is a child of the calling one as long as that lives.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ready, noting = os.pipe()
    child = os.fork()
    if child:
        os.close(noting)
        # End of file: the child has recorded itself, or has ended.
        os.read(ready, 1)
        os.close(ready)
        return child
    try:
        os.close(ready)
        leave(log, keep if keep is None else {*keep, noting})
        # The open file proves later which process the record is about.
        _handle = note(note_at) if note_at else None
        os.close(noting)
        work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)


def leave(log: Path | None = None, keep: Iterable[int] | None = ()) -> None:
    """Detach the calling process from its parent: its session, signals, directory and files.

    log, keep: as for detach().
    """
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    output = nothing if log is None else os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard, file in ((0, nothing), (1, output), (2, output)):
        os.dup2(file, standard)
    if keep is not None:
        kept = {0, 1, 2, *keep}
        for entry in list(Path("/proc/self/fd").iterdir()):
            if int(entry.name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(entry.name))


def start_time(pid: int) -> int | None:
    """Return the start time of a process in the kernel's ticks; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def note(path: Path) -> int:
    """Record the calling process in a file; return the open descriptor, which it must keep until it ends."""
    draft = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    pid = os.getpid()
    os.write(handle, json.dumps({"pid": pid, "started": start_time(pid)}).encode())
    draft.replace(path)
    return handle


def noted(path: Path) -> int | None:
    """Return the ID of the recorded process if it is alive and proved to be the recorded one, else None."""
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


def end(path: Path, grace: float) -> bool:
    """End the recorded process, by force after ``grace`` seconds; return whether there was one."""
    pid = noted(path)
    if pid is None:
        return False
    _end(pid, lambda: noted(path) != pid, grace)
    return True


def end_started(pid: int, started: int, grace: float) -> bool:
    """End the process with this ID and start time, by force after a number of seconds.

    Only for callers that have started the process themselves and know both values from that: see above.

    pid: the process ID.
    started: its start time in the kernel's ticks.
    grace: seconds before SIGKILL.

    Returns whether there was such a process.
    """
    if pid <= 1 or start_time(pid) != started:
        return False
    _end(pid, lambda: start_time(pid) != started, grace)
    return True


def gone_within(pid: int, started: int, seconds: float) -> bool:
    """Wait a number of seconds for the process with this ID and start time to end; return whether it did."""
    return _becomes(lambda: start_time(pid) != started, seconds)


def _end(pid: int, gone: Callable[[], bool], grace: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if gone():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        _becomes(gone, grace)


def _becomes(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True
