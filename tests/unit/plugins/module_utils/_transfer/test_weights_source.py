# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A server that is followed until it has all files, fails, or no longer answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_files, weights_source
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import (
    TRANSFER_CHECKS,
    TransferError,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import WeightsStatus
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_client import SourceLost
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_daemon import Daemon
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_report import Report
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_rsync import Job, Peer
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_source import Source

REFUSED = (10, "rsync: [Receiver] failed to connect to 10.0.0.1: Connection refused (111)\n")
FETCHED = "Number of regular files transferred: {}\nTotal bytes received: 1,234\n"


class Server:
    """The client of a server, with what it gets: statuses of the source and (exit code, text) of passes."""

    def __init__(self, folder, statuses, passes) -> None:
        self.folder = folder
        self.statuses, self.passes = iter(statuses), iter(passes)

    def fetch_report(self, address: str) -> tuple[CompletedProcess[str], Any]:
        status = next(self.statuses)
        if isinstance(status, tuple):
            return CompletedProcess([], *status), self.folder
        (self.folder / "status.json").write_text(json.dumps(status.to_dict()))
        (self.folder / "manifest.json").write_text('{"a": {"size": 10, "mtime_ns": 1}}')
        return CompletedProcess([], 0, ""), self.folder

    def fetch_weights(self, address: str) -> CompletedProcess[str]:
        return CompletedProcess([], *next(self.passes))


@pytest.fixture
def source_of(tmp_path, monkeypatch) -> Iterator[Any]:
    """`source_of(statuses, passes)`: a source that reports them in turn, and the report of who fetches."""
    monkeypatch.setattr(weights_source, "PAUSE", 0.01)

    def make(statuses, passes=(), stall_timeout=0.0) -> tuple[Source, Report]:
        job = Job("s2", str(tmp_path / "model"), "10.0.0.2", 1, "secret", stall_timeout=stall_timeout)
        job.staging.mkdir()
        folder = tmp_path / "source"
        folder.mkdir()
        report = Report(tmp_path, job.staging)
        report.make_public_folder()
        client = Server(folder, statuses, passes)
        return Source(Peer("s1", "10.0.0.1"), job, client, report, Daemon(job, tmp_path)), report

    return make


def test_it_is_followed_until_a_pass_after_its_end_brings_nothing_new(source_of, tmp_path):
    statuses = [WeightsStatus("fetching"), WeightsStatus("complete"), WeightsStatus("complete")]
    source, report = source_of(statuses, [(0, FETCHED.format(2)), (24, FETCHED.format(1)), (0, "")])
    source.follow()
    assert (report.status.phase, report.status.total, report.status.received) == ("fetching", 10, 2468)
    assert (tmp_path / "public" / "manifest.json").exists()


def test_one_that_is_slow_to_answer_is_asked_again(source_of):
    source, _report = source_of([REFUSED, REFUSED, WeightsStatus("complete")], [(0, "")], stall_timeout=60)
    source.follow()


def test_one_that_does_not_answer_is_lost_after_a_while(source_of):
    source, _report = source_of([REFUSED] * 2)
    with pytest.raises(SourceLost, match="Connection refused"):
        source.follow()


def test_one_whose_daemon_has_ended_is_lost_at_once(source_of):
    source, _report = source_of([WeightsStatus("fetching"), REFUSED], [(0, "")], stall_timeout=60)
    with pytest.raises(SourceLost, match="Connection refused"):
        source.follow()


@pytest.mark.parametrize(
    ("code", "error"),
    [("weights-changed", TransferError), ("weights-disk-full", SourceLost)],
    ids=["no other source is of use", "another source is asked"],
)
def test_one_that_has_failed_is_not_waited_for(source_of, code, error):
    finding = TRANSFER_CHECKS.finding(code, seen="what was seen there")
    source, _report = source_of([WeightsStatus("failed", finding=finding)], stall_timeout=60)
    with pytest.raises(error, match="what was seen there"):
        source.follow()


@pytest.mark.parametrize(
    ("output", "error", "text"),
    [
        ((11, "No space left on device"), TransferError, "weights-disk-full"),
        (
            (23, 'rsync: [sender] send_files failed to open "/a": Permission denied (13)\n'),
            TransferError,
            r"weights-source-unreadable: .*1 file\(s\) of s1: send_files failed",
        ),
        ((12, "rsync error: error in rsync protocol data stream\n"), SourceLost, "error in rsync protocol"),
        ((20, ""), SourceLost, "rsync ended with 20"),
    ],
    ids=["disk full", "unreadable", "broken off", "without a reason"],
)
def test_how_a_pass_fails(source_of, output, error, text):
    source, _report = source_of([], [output])
    with pytest.raises(error, match=text):
        source.fetch_pass()


def test_nothing_is_fetched_that_does_not_fit(source_of, monkeypatch):
    monkeypatch.setattr(weights_files, "free_bytes", lambda _path: 9)
    source, _report = source_of([WeightsStatus("complete")])
    with pytest.raises(TransferError, match="weights-disk-full"):
        source.follow()
