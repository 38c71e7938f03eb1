# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is made of an rsync that reports something, or nothing, and does not end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_client
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_client import (
    Client,
    SourceLost,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_rsync import Job

NO_SPACE = 'rsync: [receiver] write failed on "/srv/a": No space left on device (28)'


class Ended(Exception):
    """What the caller of a client may raise."""


@pytest.fixture
def client_of(tmp_path, monkeypatch):
    """`client_of("echo hello; exec sleep 600")`: a client whose rsync is that script."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in (("SHORT", 1.0), ("SAMPLE", 0.1)):
        monkeypatch.setattr(weights_client, name, value)

    def make(script: str, on_sample=lambda: None, **options) -> Client:
        rsync = tmp_path / "bin" / "rsync"
        rsync.parent.mkdir()
        rsync.write_text(f"#!/bin/sh\n{script}\n")
        rsync.chmod(0o755)
        folder = tmp_path / "run"
        folder.mkdir()
        job = Job("s2", str(tmp_path / "model"), "127.0.0.1", 1, "secret", **options)
        job.staging.mkdir(parents=True)
        return Client(job, folder, on_sample)

    return make


def test_a_full_disk_is_reported_although_rsync_reads_on(client_of):
    """It reads for nothing what the source still sends: hours, of a large file over a slow link."""
    output = client_of(f"echo '{NO_SPACE}'; exec sleep 600").fetch_weights("127.0.0.1")
    assert NO_SPACE in output.stdout
    assert output.returncode


def test_an_rsync_that_is_silent_has_lost_its_source(client_of, tmp_path):
    client = client_of("exec sleep 600", stall_timeout=1)
    arrived = tmp_path / ".model.incoming" / "a"
    arrived.write_text("x")
    with pytest.raises(SourceLost, match="nothing has come for 1 s") as raised:
        client.fetch_weights("127.0.0.1")
    assert raised.value.final
    assert arrived.exists(), "what has arrived stays"


def test_what_a_sample_raises_ends_rsync(client_of, tmp_path):
    def ended() -> None:
        raise Ended

    client = client_of(f"echo $$ > {tmp_path}/pid; exec sleep 600", ended)
    with pytest.raises(Ended):
        client.fetch_weights("127.0.0.1")
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("options", "limit"), [({}, ""), ({"bandwidth": 2.0}, "--bwlimit=1953")], ids=["unlimited", "2 MB/s"]
)
def test_only_the_weights_are_fetched_at_a_limited_rate(client_of, options, limit):
    client = client_of('echo "$@"', **options)
    words = client.fetch_weights("fd00::1").stdout.split()
    assert words[-2] == "rsync://pd_rollout@[fd00::1]:1/weights/"
    assert next((word for word in words if word.startswith("--bwlimit")), "") == limit
    output, folder = client.fetch_report("10.0.0.1")
    assert output.stdout.split()[-2:] == ["rsync://pd_rollout@10.0.0.1:1/control/", f"{folder}/"]
    assert "--bwlimit" not in output.stdout


def test_an_earlier_report_of_a_source_is_not_read_again(client_of):
    client = client_of("exit 10")
    folder = client.fetch_report("10.0.0.1")[1]
    (folder / "status.json").write_text("{}")
    assert list(client.fetch_report("10.0.0.1")[1].iterdir()) == []
