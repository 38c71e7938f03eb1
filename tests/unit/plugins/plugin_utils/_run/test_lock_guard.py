# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The process that gives a lock back when its run has ended; here, what it does is written into a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import lock_guard

# A run that has one guard, and ends when it is told to, or is killed.
RUN = """
    import os, sys
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
    _AnsibleCollectionFinder(paths=[sys.argv[1]])._install()
    from pathlib import Path
    from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import lock_guard
    if sys.argv[4] == "old system":
        del os.pidfd_open
    lock_guard.BEAT = lock_guard.LOOK = lock_guard.AGAIN = 0.05
    pipe, failing = int(sys.argv[3]), [2]
    say = lambda what: os.write(pipe, what + b"\\n")
    def beat():
        say(b"beat")
        return sys.argv[4] != "taken"
    def give_back():
        if sys.argv[4] == "unreachable" and failing[0]:
            failing[0] -= 1
            raise OSError("no route to host")
        say(b"given back")
    run, began = os.getpid(), lock_guard.lock_owner.process_start(os.getpid())
    if sys.argv[4] == "gone before":
        began = "another time"
    lock_guard.start(run, began, Path(sys.argv[2]), beat, give_back)
    os.close(pipe)
    print("guarded", flush=True)
    sys.stdin.readline()
"""


class Guarded:
    """A run with a guard; `told` reads what the guard does, line by line, empty when the guard has gone."""

    def __init__(self, collections, mark, how: str) -> None:
        self.mark = mark
        reading, writing = os.pipe()
        code = textwrap.dedent(RUN)
        self.run = subprocess.Popen(
            [sys.executable, "-c", code, str(collections), str(mark), str(writing), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[writing],
        )
        os.close(writing)
        assert self.run.stdout.readline() == b"guarded\n"
        self.told = os.fdopen(reading, encoding="utf-8")

    def lines(self) -> list[str]:
        """All that the guard says until it has gone."""
        return self.told.read().split("\n")[:-1]

    def end(self) -> None:
        self.run.kill()
        self.run.communicate()
        lock_guard.stop(self.mark)
        self.told.close()


@pytest.fixture
def guarded(tmp_path, pytestconfig):
    made = []

    def make(how: str = "") -> Guarded:
        made.append(Guarded(pytestconfig.rootpath / ".collections", tmp_path / "locks" / "a.guard", how))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("how", ["", "old system", "unreachable"], ids=["here", "no pidfd", "tried again"])
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "ended"])
def test_a_lock_is_given_back_when_the_run_has_gone(guarded, how, kill):
    one = guarded(how)
    assert one.told.readline() == "beat\n"
    assert one.told.readline() == "beat\n"
    if kill:
        one.run.send_signal(signal.SIGKILL)
    one.run.communicate(b"\n")
    said = one.lines()
    assert said[-1] == "given back"
    assert said.count("given back") == 1


def test_a_guard_that_is_stopped_gives_nothing_back(guarded):
    one = guarded()
    assert one.told.readline() == "beat\n"
    lock_guard.stop(one.mark)
    assert "given back" not in one.lines()
    assert not one.mark.exists()
    one.run.communicate(b"\n")


def test_a_guard_leaves_a_lock_alone_that_is_another_run_s_now(guarded):
    assert guarded("taken").lines() == ["beat"]


def test_a_run_that_was_gone_before_its_guard_came(guarded):
    assert guarded("gone before").lines() == ["given back"]


def test_there_may_be_no_guard_to_stop(tmp_path):
    lock_guard.stop(tmp_path / "none")
    gone = tmp_path / "gone"
    gone.write_text(f"{os.getpid()} 1")
    lock_guard.stop(gone)
    assert not gone.exists()
