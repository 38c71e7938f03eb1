# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A server's part of the copy from beginning to end, with an rsync that copies between directories."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.contents import files_below, read_json
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_copy, weights_install
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import WeightsStatus
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_rsync import Job, Peer

# As a daemon it stays. As a client it copies from what the daemon of the server at that address serves.
RSYNC = """#!/bin/sh
[ "$1" = --daemon ] && exec sleep 600
while [ $# -gt 2 ]; do shift; done
address=${1#*@}; module=${address#*/}; address=${address%%:*}
from=$(sed -n "/^\\[${module%/}\\]/{n;s/path = //p}" "$ROOT/$address/rsyncd.conf") || exit 10
cp -pruv "$from"/. "$2" | grep -c '^' | sed 's/^/Number of regular files transferred: /'
echo "Total bytes received: 7"
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """`server("s1", sources=["s2"])` does the part of a server, and returns its last status."""
    monkeypatch.setenv("ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    rsync = tmp_path / "bin" / "rsync"
    rsync.parent.mkdir()
    rsync.write_text(RSYNC)
    rsync.chmod(0o755)
    monkeypatch.setattr(weights_install.inspection, "inspect", lambda *_, **__: NoErrors)
    monkeypatch.setattr(weights_copy.signal, "signal", lambda *_: None)

    def run(name: str, *, sources=(), **options) -> WeightsStatus:
        folder = tmp_path / name
        folder.mkdir()
        for secret in ("secrets", "password"):
            (folder / secret).touch()
        job = Job(name, f"{folder}/model", "10.0.0.1", 1, "secret", idle_timeout=0, **options)
        job.sources = [Peer(source, source) for source in sources]
        if not sources:
            job.weights.mkdir()
            (job.weights / "a").write_text("weights")
        weights_copy.Copy(job, folder).run()
        assert not list(folder.glob("secrets")) + list(folder.glob("password"))
        return WeightsStatus.from_dict(read_json(folder / "status.json"))

    return run


class NoErrors:
    errors = ()


def test_weights_go_on_along_the_chain(server, tmp_path):
    assert server("s1").phase == "complete"
    for name, source in (("s2", "s1"), ("s3", "s2")):
        status = server(name, sources=[source])
        assert (status.phase, status.source, status.done, status.total) == ("complete", source, 7, 7)
        assert files_below(tmp_path / name / "model") == ["a"]
    assert not (tmp_path / "s3" / ".model.incoming").exists()


def test_the_next_source_is_asked_if_the_nearest_is_gone(server):
    server("s1")
    status = server("s3", sources=["s2", "s1"], stall_timeout=0)
    assert (status.phase, status.source) == ("complete", "s1")


def test_without_any_source_the_reasons_are_reported(server):
    status = server("s3", sources=["s2", "s1"], stall_timeout=0)
    assert status.phase == "failed"
    assert status.finding.code == "weights-source-lost"
    assert "s2: " in status.finding.seen
    assert "s1: " in status.finding.seen


def test_weights_with_a_wrong_hash_do_not_get_their_name(server, tmp_path):
    server("s1")
    status = server("s2", sources=["s1"], hashes={"a": "0" * 64})
    assert (status.phase, status.finding.code) == ("failed", "weights-hash-mismatch")
    assert not (tmp_path / "s2" / "model").exists()


def test_a_place_where_nothing_can_be_written_is_a_finding(server, tmp_path, monkeypatch):
    server("s1")

    def read_only(_directory):
        raise OSError(30, "Read-only file system", "/srv")

    monkeypatch.setattr(weights_copy, "keep_beginnings", read_only)
    status = server("s2", sources=["s1"])
    assert (status.finding.code, status.finding.path) == ("weights-unwritable", "/srv")


def test_the_first_server_reports_weights_that_change(tmp_path):
    job = Job("s1", str(tmp_path / "model"), "10.0.0.1", 1, "secret")
    job.weights.mkdir()
    (job.weights / "a").write_text("weights")
    copy = weights_copy.Copy(job, tmp_path)
    copy._report.make_public_folder()
    copy._report.publish(weights_copy.manifest_of(job.weights))
    copy._checked_at = 0
    copy._watch()
    assert copy._report.status.finding is None
    (job.weights / "a").write_text("others")
    copy._watch()
    assert copy._report.status.finding is None, "not looked at again so soon"
    copy._checked_at = 0
    copy._watch()
    assert copy._report.status.finding.code == "weights-changed"
    assert copy._report.status.finding.seen == "1 file(s) on s1, e.g. a"
