# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A call to a server that does not answer any more ends, and says so; one that takes its time does not."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import deadlines

ROOT = Path(__file__).resolve().parents[5]


class Ssh:
    """A connection as Ansible's ssh plugin has it."""

    transport = "ssh"

    def __init__(self, **options: str) -> None:
        self.options = dict.fromkeys(deadlines.SSH_OPTIONS, "") | {"host": "10.0.0.1"} | options
        self.resets = 0
        self._shell = SimpleNamespace(tmpdir="/root/.ansible/tmp/x")

    def get_option(self, name: str) -> str:
        return self.options[name]

    def set_option(self, name: str, value: str) -> None:
        self.options[name] = value

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture(autouse=True)
def local_tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(deadlines.C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    # A worker's children are all its own; those of other tests are not this one's.
    real, before = deadlines.children, deadlines.children(os.getpid())
    monkeypatch.setattr(deadlines, "children", lambda pid: [one for one in real(pid) if one not in before])


def wait_for_server() -> None:
    """As ssh does for a server that is gone."""
    subprocess.run(["sleep", "600"], check=False)


def test_a_call_without_an_answer_ends_and_so_does_its_ssh():
    connection = Ssh()
    with (
        pytest.raises(AnsibleConnectionFailure, match="not answered for 0 s while the decoder was awaited"),
        deadlines.limited(connection, 0.2, "the decoder was awaited"),
    ):
        wait_for_server()
    assert connection.resets == 1
    assert connection._shell.tmpdir is None, "what removes it would wait once more"
    assert deadlines.children(os.getpid()) == []
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_call_that_answers_in_time_is_left_alone():
    connection = Ssh()
    with deadlines.limited(connection, 60, "it was awaited"):
        time.sleep(0.01)
    assert connection.resets == 0
    assert connection._shell.tmpdir
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_nothing_on_the_way_takes_the_end_for_a_failure_of_its_own():
    with pytest.raises(AnsibleConnectionFailure), deadlines.limited(Ssh(), 0.1, "it was awaited"):
        try:
            wait_for_server()
        except Exception:
            wait_for_server()


def test_a_connection_that_breaks_is_said_in_words():
    def broken(lost: bool) -> str:
        with (
            pytest.raises(AnsibleConnectionFailure) as told,
            deadlines.limited(Ssh(), 60, "the weights were awaited", lost),
        ):
            raise AnsibleConnectionFailure("Shared connection to 10.0.0.1\nclosed.")
        return str(told.value)

    assert broken(lost=True).startswith(
        "The server became unreachable while the weights were awaited: Shared connection to"
        " 10.0.0.1 closed. Check"
    )
    assert broken(lost=False) == "Shared connection to 10.0.0.1\nclosed."


def test_a_time_out_of_the_task_that_comes_first_stays(monkeypatch):
    class OfTheTask(BaseException):
        pass

    def ring(*_: object) -> None:
        raise OfTheTask

    monkeypatch.setattr(deadlines, "ENDING", 60)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(OfTheTask), deadlines.limited(Ssh(), 60, "it was awaited"):
            wait_for_server()
        # One that comes later goes on.
        signal.setitimer(signal.ITIMER_REAL, 3600)
        with pytest.raises(AnsibleConnectionFailure), deadlines.limited(Ssh(), 0.1, "it was awaited"):
            wait_for_server()
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3600
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for pid in deadlines.children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_in_a_thread_there_is_no_alarm_and_the_call_goes_on():
    seen = []

    def call() -> None:
        with deadlines.limited(Ssh(), 0.001, "it was awaited"):
            time.sleep(0.05)
            seen.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == [True]


def test_ssh_asks_whether_the_server_is_there_where_nobody_has_decided():
    connection = Ssh(ssh_extra_args="-o Compression=yes")
    deadlines.keep_alive(connection)
    assert connection.options["ssh_extra_args"] == f"-o Compression=yes {deadlines.KEEPALIVE}"
    assert connection.resets == 1, "what an earlier run has left open does not ask"
    # The next task of this run goes through the one that does.
    later = Ssh(ssh_extra_args="-o Compression=yes")
    deadlines.keep_alive(later)
    assert deadlines.KEEPALIVE in later.options["ssh_extra_args"]
    assert later.resets == 0


@pytest.mark.parametrize("option", deadlines.SSH_OPTIONS)
def test_who_has_decided_about_it_is_left_alone(option):
    connection = Ssh(**{option: "-o serverAliveInterval=60"})
    deadlines.keep_alive(connection)
    assert connection.options[option] == "-o serverAliveInterval=60"
    assert connection.resets == 0


def test_a_plugin_with_other_options_is_left_alone():
    connection = Ssh()
    del connection.options["ssh_extra_args"]
    deadlines.keep_alive(connection)
    assert connection.resets == 0


@pytest.mark.parametrize(
    "connection", [None, SimpleNamespace(transport="local"), SimpleNamespace()], ids=repr
)
def test_other_connections_have_the_limit_alone(connection: Any):
    deadlines.keep_alive(connection)
    with pytest.raises(AnsibleConnectionFailure), deadlines.limited(connection, 0.1, "it was awaited"):
        wait_for_server()


@pytest.mark.parametrize("folder", [".", "playbooks"])
def test_from_a_checkout_every_task_has_it(folder):
    found = configparser.ConfigParser()
    found.read(ROOT / folder / "ansible.cfg")
    given = found["ssh_connection"]["ssh_args"]
    assert deadlines.KEEPALIVE in given
    assert "ControlPersist" in given


def test_a_wait_goes_on_while_anything_changes_and_not_for_ever(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(deadlines.time, "monotonic", lambda: now[0])
    silence = deadlines.Silence("the weights of decode1")
    for done in range(100):
        now[0] += deadlines.SILENT
        silence.hear({"done": done})
    now[0] += deadlines.SILENT
    silence.hear({"done": 99})
    now[0] += 1
    with pytest.raises(AnsibleError, match=r"No progress of the weights of decode1 for 14401 s"):
        silence.hear({"done": 99})
