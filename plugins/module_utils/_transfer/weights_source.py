# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A server from which another one fetches the weights: it has them, or is still fetching them itself."""

from __future__ import annotations

import re
import time

from .._files.contents import read_json
from .._findings import Finding
from .catalogue import TRANSFER_CHECKS, TransferError
from .status import COMPLETE, FETCHING, WeightsStatus
from .weights_client import Client, SourceLost
from .weights_daemon import Daemon
from .weights_files import arrived, check_space, disk_full, read_manifest
from .weights_report import Report
from .weights_rsync import (
    NO_SPACE,
    PARTIAL_TRANSFER,
    READ_FAILED,
    RECEIVED,
    REFUSED,
    TRANSFERRED,
    VANISHED,
    Job,
    Peer,
    last_line,
)

# Seconds between two passes if the last one fetched nothing.
PAUSE = 0.3


class Source:
    """One of the servers to fetch from."""

    def __init__(self, peer: Peer, job: Job, client: Client, report: Report, daemon: Daemon) -> None:
        """Prepare fetching from a server.

        peer: that server.
        job: the part of the copy of the server that fetches.
        client: runs rsync.
        report: of the server that fetches; it is kept up to date.
        daemon: of the server that fetches; without it, fetching ends.
        """
        self._peer = peer
        self._job = job
        self._client = client
        self._report = report
        self._daemon = daemon

    def follow(self) -> None:
        """Fetch pass after pass until the source has all files, and so has this server.

        Raises SourceLost if the source cannot provide them, and TransferError if no source could.
        """
        heard, done, answered = time.monotonic(), arrived(self._job.staging), False
        while True:
            try:
                status = self.read_report()
                answered = True
                if status.finding is not None:
                    raise _failure(status.finding)
                check_space(self._job.staging, self._report.status.total)
                self._report.update(phase=FETCHING)
                new = self.fetch_pass()
                heard = time.monotonic()
                if status.phase == COMPLETE and not new:
                    return
            except SourceLost as lost:
                if arrived(self._job.staging) > done:
                    heard, done = time.monotonic(), arrived(self._job.staging)
                # Where a daemon has answered once and nothing listens now, it has ended.
                gone = answered and REFUSED in str(lost)
                if lost.final or gone or time.monotonic() - heard > self._job.stall_timeout:
                    raise
                new = False
            self._daemon.check()
            if not new:
                time.sleep(PAUSE)

    def read_report(self) -> WeightsStatus:
        """Return the status of the source; its manifest goes into the report of this server.

        Raises SourceLost if the source does not answer.
        """
        output, folder = self._client.fetch_report(self._peer.address)
        status = read_json(folder / "status.json")
        if output.returncode or status is None:
            raise SourceLost(last_line(output.stdout) or "no answer")
        self._report.publish(read_manifest(folder / "manifest.json"))
        if self._report.manifest:
            self._report.update(total=self._report.size)
        return WeightsStatus.from_dict(status)

    def fetch_pass(self) -> bool:
        """Fetch the files that are complete at the source; return whether there was a new one.

        Raises SourceLost if the source has ended the pass, and TransferError if the disk is full or if files
        cannot be read at the source.
        """
        output = self._client.fetch_weights(self._peer.address)
        received = RECEIVED.search(output.stdout)
        if received:
            self._report.count_received(_number(received[1]))
        self._report.measure()
        if output.returncode in (0, VANISHED):
            files = TRANSFERRED.search(output.stdout)
            return bool(files and _number(files[1]))
        if NO_SPACE in output.stdout:
            raise disk_full(self._job.staging, self._report.status.total)
        unreadable = READ_FAILED.findall(output.stdout)
        if output.returncode == PARTIAL_TRANSFER and unreadable:
            raise TransferError(
                TRANSFER_CHECKS.finding(
                    "weights-source-unreadable",
                    path=self._job.path,
                    seen=f"{len(unreadable)} file(s) of {self._peer.name}: {unreadable[0]}",
                )
            )
        raise SourceLost(last_line(output.stdout) or f"rsync ended with {output.returncode}")


def _failure(finding: Finding) -> Exception:
    """Return the error for a source that has failed; if the weights changed there, no source is of use."""
    if finding.code == "weights-changed":
        return TransferError(finding)
    return SourceLost(f"{finding.message}: {finding.seen}", final=True)


def _number(text: str) -> int:
    """Return a number of rsync's statistics, which may have separators."""
    return int(re.sub(r"\D", "", text))
