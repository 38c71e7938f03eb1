# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.ascend.pd_rollout.plugins.action import rollout_lock as action
from ansible_collections.ascend.pd_rollout.plugins.module_utils._lock import LockError, RolloutLock
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import lock_owner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_module import SWITCH

OURS = {"run": "ours", "user": "alice", "controller": "control1", "pid": 1}
THEIRS = {"run": "theirs", "user": "bob", "controller": "control2", "pid": 2}


@pytest.fixture
def lock(tmp_path):
    return RolloutLock(str(tmp_path / "lock"))


def test_the_first_has_it_the_second_hears_of_the_first(lock):
    before = time.time()
    assert lock.acquire(OURS) is None
    told = lock.acquire(THEIRS)
    assert told["user"] == "alice"
    assert before <= told["since"] <= time.time()
    assert told["age"] >= 0
    assert told["silent"] is None


def test_a_touched_lock_tells_of_its_last_sign_of_life(lock, tmp_path):
    lock.acquire(OURS)
    os.utime(tmp_path / "lock", (0, time.time() - 90))
    assert lock.acquire(THEIRS)["silent"] == pytest.approx(90, abs=60)


def test_taking_it_twice_keeps_its_age(lock):
    lock.acquire(OURS)
    since = lock.holder()["since"]
    assert lock.acquire(OURS) is None
    assert lock.holder()["since"] == since


def test_only_the_owner_gives_it_back(lock):
    lock.acquire(OURS)
    assert lock.release("theirs") is False
    assert lock.holder()["run"] == "ours"
    assert lock.release("ours") is True
    assert lock.holder() is None
    assert lock.release("ours") is False


def test_it_is_taken_over_from_the_run_named_and_no_other(lock):
    lock.acquire(OURS)
    assert lock.acquire(THEIRS, replace="somebody")["run"] == "ours"
    assert lock.acquire(THEIRS, replace="ours") is None
    assert lock.holder()["run"] == "theirs"


def test_a_dry_run_takes_and_gives_nothing(lock):
    assert lock.acquire(OURS, dry_run=True) is None
    assert lock.holder() is None
    lock.acquire(OURS)
    assert lock.release("ours", dry_run=True) is True
    assert lock.holder()["run"] == "ours"


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"run": "x"}'], ids=str)
def test_a_file_that_is_no_lock_of_ours_locks_all_the_same(tmp_path, content):
    path = tmp_path / "lock"
    path.write_text(content)
    told = RolloutLock(str(path)).acquire(OURS)
    assert told["run"] == ""
    assert told["since"] == pytest.approx(path.stat().st_mtime)
    assert RolloutLock(str(path)).acquire(OURS, replace="") is None


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path):
    with pytest.raises(LockError, match="cannot be written"):
        RolloutLock(str(tmp_path / "none" / "lock")).acquire(OURS)


def test_of_many_at_once_one_has_it(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from module_utils._lock import RolloutLock;"
        "print(RolloutLock(sys.argv[2]).acquire({'run': sys.argv[3]}) is None)"
    )
    folder = Path(sys.modules[RolloutLock.__module__].__file__).parents[1]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, str(tmp_path / "lock"), str(n)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(6)
    ]
    assert sorted(run.communicate()[0].strip() for run in runs) == ["False"] * 5 + ["True"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock.held", "lock"]


def test_nobody_else_can_hold_what_changes_are_made_under(lock, tmp_path):
    """A folder such as /run can be opened by every user, and whoever has it open can hold it for ever."""
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert lock.acquire(OURS) is None
    finally:
        os.close(folder)
    assert (tmp_path / ".lock.held").stat().st_mode & 0o777 == 0o600


def test_a_folder_in_which_only_owners_remove_will_do_but_for_what_others_have_put_there(tmp_path):
    """Where /run is for all, as in some containers. Run as root."""
    tmp_path.chmod(0o1777)
    lock = RolloutLock(str(tmp_path / "lock"))
    assert lock.acquire(OURS) is None
    assert lock.release("ours") is True
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(tmp_path / ".lock.held", nobody, -1)
    with pytest.raises(LockError, match=rf"belongs to user {nobody}, who could hold it|cannot be written"):
        lock.acquire(OURS)


def test_a_lock_in_a_folder_that_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(LockError, match="in which all users can write"):
        RolloutLock(str(tmp_path / "lock")).acquire(OURS)


def ended_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    owner = lock_owner.describe(child.pid, "pd")
    child.wait()
    return owner


def left_behind(owner, age=10, silent=None):
    return lock_owner.left_behind({**owner, "age": age, "silent": silent}, 3600, 300)


def test_the_lock_of_a_process_that_lives_stays():
    assert left_behind(lock_owner.describe(os.getpid(), "pd")) is None


def test_the_lock_of_a_process_that_ended_is_left_behind():
    assert "has ended without releasing it" in left_behind(ended_process())


def test_another_process_of_the_same_number_is_not_the_owner():
    owner = {**lock_owner.describe(os.getpid(), "pd"), "started": "1"}
    assert "has ended" in left_behind(owner)


def test_a_process_that_proc_hides_may_go_on(monkeypatch):
    """With hidepid, /proc shows only root what others run; a signal tells that there is something."""
    owner = {**lock_owner.describe(os.getpid(), "pd"), "started": "7"}

    def refused(pid, number):
        assert (pid, number) == (os.getpid(), 0)
        raise PermissionError

    monkeypatch.setattr(lock_owner.os, "kill", refused)
    assert "has ended" in left_behind(owner)
    monkeypatch.setattr(lock_owner, "process_start", lambda pid: None)
    assert left_behind(owner, silent=299) is None
    assert "6 min 1 s" in left_behind(owner, silent=361)


def test_another_container_of_the_same_image_has_other_numbers(monkeypatch):
    owner = ended_process()
    monkeypatch.setattr(lock_owner, "_numbering", lambda: "pid:[4026532999]")
    assert left_behind(owner, silent=299) is None
    assert left_behind(owner, silent=361) is not None


def test_a_lock_from_before_the_controller_booted():
    owner = {**lock_owner.describe(os.getpid(), "pd"), "boot": "earlier"}
    assert left_behind(owner) == "this controller has been rebooted since"


def test_of_another_controller_without_signs_of_life_the_age_tells():
    owner = {**ended_process(), "machine": "another"}
    assert left_behind(owner) is None
    assert left_behind(owner, 3700) == "it is 1 h 1 min old, more than 1 h 0 min"


def test_of_another_controller_that_gives_signs_of_life_silence_tells():
    owner = {**ended_process(), "machine": "another"}
    assert left_behind(owner, 3700, silent=299) is None
    assert left_behind(owner, 400, silent=361) == "its last sign of life was 6 min 1 s ago"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.9, "5 s"), (61, "1 min 1 s"), (7860, "2 h 11 min"), (-3, "0 s")], ids=str
)
def test_span(seconds, text):
    assert lock_owner.span(seconds) == text


