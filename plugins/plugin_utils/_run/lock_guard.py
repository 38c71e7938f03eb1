# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps a server's lock while a run lives, and gives it back when the run has ended, however it ended.

A task cannot do this: a run that fails goes no further, and one that is killed does nothing more. So a
process of its own waits beside the run, on the controller, one for each server. It touches the lock from time
to time; if the controller is gone altogether, the lock's silence tells.
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

# Seconds: between two signs of life; between two looks where the system does not tell that a process ended;
# between two tries to give the lock back; that the server may take for an answer.
BEAT = 30.0
LOOK = 2.0
AGAIN = 5.0
ANSWER = 60.0
TRIES = 3


def start(
    run: int, began: str | None, mark: Path, beat: Callable[[], bool], give_back: Callable[[], object]
) -> None:
    """Begin to guard for the process `run` that began at `began`, and note the guard at `mark`.

    `beat` touches the lock and says whether it still is the run's; `give_back` removes it. Both may raise.
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
            # Nobody waits for its output, and a Ctrl-C is for the run. The connection to the server stays.
            _process.leave(keep=None)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _guard(ended, beat, give_back)
    finally:
        os._exit(0)


def stop(mark: Path) -> None:
    """End the guard that is noted at `mark`, if there is one: its lock is given back, or never was had."""
    try:
        number, _, began = mark.read_text(encoding="utf-8").partition(" ")
    except OSError:
        return
    mark.unlink(missing_ok=True)
    if lock_owner.process_start(int(number)) == began:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGTERM)


def _ending(run: int, began: str | None) -> Callable[[float], bool]:
    """A function that waits for the end of a process, at most so many seconds, and says whether it came."""
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
        # A server that does not answer now may do so next time.
        with contextlib.suppress(Exception):
            if not beat():
                return
    for _ in range(TRIES):
        with contextlib.suppress(Exception):
            give_back()
            return
        time.sleep(AGAIN)
