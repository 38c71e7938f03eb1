# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The rsync daemon of a server that other servers fetch from."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TransferError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_daemon import Daemon
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_rsync import Job


@pytest.fixture
def daemon(tmp_path):
    return Daemon(Job("s1", str(tmp_path / "model"), "10.0.0.1", 18730, "secret"), tmp_path)


def rsync(tmp_path, monkeypatch, script: str) -> None:
    """Let rsync be that script."""
    program = tmp_path / "bin" / "rsync"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_it_is_busy_while_a_server_fetches_and_not_after(daemon):
    """Its log records a large file only at its end."""
    assert daemon.is_busy() is False
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as process:
        daemon.process = process
        fetching = int(process.stdout.readline())
        assert daemon.is_busy() is True
        assert time.time() - daemon.last_used() < 60
        os.kill(fetching, signal.SIGKILL)
        process.wait()
        assert daemon.is_busy() is False


def test_its_log_shows_when_it_was_used(daemon, tmp_path):
    assert daemon.last_used() == 0
    (tmp_path / "rsyncd.log").touch()
    assert time.time() - daemon.last_used() < 60


def test_it_goes_on_when_it_serves_another_directory(daemon, tmp_path, monkeypatch):
    rsync(tmp_path, monkeypatch, "exec sleep 600")
    daemon.serve(tmp_path / "staging")
    first = daemon.process
    daemon.serve(tmp_path / "model")
    assert daemon.process is first
    assert f"path = {tmp_path}/model" in (tmp_path / "rsyncd.conf").read_text().splitlines()
    daemon.check()
    daemon.stop()
    assert first.poll() is not None


def test_one_that_has_ended_is_a_finding_with_its_last_words(daemon, tmp_path, monkeypatch):
    daemon.check()
    rsync(tmp_path, monkeypatch, "exit 10")
    (tmp_path / "rsyncd.log").write_text("starting\nbind() failed: Address already in use\n")
    daemon.serve(tmp_path / "model")
    daemon.process.wait()
    with pytest.raises(TransferError) as raised:
        daemon.check()
    assert raised.value.finding.code == "weights-serving-failed"
    assert "10.0.0.1:18730 has ended: bind() failed: Address already" in raised.value.finding.seen
