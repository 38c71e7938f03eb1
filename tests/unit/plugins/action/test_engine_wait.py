# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ascend.pd_rollout.plugins.action import engine_wait
from ansible_collections.ascend.pd_rollout.plugins.action.engine_wait import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_module import SWITCH
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.start_state import StartState

HOSTS = ["prefill1", "prefill2", "decode1"]


def engine(instance, rank, nodes, address="10.0.0.1"):
    return {
        "container": f"pd-{instance}",
        "instance": instance,
        "node_rank": rank,
        "api": {"host": address, "port": 8004} if rank == 0 else None,
        "master": {"host": "10.0.0.1", "port": 7001} if len(nodes) > 1 else None,
        "ready": {"nodes": [{"host": host, "rank": n} for n, host in enumerate(nodes)]},
    }


HEAD = engine("prefiller", 0, ["prefill1", "prefill2"])
HEADLESS = engine("prefiller", 1, ["prefill1", "prefill2"])
DECODER = engine("decode1", 0, ["decode1"], "10.0.0.3")


def flat(text):
    """A text of several lines as one."""
    return " ".join(text.split())


def report(name="pd-prefiller", status="running", phase=None, done=None, total=None, ready=False, **more):
    restarts = more.pop("restart_count", 0)
    return {
        "name": name,
        "status": status,
        "failed": status != "running",
        "ready": ready,
        "exit_code": None,
        "oom_killed": False,
        "error": "",
        "restart_count": restarts,
        "started_at": "t",
        "phase": phase,
        "done": done,
        "total": total,
        "joined": None,
        "health": "Connection refused",
        "log": [],
        "fingerprint": f"{status}|{phase}|{done}|{ready}|{restarts}",
        **more,
    }


