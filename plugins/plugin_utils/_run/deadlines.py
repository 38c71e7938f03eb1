# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Calls to a server that end although the server does not answer any more.

A network that is cut silently ends no connection, and Ansible's ssh plugin waits for output without a limit.
Two things end such a wait. ssh itself, by its keepalive: within 40 seconds, however long the server takes for
something. It is added where nobody has set it: an installed collection runs without our ansible.cfg.
And a limit of each call, for what keepalive does not see: another kind of connection, a server that answers
while its disk hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError

# Not for a name: the run's workers, which ask and wait, end with it.
from . import parent as _parent  # noqa: F401

# Questions of ssh to the server, and how many stay without an answer before it gives up (ssh_config(5)).
KEEPALIVE = "-o ServerAliveInterval=10 -o ServerAliveCountMax=3"
SSH_OPTIONS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
# Seconds beyond its own that a call may take which answers soon; and any call at all. Generous: a busy server
# is no dead one, and keepalive sees a dead one much earlier.
SOON = 180.0
LONGEST = 900.0
# Seconds without any change in what is awaited.
SILENT = 4 * 3600.0
# Seconds for putting an end to a connection, which needs no answer of the server.
ENDING = 10.0
CURE = "Check that the server is running and reachable, then run the playbook again; it resumes from there."


class Silence:
    """The limit of a wait for something that has no time-out, for nobody knows how long it takes.

    It goes on as long as anything changes. Hours, for the files of a large model are hashed without a word.
    """

    def __init__(self, what: str, limit: float = SILENT) -> None:
        self._what, self._limit = what, limit
        self._last: object = None
        self._since = time.monotonic()

    def hear(self, state: object) -> None:
        """Note what was told; raise AnsibleError if it has been the same for too long."""
        now = time.monotonic()
        if state != self._last:
            self._last, self._since = state, now
        elif now - self._since > self._limit:
            raise AnsibleError(
                f"No progress of {self._what} for {now - self._since:.0f} s: {state}. Check the server for a"
                " disk or a mount that hangs (dmesg), then run the playbook again; it resumes from there."
            )


class _TimeIsUp(BaseException):
    """No Exception: nothing on the way shall take it for a failure of its own and go on."""


class Answering:
    """Beside ActionBase, a base of action plugins that ask a server and wait."""

    def _within(
        self, seconds: float, doing: str, lost: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        """Bound what is asked of the server inside. `lost`: a connection that breaks is said in our words."""
        connection = getattr(self, "_connection", None)
        keep_alive(connection)
        return limited(connection, seconds, doing, lost)


def keep_alive(connection: Any) -> None:
    """Have ssh ask whether the server is there, unless somebody has decided about that."""
    if getattr(connection, "transport", "") != "ssh":
        return
    try:
        given = [str(connection.get_option(name) or "") for name in SSH_OPTIONS]
        host = str(connection.get_option("host"))
    except KeyError:
        # Another plugin than Ansible's own, with options of its own.
        return
    if "serveraliveinterval" in " ".join(given).lower():
        return
    connection.set_option("ssh_extra_args", f"{given[2]} {KEEPALIVE}".strip())
    # One that an earlier run has left open (ControlPersist) does not ask: nothing new goes through it.
    mark = Path(C.DEFAULT_LOCAL_TMP) / "pd_rollout_alive" / host.replace("/", "_")
    if not mark.exists():
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
        _forget(connection)


@contextlib.contextmanager
def limited(connection: Any, seconds: float, doing: str, lost: bool = True) -> Iterator[None]:
    """Raise AnsibleConnectionFailure, which makes a host unreachable, when the time is up."""
    try:
        with _alarm(seconds):
            yield
    except _TimeIsUp:
        with contextlib.suppress(Exception, _TimeIsUp), _alarm(ENDING):
            end_children()
            _forget(connection)
        _leave_files(connection)
        raise AnsibleConnectionFailure(
            f"The server has not answered for {seconds:.0f} s while {doing}. {CURE}"
        ) from None
    except AnsibleConnectionFailure as error:
        _leave_files(connection)
        if not lost:
            raise
        why = " ".join(str(error).split()).rstrip(".")
        raise AnsibleConnectionFailure(
            f"The server became unreachable while {doing}: {why}. {CURE}"
        ) from None


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TimeIsUp inside after so many seconds; a time-out of the task's own that comes first stays."""
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    if threading.current_thread() is not threading.main_thread() or 0 < before <= seconds:
        yield
        return
    began, inside = time.monotonic(), True

    def ring(_number: int, _frame: object) -> None:
        if inside:
            raise _TimeIsUp

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, before - (time.monotonic() - began)))


def _forget(connection: Any) -> None:
    """Let nothing new go through the connection that is open."""
    with contextlib.suppress(Exception):
        connection.reset()


def _leave_files(connection: Any) -> None:
    """Ansible would connect once more to remove a task's files, and tell of that failure instead."""
    with contextlib.suppress(AttributeError):
        connection._shell.tmpdir = None


def end_children() -> None:
    """End the programs that this worker waits for: its ssh, which would wait on for the server."""
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def children(parent: int) -> list[int]:
    """The processes that a process has begun and that are there."""
    if not Path("/proc/self/stat").exists():
        # A controller without /proc (macOS).
        done = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
        return [int(line) for line in done.stdout.split()]
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            state, its_parent = entry.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if int(its_parent) == parent and state not in ("Z", "X"):
                found.append(int(entry.parent.name))
    return found
