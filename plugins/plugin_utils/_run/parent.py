# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the run that a worker works for is still there, and that its workers end with it.

A worker of a run that was killed goes on, and may hang for ever: its result goes through a pipe that only the
run reads, but of which all workers hold the other end, too. What is more than the pipe holds is never read, a
write into it never fails, and the next worker waits for the lock of the one that writes. So the kernel ends a
worker with its run (prctl(2), PR_SET_PDEATHSIG). The run itself imports this file when it loads the first
action plugin of ours, and from then on each worker that it starts has that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading

from ansible.errors import AnsibleError

PR_SET_PDEATHSIG = 1


class ParentRun:
    """The run as it is when a wait begins. Workers outlive a run that is killed.

    One that goes on asking would tell the server that somebody waits, so what ends by itself when nobody does
    would go on, too.
    """

    def __init__(self) -> None:
        self._pid = os.getppid()

    def check(self, wait: str) -> None:
        """Raise AnsibleError if the run has ended. `wait`: what was awaited, for the message."""
        if os.getppid() != self._pid:
            raise AnsibleError(f"The run that waited for {wait} has been killed.")


class _Workers:
    """What makes the processes that this one forks end with it."""

    def __init__(self) -> None:
        self._run = os.getpid()
        self._by_main_thread = False
        # Not looked up in the new process: that may need a lock that a thread of the run holds.
        self._prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def before(self) -> None:
        # The kernel takes the end of the thread that forked for the end of the parent.
        self._by_main_thread = threading.current_thread() is threading.main_thread()

    def in_child(self) -> None:
        """SIGTERM: Ansible's worker ends its programs, such as ssh, with itself then."""
        if not self._by_main_thread or os.getppid() != self._run or self._prctl is None:
            return
        self._prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._run:
            # It ended in this moment, and no signal comes any more.
            os._exit(1)


def end_workers_with_this_run() -> None:
    """From here on; a process that is forked by a worker, such as a lock's guard, lives on."""
    workers = _Workers()
    with contextlib.suppress(AttributeError):
        os.register_at_fork(before=workers.before, after_in_child=workers.in_child)


end_workers_with_this_run()
