# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Only what is proved to be ours is ended."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _process

SLEEP = ["/bin/sh", "-c", "echo there; exec sleep 600"]
NOTED = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import _process
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
_process.note(Path(sys.argv[2]))
print("there", flush=True)
signal.pause()
"""


@pytest.fixture
def started():
    """Start a process, and wait until it is there."""
    processes = []

    def start(command, **options):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        processes.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def with_note(started, path, how=""):
    folder = str(Path(_process.__file__).parent)
    return started([sys.executable, "-c", NOTED, folder, str(path), how])


@pytest.mark.parametrize("how", ["", "deaf"])
def test_the_process_that_holds_its_note_is_ended(tmp_path, started, how):
    note = tmp_path / "process.json"
    process = with_note(started, note, how)
    assert _process.noted(note) == process.pid
    # Not reaped by anybody else: its remains count as gone.
    assert _process.end(note, 0.2 if how else 60)
    assert process.wait(60) == -(signal.SIGKILL if how else signal.SIGTERM)
    assert _process.noted(note) is None
    assert _process.end(note, 0.1) is False


def test_a_number_that_somebody_wrote_down_ends_nothing(tmp_path, started):
    note = tmp_path / "process.json"
    other = started(SLEEP)
    note.write_text(json.dumps({"pid": other.pid, "started": _process.start_time(other.pid)}))
    assert _process.noted(note) is None
    assert _process.end(note, 0.1) is False
    assert other.poll() is None


def test_a_note_that_was_replaced_ends_nothing(tmp_path, started):
    note = tmp_path / "process.json"
    process = with_note(started, note)
    text = note.read_text()
    note.unlink()
    note.write_text(text)
    assert _process.end(note, 0.1) is False
    assert process.poll() is None


def test_a_process_of_another_user_is_not_ours(tmp_path, started):
    """Who may read the folder could hold the note open, too; run as root."""
    tmp_path.chmod(0o755)
    note = tmp_path / "process.json"
    note.touch(mode=0o666)
    held = note.open()
    try:
        nobody = pwd.getpwnam("nobody").pw_uid
        other = started(SLEEP, user=nobody, pass_fds=[held.fileno()])
        note.write_text(json.dumps({"pid": other.pid, "started": _process.start_time(other.pid)}))
        assert _process.noted(note) is None
    finally:
        held.close()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"pid": 1, "started": 0}', '{"pid": -1, "started": 0}', '{"pid": "x"}'],
    ids=repr,
)
def test_a_note_that_says_nothing_of_use_ends_nothing(tmp_path, text):
    note = tmp_path / "process.json"
    note.write_text(text)
    assert _process.noted(note) is None


def test_this_process_has_a_start_and_a_number_that_is_none_has_not(tmp_path):
    assert _process.start_time(os.getpid()) > 0
    assert _process.start_time(2**30) is None
    handle = _process.note(tmp_path / "note")
    assert _process.noted(tmp_path / "note") == os.getpid()
    os.close(handle)
    assert _process.noted(tmp_path / "note") is None
