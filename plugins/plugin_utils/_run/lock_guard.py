# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Renews a server's lock during a run, and releases it when the run has ended in any way.

A task cannot do this, because a run that fails or is killed executes no further tasks. So a separate process
for each server waits on the controller for the end of the run. It renews the lock regularly; if the
controller disappears, the lock expires because it is not renewed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ...module_utils import _process
from . import lock_owner

# Seconds between two renewals; between two checks, if the system does not report the end of a process;
# between two attempts to release the lock; and until the server must answer.
BEAT = 30.0
LOOK = 2.0
AGAIN = 5.0
ANSWER = 60.0
TRIES = 3


def start(
    run: int, began: str | None, mark: Path, beat: Callable[[], bool], give_back: Callable[[], object]
) -> None:
    """Start the guard of a run's lock.

    run, began: process ID and start time of the run.
    mark: file in which the guard is recorded.
    beat: renews the lock and returns whether it still belongs to the run; may raise.
    give_back: removes the lock; may raise.
    """
    ended = _ending(run, began)
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        if guard := os.fork():
            mark.write_text(f"{guard} {lock_owner.process_start(guard)}", encoding="utf-8")
        else:
            # Its output goes nowhere, and Ctrl-C is for the run. The connection to the server stays open.
            _process.leave(keep=None)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _guard(ended, beat, give_back)
    finally:
        os._exit(0)


def stop(mark: Path) -> None:
    """Stop the guard recorded at ``mark``, if any: its lock has been released, or was never acquired."""
    try:
        number, _, began = mark.read_text(encoding="utf-8").partition(" ")
    except OSError:
        return
    mark.unlink(missing_ok=True)
    if lock_owner.process_start(int(number)) == began:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGTERM)


def _ending(run: int, began: str | None) -> Callable[[float], bool]:
    """Return a function that waits a number of seconds for a process to end, and returns whether it has."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            poll = select.poll()
            poll.register(os.pidfd_open(run), select.POLLIN)
            if lock_owner.process_start(run) == began:
                return lambda seconds: bool(poll.poll(seconds * 1000))

    def look(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while began and lock_owner.process_start(run) == began:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK)
        return True

    return look


def _guard(ended: Callable[[float], bool], beat: Callable[[], bool], give_back: Callable[[], object]) -> None:
    wait = 0.0
    while not ended(wait):
        wait = BEAT
        # A server that does not answer now may answer next time.
        with contextlib.suppress(Exception):
            if not beat():
                return
    for _ in range(TRIES):
        with contextlib.suppress(Exception):
            give_back()
            return
        time.sleep(AGAIN)
