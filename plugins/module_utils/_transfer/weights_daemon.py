# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The rsync daemon of a server, from which the servers behind it fetch the weights."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from .catalogue import TRANSFER_CHECKS, TransferError
from .weights_process import die_with_parent, has_children, last_change
from .weights_rsync import Job, daemon_config


class Daemon:
    """The daemon: it runs from the first call of `serve` until `stop`."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Prepare the daemon.

        job: the server's part of the copy.
        folder: of the process, with the daemon's secrets; its configuration and log go there.
        """
        self.process: subprocess.Popen[bytes] | None = None
        self._job = job
        self._config = folder / "rsyncd.conf"
        self._log = folder / "rsyncd.log"
        self._folder = folder
        self._busy_at = 0.0

    def serve(self, weights: Path) -> None:
        """Serve the complete files in a directory, instead of in the one before."""
        draft = self._folder / "rsyncd.conf.new"
        draft.write_text(daemon_config(self._job, self._folder, weights))
        draft.replace(self._config)
        if self.process is None:
            self.process = subprocess.Popen(
                ["rsync", "--daemon", "--no-detach", f"--config={self._config}"],
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )

    def check(self) -> None:
        """Raise TransferError if the daemon has ended."""
        if self.process is None or self.process.poll() is None:
            return
        last = self._log.read_text().splitlines()[-1:] if self._log.exists() else []
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-serving-failed",
                path=self._job.path,
                seen=f"rsync's daemon on {self._job.address}:{self._job.port} has ended: {' '.join(last)}",
            )
        )

    def is_busy(self) -> bool:
        """Return whether a server is fetching right now; the log records a large file only at its end."""
        if self.process is None or not has_children(self.process.pid):
            return False
        self._busy_at = time.time()
        return True

    def last_used(self) -> float:
        """Return when a server was last seen to fetch, in seconds since the epoch; 0 if none was."""
        return max(self._busy_at, last_change(self._log))

    def stop(self) -> None:
        """End the daemon if it runs."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
