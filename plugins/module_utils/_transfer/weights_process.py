# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The process that serves and copies weights while the controller looks at it now and then.

It lives in a folder below /run that is gone after a boot: the secret of this rollout, the state, the log.
Nothing here imports Ansible.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from .. import _process
from .._files import private_folder

RUN = Path("/run/pd_rollout")
# Seconds that a process gets to end by itself; rsync needs a moment to keep what has come of a file.
GRACE = 5.0
PR_SET_PDEATHSIG = 1
# A file beside the weights that servers with the same file system see.
PROBE = ".pd_rollout-probe-"
# Characters that distinguish one run from others, as weights_assignments gives them.
RUN_LENGTH = 12


def probes(path: str, name: str = "") -> list[Path]:
    """The probe files of all runs beside the weights at ``path``, of a server or of all."""
    pattern = f"{PROBE}{'?' * RUN_LENGTH}-{glob.escape(name) if name else '*'}"
    return sorted(Path(path).parent.glob(pattern))


def left(path: str) -> bool:
    """Whether a run has left something that is of use only while it lasts."""
    return folder_of(path).exists() or bool(probes(path))


def folder_of(path: str) -> Path:
    """The folder in /run for the weights at ``path``."""
    return RUN / f"weights-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def make_folder(path: str) -> Path:
    """A new folder for the weights at ``path``, of which nobody but root can read or change anything."""
    folder = folder_of(path)
    private_folder.ensure(str(folder))
    return folder


def process_of(folder: Path) -> int | None:
    """The process that works in a folder, if it lives."""
    return _process.noted(folder / "process.json")


def has_children(pid: int) -> bool:
    """Whether a process has others of its own."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if entry.read_text().rpartition(")")[2].split()[1] == str(pid):
                return True
    return False


def last_change(path: Path) -> float:
    """Return when a file was last changed, in seconds since the epoch; 0 if there is none."""
    return path.stat().st_mtime if path.exists() else 0.0


def die_with_parent() -> None:
    """For a child of the process: end when it ends, however that is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def detach(folder: Path, work: Callable[[], None]) -> None:
    """Do ``work`` in a process of its own that outlives this one; what it prints goes to the folder's log."""
    _process.detach(work, note_at=folder / "process.json", log=folder / "log")


def stop(folder: Path) -> bool:
    """End the process of a folder and remove the folder; whether there was anything."""
    if not folder.exists():
        return False
    if private_folder.is_ours(str(folder)):
        _process.end(folder / "process.json", GRACE)
    shutil.rmtree(folder, ignore_errors=True)
    return True