class Task:
    check_mode = False
    async_val = 0


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the action against a lock on this disk; what it shows is kept."""
    shown, guarded = [], []
    path = tmp_path / "lock"
    monkeypatch.setattr(action, "show", shown.append)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(action.C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(
        action.lock_guard, "start", lambda run, _began, mark, **_: guarded.append((run, mark.name))
    )

    def go(**options):
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = Task()
        given = {
            "state": "present",
            "deployment": "pd",
            "path": str(path),
            "max_age": 3600,
            "max_silence": 300,
            "force": False,
        }
        monkeypatch.setattr(
            plugin, "validate_argument_spec", lambda _spec: (None, {**given, **options}), raising=False
        )

        def module(module_args, **_):
            one = RolloutLock(module_args["path"])
            if module_args["state"] == "absent":
                return {"released": one.release(module_args["owner"]["run"])}
            return {"holder": one.acquire(module_args["owner"], module_args.get("replace"))}

        monkeypatch.setattr(plugin, "_execute_module", module, raising=False)
        return plugin.run(task_vars={"inventory_hostname": "prefill1"})

    go.path, go.shown, go.guarded = path, shown, guarded
    return go


def hold(path, **owner):
    path.write_text(
        json.dumps({**lock_owner.describe(os.getpid(), "pd"), "since": time.time() - 185, **owner})
    )


def test_the_second_is_told_who_and_since_when(run):
    hold(run.path, run="other", user="bob", controller="control2", machine="else", pid=4711)
    result = run()
    assert result["failed"]
    said = re.sub(r"\s+", " ", result["msg"])
    assert "bob on control2 (process 4711) has been rolling out pd on prefill1 since" in said
    assert re.search(r"for 3 min \d+ s", said)
    assert "its last sign of life was" in result["msg"]
    assert "after 5 min 0 s without one the lock can be taken over" in said
    assert "deploy_lock_force=true" in result["msg"]
    assert run.guarded == []
    assert json.loads(run.path.read_text())["run"] == "other"


def test_a_lock_left_behind_is_taken_over_and_that_is_said(run):
    run.path.write_text(json.dumps({**ended_process(), "since": time.time()}))
    result = run()
    assert not result.get("failed")
    assert "has ended without releasing it" in run.shown[0]
    assert json.loads(run.path.read_text())["pid"] == os.getppid()


def test_force_takes_over_what_may_still_go_on(run):
    hold(run.path, run="other", machine="else")
    assert not run(force=True).get("failed")
    assert run.guarded == [(os.getppid(), "prefill1.lock.guard")]
    assert "deploy_lock_force is set" in run.shown[0]


def test_taken_and_given_back(run):
    assert not run().get("failed")
    assert run.guarded == [(os.getppid(), "prefill1.lock.guard")]
    assert run(state="absent")["released"] is True
    assert not run.path.exists()


def test_each_lock_of_a_run_has_a_guard_of_its_own(run, tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(action.lock_guard, "stop", lambda mark: stopped.append(mark.name))
    other = str(tmp_path / "measurement.lock")
    assert not run().get("failed")
    assert not run(path=other).get("failed")
    assert [name for _run, name in run.guarded] == ["prefill1.lock.guard", "prefill1.measurement.lock.guard"]
    run(path=other, state="absent")
    assert stopped == ["prefill1.measurement.lock.guard"]
    assert run.path.exists()


def test_what_is_undisturbed_keeps_runs_waiting_and_nobody_else(lock, tmp_path):
    def changed():
        """Whether a run could change the lock now."""
        with (tmp_path / ".lock.held").open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with lock.undisturbed():
        with lock.undisturbed():
            assert not changed()
        assert not changed()
    assert changed()
    assert lock.acquire(OURS) is None
    with lock.undisturbed():
        assert lock.holder()["run"] == "ours"


def test_without_its_folder_nothing_is_undisturbed(tmp_path):
    with pytest.raises(LockError), RolloutLock(str(tmp_path / "gone" / "lock")).undisturbed():
        pytest.fail("it was")
