# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""No wait outlives the run that it belongs to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ascend.pd_rollout.plugins.action import (
    docker_image_transfer,
    engine_wait,
    measurement_wait,
    weights_push,
    weights_wait,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import parent as parent_run
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import polling
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_module import SWITCH
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.parent import ParentRun

MOVING = {"phase": "fetching", "done": 1, "total": 2, "rate": 0.0, "source": ""}
NODE = {
    "container": "pd-decode1",
    "instance": "decode1",
    "node_rank": 0,
    "api": {"host": "10.0.0.3", "port": 8004},
    "ready": {"nodes": [{"host": "decode1", "rank": 0}]},
}
STARTING = {
    "name": "pd-decode1",
    "status": "running",
    "failed": False,
    "ready": False,
    "restart_count": 0,
    "phase": "starting",
    "done": None,
    "total": None,
    "fingerprint": "x",
    "health": "",
}
WAITS = {
    "engines": (engine_wait, {"engines": [NODE]}, {"targets": [STARTING]}),
    "weights": (weights_wait, {"path": "/w"}, {"status": MOVING}),
    "measurement": (
        measurement_wait,
        {"directory": "/d", "container": "c", "title": "measurement"},
        {"running": True, "progress": "", "exit_code": None, "log": []},
    ),
    "image": (
        docker_image_transfer,
        {
            "state": "present",
            "wait": True,
            "assignments": {"decode1": {"kind": "peers", "order": []}},
            "image": "i",
        },
        {"status": MOVING},
    ),
}


@pytest.fixture
def killed_later(monkeypatch):
    """The run is killed after the second look at it that follows the first."""
    parents = iter([4711, 4711, 4711])
    monkeypatch.setattr(parent_run.os, "getppid", lambda: next(parents, 1))


def plugin_of(module, monkeypatch, tmp_path, options):
    plugin = module.ActionModule.__new__(module.ActionModule)
    plugin._task = SimpleNamespace(
        check_mode=False, _uuid="task", args=options, delegate_to=None, async_val=0
    )
    plugin.validate_argument_spec = lambda spec: (
        None,
        {key: options.get(key, option.get("default")) for key, option in spec.items()},
    )
    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    for shown in (module, polling):
        monkeypatch.setattr(shown, "show", lambda *_: None, raising=False)
    monkeypatch.setattr(engine_wait.C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(engine_wait.context, "CLIARGS", {"forks": 50})
    return plugin


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.usefixtures("killed_later")
def test_a_wait_ends_with_the_run_that_was_killed(what, monkeypatch, tmp_path):
    module, options, answer = WAITS[what]
    plugin = plugin_of(module, monkeypatch, tmp_path, options)
    polls = []
    plugin._execute_module = lambda **asked: polls.append(asked) or answer
    if what == "image":
        board = docker_image_transfer.image_state.ImageState(tmp_path / "pd_rollout_image")
        board.publish("decode1", kind="peers", failed="", port=1, address="10.0.0.3", complete=False)
    with pytest.raises(AnsibleError, match=rf"{what}.* has been killed"):
        plugin.run(None, {"inventory_hostname": "decode1", "ansible_play_hosts": ["decode1"]})
    assert len(polls) == 2


@pytest.mark.usefixtures("killed_later")
def test_files_of_a_run_that_was_killed_are_pushed_no_further(monkeypatch, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for number in range(4):
        (model / f"{number}.safetensors").write_bytes(b"shard")
    plugin = plugin_of(
        weights_push, monkeypatch, tmp_path, {"source": str(model), "destination": "/srv/model"}
    )
    pushed = []
    plugin._copy = lambda source, *_: pushed.append(source.name) or {"changed": True}
    with pytest.raises(AnsibleError, match="weights of decode1 has been killed"):
        plugin.run(None, {"inventory_hostname": "decode1"})
    assert len(pushed) == 2


def test_a_killed_parent_is_seen_and_a_living_one_is_not_taken_for_dead():
    ParentRun().check("anything")
    folder = os.path.dirname(parent_run.__file__)  # noqa: PTH120
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {folder!r})
        from parent import AnsibleError, ParentRun
        # As where the kernel does not end it (macOS).
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork():
            signal.pause()
        run = ParentRun()
        run.check("it")
        print("waits", os.getppid(), flush=True)
        try:
            while True:
                run.check("it")
        except AnsibleError as error:
            print(error, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline() == f"waits {parent.pid}\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.readline() == "The run that waited for it has been killed.\n"


@pytest.mark.parametrize("forks", [1, 2], ids=["a worker", "what a worker leaves behind"])
def test_a_worker_ends_with_its_run_whatever_it_waits_for(forks):
    """It writes into a pipe that nobody reads any more, and of which it holds the other end itself."""
    folder = os.path.dirname(parent_run.__file__)  # noqa: PTH120
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {folder!r})
        import parent
        reading, writing = os.pipe()
        if os.fork():
            signal.pause()
        if {forks} == 2:
            if os.fork():
                os._exit(0)
        print(os.getpid(), flush=True)
        while True:
            os.write(writing, b"x" * 4096)
            if {forks} == 2:
                os.read(reading, 4096)
                print("goes on", "." * 2000, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as run:
        worker = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
        run.wait()
        if forks == 1:
            # The pipe to it ends when the last process that holds it does.
            assert run.stdout.read() == ""
        else:
            # A lock's guard has to outlive the run.
            for _ in range(200):
                assert run.stdout.readline().startswith("goes on"), "more than the pipe had held"
            os.kill(worker, signal.SIGKILL)
