"""What a run says when the weights did not come."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _process
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import (
    weights_entry,
    weights_process,
)


@pytest.mark.parametrize(
    ("text", "code", "seen"),
    [
        (
            "Fetching 4 files\nOSError: No space left on device\n",
            "weights-disk-full",
            "OSError: No space left",
        ),
        ("RepositoryNotFoundError: 404\n", "weights-download-failed", "RepositoryNotFoundError: 404"),
        (
            "Traceback\n  File x\nurllib3.exceptions.MaxRetryError: too many 503\n"
            "Downloading [a.json]:   0%|          | 0.00/33.0 [00:30<?, ?B/s]\r"
            "Downloading [a]: 6.00MB [00:30, 207kB/s]\n",
            "weights-download-failed",
            "urllib3.exceptions.MaxRetryError: too many 503",
        ),
        ("", "weights-download-failed", "its log is empty"),
    ],
    ids=["full", "refused", "behind bars of progress", "silent"],
)
def test_how_a_download_ended(text, code, seen):
    found = weights_entry.download_finding("/w", 1, text)
    assert found.code == code
    assert f"exit code 1: {seen}" in found.seen
    assert "run again: the " in found.cure


def test_servers_see_the_signs_of_those_that_share_their_file_system(tmp_path):
    path = tmp_path / "models" / "deepseek"
    for name in ("a-b", "b"):
        weights_entry.leave_probe({"path": str(path), "run": "0123456789ab", "name": name, "address": "x"})
    listing = {"path": str(path), "run": "0123456789ab", "name": "b"}
    assert weights_entry.seen(listing) == ["a-b", "b"]
    assert weights_entry.seen({**listing, "run": "ba9876543210"}) == []
    weights_entry.remove_probes(listing)
    assert weights_entry.seen(listing) == ["a-b"]


def test_a_transfer_that_was_never_started_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_entry.weights_process, "RUN", tmp_path)
    polled = weights_entry.transfer_info({"path": "/srv/w", "container": None, "hold": 0})
    assert polled == {"changed": False, "status": {"phase": "gone", "finding": None}}


def test_a_killed_transfer_is_absent_and_shows_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_entry.weights_process, "RUN", tmp_path)
    folder = weights_entry.weights_process.folder_of("/w")
    folder.mkdir()
    (folder / "process.json").write_text(json.dumps({"pid": 1, "started": 0}))
    (folder / "status.json").write_text(json.dumps({"phase": "fetching", "finding": None}))
    (folder / "log").write_text("12:00:00 copying\n")
    status = weights_entry.status_of({"path": "/w"})
    assert (status.phase, status.log) == ("gone", ["12:00:00 copying"])


def test_the_part_of_a_server_is_read_from_the_options():
    options = {name: option.get("default") for name, option in weights_entry.JOB.items()}
    options.update(address="10.0.0.2", port=1, secret="s", patience=7.0, idle=9.0)
    options["sources"] = [{"name": "s1", "address": "10.0.0.1"}]
    job = weights_entry.job_of("s2", "/srv/w", options)
    assert (job.stall_timeout, job.idle_timeout) == (7.0, 9.0)
    assert [(source.name, source.address) for source in job.sources] == [("s1", "10.0.0.1")]


def probe_of(path: Path, name: str, run: str = "0123456789ab") -> Path:
    weights_entry.leave_probe({"path": str(path), "run": run, "name": name, "address": "x"})
    return path.parent / f".pd_rollout-probe-{run}-{name}"


def test_what_a_killed_run_has_left_is_seen_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_process, "RUN", tmp_path / "run")
    path = tmp_path / "models" / "deepseek"
    path.mkdir(parents=True)
    assert weights_process.left(str(path)) is False
    own, other = probe_of(path, "decode[1]"), probe_of(path, "decode2", "ba9876543210")
    assert weights_process.left(str(path)) is True
    folder = weights_process.make_folder(str(path))
    (folder / "secrets").write_text("x")
    weights_process.detach(folder, lambda: signal.pause())
    while (running := weights_process.process_of(folder)) is None:
        time.sleep(0.01)
    stopped = {"path": str(path), "state": "absent", "name": "decode[1]"}
    weights_entry.transfer(stopped)
    assert _process.start_time(running) is None
    assert not folder.exists()
    # Another server's may be of a run that goes on, until it is a day old.
    assert not own.exists()
    assert other.exists()
    os.utime(other, (0, time.time() - weights_entry.STALE - 3600))
    weights_entry.transfer(stopped)
    assert not other.exists()
    assert weights_process.left(str(path)) is False


@pytest.mark.parametrize("path", ["/", "models", "/srv/../etc", "/srv/x\n"])
def test_a_path_that_leads_elsewhere_is_not_worked_at(path):
    result = weights_entry.directory({"path": path, "state": "staged", "damaged": []})
    assert result["failed"]
    assert not result["changed"]
