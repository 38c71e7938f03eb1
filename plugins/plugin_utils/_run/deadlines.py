# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Time limits for calls to a server that may stop answering.

A silent network failure ends no connection, and Ansible's ssh plugin waits for output without a limit. Two
mechanisms end such a wait. The keepalive of ssh does so within 40 seconds, however long the server works on
something; it is added unless it is configured, since an installed collection runs without our ansible.cfg.
And each call has a limit, for failures that keepalive does not detect: another kind of connection, or a
server that answers while its disk hangs.
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

# Imported for its effect: the run's workers, which wait for servers, end with the run.
from . import parent as _parent  # noqa: F401

# Keepalive of ssh: the interval in seconds, and the unanswered probes before it gives up (ssh_config(5)).
KEEPALIVE = "-o ServerAliveInterval=10 -o ServerAliveCountMax=3"
SSH_OPTIONS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
# Seconds that a quick call may take beyond its own duration, and seconds for any call. Generous, since a busy
# server is not a dead one, and keepalive detects a dead one much earlier.
SOON = 180.0
LONGEST = 900.0
# Seconds without any progress of what is awaited.
SILENT = 4 * 3600.0
# Seconds for closing a connection, which needs no answer of the server.
ENDING = 10.0
CURE = "Check that the server is running and reachable, then run the playbook again; it resumes from there."


class Silence:
    """A stall timeout, for waits of unknown length.

    The wait continues as long as anything changes. The limit is hours, because the files of a large model are
    hashed without any output.
    """

    def __init__(self, what: str, limit: float = SILENT) -> None:
        self._what, self._limit = what, limit
        self._last: object = None
        self._since = time.monotonic()

    def hear(self, state: object) -> None:
        """Record the reported state. Raises AnsibleError if it has been the same for too long."""
        now = time.monotonic()
        if state != self._last:
            self._last, self._since = state, now
        elif now - self._since > self._limit:
            raise AnsibleError(
                f"No progress of {self._what} for {now - self._since:.0f} s: {state}. Check the server for a"
                " disk or a mount that hangs (dmesg), then run the playbook again; it resumes from there."
            )


class _TimeIsUp(BaseException):
    """Not an Exception, so that no handler on the way mistakes it for its own failure and continues."""


class Answering:
    """A mixin for ActionBase, for action plugins that call a server and wait."""

    def _within(
        self, seconds: float, doing: str, lost: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        """Limit the calls to the server in a context.

        seconds: the limit.
        doing: what is being done, for the message.
        lost: whether to reword the error of a broken connection.
        """
        connection = getattr(self, "_connection", None)
        keep_alive(connection)
        return limited(connection, seconds, doing, lost)


def keep_alive(connection: Any) -> None:
    """Turn on the keepalive of ssh, unless it is configured."""
    if getattr(connection, "transport", "") != "ssh":
        return
    try:
        given = [str(connection.get_option(name) or "") for name in SSH_OPTIONS]
        host = str(connection.get_option("host"))
    except KeyError:
        # A connection plugin other than Ansible's own, with other options.
        return
    if "serveraliveinterval" in " ".join(given).lower():
        return
    connection.set_option("ssh_extra_args", f"{given[2]} {KEEPALIVE}".strip())
    # A connection that an earlier run has left open (ControlPersist) has no keepalive, so it is not reused.
    mark = Path(C.DEFAULT_LOCAL_TMP) / "pd_rollout_alive" / host.replace("/", "_")
    if not mark.exists():
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
        _forget(connection)


@contextlib.contextmanager
def limited(connection: Any, seconds: float, doing: str, lost: bool = True) -> Iterator[None]:
    """Raise AnsibleConnectionFailure, which makes a host unreachable, after a number of seconds.

    connection: the connection, which is closed then.
    seconds, doing, lost: as in ``Answering._within``.
    """
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
    """Raise _TimeIsUp in the context after a number of seconds, unless the task's own timeout is earlier."""
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
    """Close the open connection, so that it is not reused."""
    with contextlib.suppress(Exception):
        connection.reset()


def _leave_files(connection: Any) -> None:
    """Forget the temporary files of the task, since Ansible would connect again to remove them, and fail."""
    with contextlib.suppress(AttributeError):
        connection._shell.tmpdir = None


def end_children() -> None:
    """End the child processes of this worker: its ssh, which would continue to wait for the server."""
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def children(parent: int) -> list[int]:
    """Return the IDs of the living child processes of a process."""
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
