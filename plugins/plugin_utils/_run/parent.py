# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Detects that a worker's run has ended, and makes workers end with their run.

A worker of a killed run continues, and may hang forever: it writes its result to a pipe that only the run
reads, but of which all workers also hold the reading end. Beyond the capacity of the pipe nothing is read,
the write never fails, and the next worker waits for the lock of the writing one. So the kernel ends a worker
with its run (prctl(2), PR_SET_PDEATHSIG). The run imports this file when it loads the first action plugin of
this collection, and this applies to each worker that it starts from then on.
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
    """The run at the beginning of a wait. Workers outlive a run that is killed.

    A worker that continued to poll would keep work alive on the server that ends by itself without polling.
    """

    def __init__(self) -> None:
        self._pid = os.getppid()

    def check(self, wait: str) -> None:
        """Raise AnsibleError if the run has ended. ``wait``: what is awaited, for the message."""
        if os.getppid() != self._pid:
            raise AnsibleError(f"The run that waited for {wait} has been killed.")


class _Workers:
    """Makes the processes that this one forks end with it."""

    def __init__(self) -> None:
        self._run = os.getpid()
        self._by_main_thread = False
        # Not looked up in the new process, as that may need a lock that a thread of the run holds.
        self._prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def before(self) -> None:
        # For the kernel, the parent ends when the thread that forked ends.
        self._by_main_thread = threading.current_thread() is threading.main_thread()

    def in_child(self) -> None:
        """Request SIGTERM at the end of the run; Ansible's worker then ends its children too, such as ssh."""
        if not self._by_main_thread or os.getppid() != self._run or self._prctl is None:
            return
        self._prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._run:
            # The run has just ended, so there will be no signal.
            os._exit(1)


def end_workers_with_this_run() -> None:
    """Make workers that are forked from now on end with this run; processes that they fork live on."""
    workers = _Workers()
    with contextlib.suppress(AttributeError):
        os.register_at_fork(before=workers.before, after_in_child=workers.in_child)


end_workers_with_this_run()
