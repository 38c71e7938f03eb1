# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One server's part of the fan-out: fetch the weights from the server before, serve them to the one after.

Every server runs an rsync daemon for the time of the rollout, and fetches from the one before it in the
chain whatever files are complete there, again and again until that one has all. A file goes on to the next
server while the following one still comes in, so that a chain costs one copy and a few files. Nothing here
imports Ansible.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

from .._findings import Finding
from . import weights_install
from .catalogue import TRANSFER_CHECKS, TransferError
from .status import COMPLETE, VERIFYING
from .weights_client import SAMPLE, Client, SourceLost
from .weights_daemon import Daemon
from .weights_files import arrived, keep_beginnings, manifest_of
from .weights_process import last_change
from .weights_report import Report
from .weights_rsync import Job
from .weights_source import PAUSE, Source

# Seconds between two checks whether the weights on the first server have changed.
RECHECK = 2 * SAMPLE


class Stopped(BaseException):
    """The controller ends the process."""


class Copy:
    """The work of the process on one server; `run` ends when the controller or idleness ends it."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Prepare the work.

        job: the server's part of the copy.
        folder: of the process, for its secrets, status and logs.
        """
        self._job = job
        self._folder = folder
        self._report = Report(folder, job.staging)
        self._daemon = Daemon(job, folder)
        self._client = Client(job, folder, self._on_sample)
        self._checked_at = time.time()

    def run(self) -> None:
        """Provide the weights, then serve them until stopped, or until nobody has asked for long."""
        signal.signal(signal.SIGTERM, _stop)
        try:
            self._report.make_public_folder()
            self._provide()
            while time.time() - self._last_active() < self._job.idle_timeout or self._daemon.is_busy():
                time.sleep(PAUSE)
                if self._report.status.phase == COMPLETE:
                    self._watch()
        except Stopped:
            pass
        finally:
            self._daemon.stop()
            for name in ("secrets", "password"):
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()

    def _provide(self) -> None:
        """Have the complete weights here, and serve them; or report why not."""
        job, report = self._job, self._report
        try:
            if job.sources:
                report.update()
                self._daemon.serve(job.staging)
                self._fetch()
                report.update(phase=VERIFYING)
                weights_install.verify_sizes(job.staging, report.manifest)
                weights_install.verify(job.staging, job.hashes)
                self._daemon.serve(job.weights)
                weights_install.put_in_place(job.staging, job.weights)
            else:
                report.publish(manifest_of(job.weights))
                self._daemon.serve(job.weights)
            report.update(phase=COMPLETE, done=report.size, total=report.size)
        except TransferError as error:
            report.fail(error.finding)
        except OSError as error:
            report.fail(_finding_of(error, "weights-unwritable", job.staging))

    def _fetch(self) -> None:
        """Fetch all files from the nearest source that can provide them. Raises TransferError if none can."""
        staging = self._job.staging
        staging.mkdir(parents=True, exist_ok=True)
        keep_beginnings(staging)
        reasons = []
        for peer in self._job.sources:
            self._report.update(source=peer.name)
            try:
                Source(peer, self._job, self._client, self._report, self._daemon).follow()
                return
            except SourceLost as lost:
                reasons.append(f"{peer.name}: {lost}")
                print(time.strftime("%H:%M:%S"), reasons[-1], flush=True)
        done, total = arrived(staging), self._report.status.total
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-source-lost",
                path=str(staging),
                seen=f"after {done / 1e6:.1f} MB"
                + (f" of {total / 1e6:.1f} MB" if total else "")
                + f" no source goes on: {'; '.join(reasons)}",
            )
        )

    def _watch(self) -> None:
        """Report if the daemon has ended, or if the weights changed on the server that had them first."""
        try:
            self._daemon.check()
            if self._job.sources or time.time() - self._checked_at < RECHECK:
                return
            self._checked_at = time.time()
            weights_install.verify_unchanged(self._job.weights, self._report.manifest, self._job.name)
        except TransferError as error:
            self._report.fail(error.finding)
        except OSError as error:
            self._report.fail(_finding_of(error, "weights-source-unreadable", self._job.weights))

    def _on_sample(self) -> None:
        self._report.measure()
        self._daemon.check()

    def _last_active(self) -> float:
        """Return when the controller or another server was last heard: seconds since the epoch."""
        fetched_at = self._report.measured_at if self._job.sources else 0.0
        asked_at = max(last_change(self._folder / name) for name in ("contact", "process.json"))
        return max(fetched_at, asked_at, self._daemon.last_used())


def _finding_of(error: OSError, code: str, path: Path) -> Finding:
    """Return a finding with this code for an error of the system, at its file or else at a path."""
    return TRANSFER_CHECKS.finding(code, path=error.filename or str(path), seen=error.strerror or str(error))


def _stop(_signal: int, _frame: object) -> None:
    raise Stopped