class Run:
    """One run of a play: the screen, the clock and the board that its hosts share."""

    def __init__(self, monkeypatch, tmp_path):
        self.screen, self.warnings, self.now = [], [], 0.0
        self.path, self.check_mode, self.forks = tmp_path, False, 50
        # What happens on other hosts while this one sleeps.
        self.meanwhile = None
        monkeypatch.setattr(engine_wait.C, "DEFAULT_LOCAL_TMP", str(tmp_path))
        monkeypatch.setenv(SWITCH, "0")
        monkeypatch.setattr(engine_wait, "show", self.screen.append)
        monkeypatch.setattr(engine_wait.display, "warning", self.warnings.append)
        monkeypatch.setattr(engine_wait.time, "time", lambda: self.now)
        monkeypatch.setattr(engine_wait.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(engine_wait.time, "sleep", self.sleep)
        monkeypatch.setattr(engine_wait.context, "CLIARGS", {"forks": self.forks})

    def sleep(self, seconds):
        self.now += seconds
        if self.meanwhile:
            self.meanwhile()

    @property
    def board(self):
        return StartState(self.path / "pd_rollout_wait" / "task")

    def wait(self, host, polls, hosts=HOSTS, **args):
        """What the action returns on a host that sees C(polls), one list of reports (or an error) a poll."""
        polls, self.calls = iter(polls), []
        action = ActionModule.__new__(ActionModule)
        action._task = SimpleNamespace(
            check_mode=self.check_mode, _uuid="task", async_val=0, args=args, delegate_to=None
        )
        action.validate_argument_spec = lambda spec: (
            None,
            {key: args.get(key, option.get("default")) for key, option in spec.items()},
        )

        def execute(module_name, module_args, task_vars, wrap_async):
            assert module_name == "ascend.pd_rollout.engine_info"
            self.calls.append(module_args)
            self.now += module_args["hold"]
            answer = next(polls)
            return answer if isinstance(answer, dict) else {"targets": answer}

        action._execute_module = execute
        monkey = ActionBase.run
        ActionBase.run = lambda self, tmp=None, task_vars=None: {}
        try:
            return action.run(None, {"inventory_hostname": host, "ansible_play_hosts": hosts})
        finally:
            ActionBase.run = monkey


@pytest.fixture
def run(monkeypatch, tmp_path):
    return Run(monkeypatch, tmp_path)


def test_progress_of_an_engine_until_it_is_ready(run):
    result = run.wait(
        "decode1",
        [
            [report("pd-decode1", phase="starting")],
            [report("pd-decode1", phase="loading shards", done=1, total=163)],
            [report("pd-decode1", phase="loading shards", done=2, total=163)],
            [report("pd-decode1", phase="loading shards", done=43, total=163)],
            [report("pd-decode1", phase=None)],
            [report("pd-decode1", phase="capturing graphs")],
            [report("pd-decode1", ready=True)],
        ],
        engines=[DECODER],
    )
    assert run.screen == [
        "decode1 decode1: starting",
        "decode1 decode1: loading shards 1 of 163",
        "decode1 decode1: loading shards 43 of 163",
        "decode1 decode1: capturing graphs",
        "decode1 decode1: ready",
    ]
    assert not result.get("failed")
    assert result["seconds"] == {"decode1": 24.0}


def with_ranks(node, numbers, nodes=("decode1", "decode2")):
    ranks = [{"rank": n, "api": {"host": "10.0.0.3", "port": 7100 + n}} for n in numbers]
    return {
        **engine("decoder", node, nodes, "10.0.0.3"),
        "api": ranks[0]["api"],
        "master": None,
        "ranks": ranks,
    }


def test_an_engine_with_ranks_counts_them_on_the_screen(run):
    name = "pd-decoder"
    run.wait(
        "decode2",
        [
            [report(name, phase="loading shards", done=1, total=9, rank=17, ready_ranks=0)],
            [report(name, phase="capturing graphs", rank=16, ready_ranks=1)],
            [report(name, ready=True, rank=None, ready_ranks=2)],
        ],
        engines=[with_ranks(1, [16, 17])],
    )
    assert run.screen == [
        "decode2 decoder ranks 16-17: loading shards 1 of 9 (rank 17), 0 of 2 ranks ready",
        "decode2 decoder ranks 16-17: capturing graphs (rank 16), 1 of 2 ranks ready",
        "decode2 decoder ranks 16-17: ready",
    ]
    assert run.calls[0]["targets"][0]["ranks"] == [
        {"rank": 16, "health_url": "http://10.0.0.3:7116/health"},
        {"rank": 17, "health_url": "http://10.0.0.3:7117/health"},
    ]


def test_the_node_that_is_missing_is_named_where_there_are_ranks(run):
    waiting = report("pd-decoder", phase="waiting for peers", rank=16, ready_ranks=0)
    result = run.wait("decode2", [[waiting]] * 9, engines=[with_ranks(1, [16])], timeout=20)
    assert "missing node 0 on decode1" in flat(result["msg"])


def test_what_is_known_goes_back_to_the_watch(run):
    run.wait(
        "decode1",
        [[report("pd-decode1", restart_count=2)], [report("pd-decode1", ready=True)]],
        engines=[DECODER],
    )
    first, second = (call["targets"][0] for call in run.calls)
    assert (first["known"], first["baseline"]) == ("", None)
    assert (second["known"], second["baseline"]) == ("running|None|None|False|2", 2)
    assert first["health_url"] == "http://10.0.0.3:8004/health"
    assert run.calls[0]["hold"] == 0


def test_a_restart_of_what_this_run_started_counts_from_the_first(run):
    run.wait("decode1", [[report("pd-decode1", ready=True)]], engines=[DECODER], started=["pd-decode1"])
    assert run.calls[0]["targets"][0]["baseline"] == 0


def test_a_dead_engine_fails_with_name_code_reason_and_log(run):
    dead = report(
        "pd-decode1",
        "exited",
        exit_code=1,
        reason="ValueError: no such device",
        log=["one", "ValueError: no such device"],
    )
    result = run.wait("decode1", [[report("pd-decode1")], [dead]], engines=[DECODER])
    assert result["failed"]
    (found,) = result["findings"]
    assert (found["code"], found["host"], found["instance"]) == ("engine-ended", "decode1", "decode1")
    assert found["message"] == "decode1 on decode1 failed: its container is exited, exit code 1"
    assert found["seen"] == "ValueError: no such device"
    assert "docker logs pd-decode1" in found["cure"]
    assert result["msg"].endswith("\n  log       one\n            ValueError: no such device")
    assert run.board.aborted().startswith("decode1 on decode1 failed")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"status": "missing"}, "its container is gone"),
        ({"status": "running", "failed": True, "restart_count": 1}, "it ended and was restarted (1 time)"),
        ({"status": "running", "failed": True, "restart_count": 2}, "it ended and was restarted (2 times)"),
        (
            {"status": "exited", "exit_code": 137, "oom_killed": True},
            "exit code 137, killed because it ran out of memory",
        ),
        ({"status": "created", "exit_code": 127, "error": "no such device"}, "exit code 127, no such device"),
    ],
)
def test_how_an_engine_ended(run, more, words):
    result = run.wait("decode1", [[report("pd-decode1", **more)]], engines=[DECODER])
    assert words in flat(result["msg"])
    assert "its log is empty" in flat(result["msg"])


