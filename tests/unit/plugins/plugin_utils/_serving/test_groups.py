# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is stopped before anything is started: of a group all nodes or none."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.groups import decide

PREFILL = ["prefill1", "prefill2"]
ALL = [*PREFILL, "decode1"]


def look(instance, group=(), why="", generation="run1", running=True):
    node = {"container": f"pd-{instance}", "instance": instance, "group": list(group), "why": why}
    return {
        "nodes": [{**node, "generation": generation, "noted": bool(generation), "started_at": "t"}],
        "running": [f"pd-{instance}"] * running,
    }


def looks(first=None, second=None, decoder=None):
    return {
        "prefill1": look("prefiller", PREFILL, **(first or {})),
        "prefill2": look("prefiller", PREFILL, **(second or {})),
        "decode1": look("decode1", **(decoder or {})),
    }


def test_what_is_as_planned_is_left_alone():
    decision = decide(looks(), ALL)
    assert (decision.stop, decision.reasons, decision.refusals) == ({}, [], ())


@pytest.mark.parametrize(
    "broken",
    [
        {"first": {"why": "the Docker Engine has restarted its container (1 time)"}},
        {"second": {"why": "its container was started outside of a rollout"}},
    ],
    ids=["head", "worker"],
)
def test_all_nodes_of_a_group_are_stopped_when_one_has_left_it(broken):
    decision = decide(looks(**broken), ALL)
    assert decision.stop == {"prefill1": ["pd-prefiller"], "prefill2": ["pd-prefiller"]}
    (reason,) = decision.reasons
    assert reason.startswith("All nodes of prefiller are stopped and started together. prefill")


def test_what_does_not_run_is_not_stopped():
    decision = decide(looks(first={"why": "its container is exited", "running": False}), ALL)
    assert decision.stop == {"prefill2": ["pd-prefiller"]}


def test_nodes_of_different_rollouts_are_no_group():
    decision = decide(looks(second={"generation": "run2"}), ALL)
    assert decision.stop == {"prefill1": ["pd-prefiller"], "prefill2": ["pd-prefiller"]}
    assert "prefill1 and prefill2 were started by different rollouts" in decision.reasons[0]


def test_a_rollout_that_is_not_known_differs_from_none():
    assert decide(looks(second={"generation": ""}), ALL).stop == {}


def test_an_engine_that_is_alone_is_started_again_alone():
    decision = decide(looks(decoder={"why": "its container is restarting"}), ALL)
    assert decision.stop == {"decode1": ["pd-decode1"]}
    assert decision.reasons == ["decode1 decode1 is restarted: its container is restarting."]


def test_a_first_rollout_stops_nothing_and_says_nothing():
    absent = {"why": "there is no container", "running": False, "generation": ""}
    decision = decide(looks(absent, absent, absent), ALL)
    assert (decision.stop, decision.reasons, decision.refusals) == ({}, [], ())


def test_a_group_without_a_node_in_this_run_is_refused():
    seen = {"prefill1": look("prefiller", PREFILL, why="there is no container", running=False)}
    decision = decide(seen, ["prefill1"])
    (finding,) = decision.refusals
    assert finding.code == "engine-group-incomplete"
    assert "prefill2 is not in this run; nothing was stopped" in finding.message
    assert finding.seen == "prefill1: there is no container"
    assert (finding.host, finding.instance) == ("prefill2", "prefiller")
    assert "--limit prefill1,prefill2" in finding.cure


def test_a_complete_group_is_not_refused():
    absent = {"why": "there is no container", "running": False}
    assert decide(looks(absent, absent), ALL).refusals == ()


def test_one_node_of_a_group_that_works_may_be_looked_at_alone():
    decision = decide({"prefill1": look("prefiller", PREFILL)}, ["prefill1"])
    assert (decision.stop, decision.refusals) == ({}, ())
