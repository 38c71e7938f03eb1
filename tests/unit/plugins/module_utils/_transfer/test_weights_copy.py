# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is made of an rsync that says something, or nothing, and does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_copy as copy
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_rsync

NO_SPACE = 'rsync: [receiver] write failed on "/srv/a": No space left on device (28)'


@pytest.fixture
def copying(tmp_path, monkeypatch):
    """`copying("echo hello", 60)`: a copy whose rsync says hello and then stays longer than a test."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in (("SHORT", 1.0), ("SAMPLE", 0.1)):
        monkeypatch.setattr(copy, name, value)

    def make(says: str, patience: float) -> copy.Copy:
        rsync = tmp_path / "bin" / "rsync"
        rsync.parent.mkdir()
        rsync.write_text(f"#!/bin/sh\n{says}\nexec sleep 600\n")
        rsync.chmod(0o755)
        folder = tmp_path / "run"
        (folder / "public").mkdir(parents=True)
        job = weights_rsync.Job("s2", str(tmp_path / "model"), "127.0.0.1", 1, "secret", patience=patience)
        made = copy.Copy(job, folder)
        made.staging.mkdir(parents=True)
        return made

    return make


def test_a_full_disk_is_told_although_rsync_reads_on(copying):
    """It reads for nothing what the source still sends: hours, of a large file over a slow link."""
    with pytest.raises(copy.TransferError) as told:
        copying(f"echo '{NO_SPACE}'", 60).one_pass("127.0.0.1")
    assert told.value.finding.code == "weights-disk-full"


def test_an_rsync_that_is_silent_has_lost_its_source(copying):
    one = copying("", 1)
    # What has come stays.
    Path(one.staging, "a").write_text("x")
    with pytest.raises(copy.SourceLost, match="nothing has come for 1 s"):
        one.one_pass("127.0.0.1")
    assert Path(one.staging, "a").exists()


def test_it_stays_while_a_server_takes_from_it_and_ends_soon_after(copying):
    """The daemon's log tells of a large file only at its end."""
    one = copying("", 60)
    assert one.serving() is False
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as daemon:
        one.daemon = daemon
        taker = int(daemon.stdout.readline())
        assert one.serving() is True
        assert time.time() - one.last_life() < 60
        os.kill(taker, signal.SIGKILL)
        daemon.wait()
        assert one.serving() is False