def test_a_failure_elsewhere_ends_the_wait_at_the_next_poll(run):
    run.board.abort("prefiller rank 1 on prefill2 failed: its container is exited")
    result = run.wait("decode1", [[report("pd-decode1")]], engines=[DECODER])
    assert result["failed"]
    assert "because of another failure seen prefiller rank 1 on prefill2 failed" in flat(result["msg"])
    assert len(run.calls) == 1


def test_what_is_ready_stays_ready_whatever_fails_elsewhere(run):
    run.board.abort("other")
    assert not run.wait("decode1", [[report("pd-decode1", ready=True)]], engines=[DECODER]).get("failed")


def test_a_headless_node_asks_its_heads_api_as_soon_as_it_is_known(run):
    run.board.post(
        "prefiller",
        0,
        status="running",
        phase="starting",
        ready=False,
        health_url="http://10.0.0.1:8004/health",
    )
    result = run.wait(
        "prefill2", [[report(phase="loading shards")], [report(ready=True)]], engines=[HEADLESS], timeout=60
    )
    assert not result.get("failed")
    assert [call["targets"][0]["health_url"] for call in run.calls] == [None, "http://10.0.0.1:8004/health"]


def test_a_headless_node_is_ready_with_its_head(run):
    run.board.post("prefiller", 0, status="running", phase="ready", ready=True, health_url="x")
    assert not run.wait("prefill2", [[report(phase="weights loaded")]], engines=[HEADLESS]).get("failed")


def test_a_headless_node_waits_a_moment_to_hear_of_its_head(run):
    run.meanwhile = lambda: run.board.post(
        "prefiller", 0, status="running", phase="ready", ready=True, health_url="x"
    )
    assert not run.wait("prefill2", [[report()]], engines=[HEADLESS]).get("failed")
    assert run.now < 1


def test_without_its_head_in_the_play_a_headless_node_is_ready_with_its_group(run):
    polls = [[report(phase="waiting for peers")], [report(phase="loading shards")]]
    assert not run.wait("prefill2", polls, hosts=["prefill2"], engines=[HEADLESS]).get("failed")


def test_the_rank_that_is_missing_is_named(run):
    run.board.post("prefiller", 1, status="running", phase="starting", ready=False, health_url=None)
    waiting = report(phase="waiting for peers", log=["waiting"])
    result = run.wait("prefill1", [[waiting]] * 10, engines=[HEAD], timeout=9)
    assert "prefiller rank 0 on prefill1 is not ready after 9 s: waiting for peers" in flat(result["msg"])
    assert (
        "The group of prefiller has not formed: missing rank 1 on prefill2 (container running, starting)."
        in flat(result["msg"])
    )
    assert (
        run.screen[0]
        == "prefill1 prefiller rank 0: waiting for peers: rank 1 on prefill2 (container running, starting)"
    )


