# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The process that serves and copies weights while the controller looks at it now and then.

It lives in a folder below /run that is gone after a boot: the secret of this rollout, the state, the log.
Nothing here imports Ansible.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

RUN = Path("/run/pd_rollout")
# Seconds that a process gets to end by itself; rsync needs a moment to keep what has come of a file.
GRACE = 5.0
PR_SET_PDEATHSIG = 1


def folder_of(path: str) -> Path:
    """The folder in /run for the weights at ``path``."""
    return RUN / f"weights-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def write_json(path: Path, value: object, mode: int = 0o600) -> None:
    """Replace a JSON file in one step."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(value, stream)
    draft.replace(path)


def read_json(path: Path) -> dict | None:
    """The object in a JSON file, None if there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def birth(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: tells it from a later one with the same number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def process_of(folder: Path) -> int | None:
    """The process that works in a folder, if it lives."""
    known = read_json(folder / "process.json")
    if known and birth(known["pid"]) == known["birth"]:
        return known["pid"]
    return None


def die_with_parent() -> None:
    """For a child of the process: end when it ends, however that is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def detach(folder: Path, work: Callable[[], None]) -> None:
    """Do ``work`` in a process of its own that outlives this one; what it prints goes to the log."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        os.chdir("/")
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.closerange(3, 256)
        write_json(folder / "process.json", {"pid": os.getpid(), "birth": birth(os.getpid())})
        work()
    finally:
        os._exit(0)


def stop(folder: Path) -> bool:
    """End the process of a folder and remove the folder; whether there was anything."""
    pid = process_of(folder)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while process_of(folder) is not None and time.monotonic() < end:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            if process_of(folder) is not None:
                os.kill(pid, signal.SIGKILL)
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there