def test_the_rank_that_is_missing_is_named_when_the_head_dies_of_it(run):
    dead = report(status="exited", exit_code=1, phase="waiting for peers", reason="DistStoreError: timed out")
    result = run.wait("prefill1", [[dead]], engines=[HEAD])
    assert "missing rank 1 on prefill2 (not seen by this run)" in flat(result["msg"])


def test_a_group_whose_nodes_all_wait_is_told_where_to_look(run):
    run.board.post("prefiller", 1, status="running", phase="waiting for peers", ready=False, health_url=None)
    waiting = report(phase="waiting for peers", joined=[1, 2])
    result = run.wait("prefill1", [[waiting]] * 10, engines=[HEAD], timeout=9)
    assert "although all its nodes wait" in flat(result["msg"])
    assert "1 of 2 nodes have come to 10.0.0.1:7001" in flat(result["msg"])


def test_a_deadline_of_a_formed_group_tells_the_phase_and_the_probe(run):
    loading = report(phase="loading shards", done=3, total=163)
    result = run.wait("prefill1", [[loading]] * 10, engines=[HEAD], timeout=9)
    said = flat(result["msg"])
    assert "loading shards 3 of 163 seen http://10.0.0.1:8004/health Connection refused" in said
    assert "group" not in flat(result["msg"])


def test_one_deadline_holds_for_all_hosts(run):
    run.board.begun(0.0)
    run.now = 100.0
    assert run.wait("decode1", [[report("pd-decode1")]], engines=[DECODER], timeout=60)["failed"]


def test_the_proxy_is_ready_with_the_planned_numbers(run):
    proxy = {
        "container": "pd-proxy",
        "health_url": "http://10.0.0.1:8005/healthcheck",
        "expected": {"prefill_instances": 1, "decode_instances": 1},
    }
    result = run.wait("prefill1", [[report("pd-proxy", ready=True)]], proxy=proxy)
    assert result["seconds"] == {"proxy": 0.0}
    assert run.calls[0]["targets"][0]["health_expect"] == {"prefill_instances": 1, "decode_instances": 1}


def test_an_error_of_the_watch_ends_the_wait_of_all(run):
    with pytest.raises(AnsibleError, match="no answer from the Docker Engine"):
        run.wait("decode1", [{"failed": True, "msg": "no answer from the Docker Engine"}], engines=[DECODER])
    assert "no answer" in run.board.aborted()


def test_nothing_to_wait_for(run):
    assert run.wait("prefill1", [], engines=[]) == {"changed": False, "seconds": {}, "started": {}}


def test_nothing_is_awaited_in_check_mode(run):
    run.check_mode = True
    assert run.wait("decode1", [], engines=[DECODER])["skipped"]


def test_few_forks_are_told_once(run, monkeypatch):
    monkeypatch.setattr(engine_wait.context, "CLIARGS", {"forks": 2})
    run.wait("prefill1", [[report(ready=True)]], engines=[HEAD])
    run.wait("decode1", [[report("pd-decode1", ready=True)]], engines=[DECODER])
    assert len(run.warnings) == 1
    assert "2 forks are fewer than the 3 hosts" in run.warnings[0]


def test_the_first_reason_stays_on_the_board(tmp_path):
    board = StartState(tmp_path / "board")
    board.abort("first")
    StartState(tmp_path / "board").abort("second")
    assert board.aborted() == "first"


def test_the_board_keeps_instances_apart_whose_names_begin_alike(tmp_path):
    board = StartState(tmp_path / "board")
    board.post("prefiller", 1, phase="starting")
    board.post("prefiller.b", 0, phase="ready")
    board.post("prefiller.b", 1, phase="waiting")
    assert {rank: state["phase"] for rank, state in board.nodes("prefiller").items()} == {1: "starting"}
    assert {rank: state["phase"] for rank, state in board.nodes("prefiller.b").items()} == {
        0: "ready",
        1: "waiting",
    }
