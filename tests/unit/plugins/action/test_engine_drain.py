# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How long engines are awaited before they are stopped, and what is said of requests that are cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action import engine_drain
from ansible_collections.ascend.pd_rollout.plugins.action.engine_drain import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import polling

ENGINES = [
    {"container": "pd-p", "instance": "p", "role": "prefiller", "apis": ["10.0.0.1:8004"]},
    {"container": "pd-d", "instance": "d", "role": "decoder", "apis": ["10.0.0.1:8005"]},
]


def seen(prefiller=0, decoder=0, kv=0.0):
    """What an answer says of both engines."""
    numbers = ((prefiller, kv), (decoder, 0.0))
    return [
        {**engine, "requests": requests, "kv": held, "idle": not requests and not held}
        for engine, (requests, held) in zip(ENGINES, numbers, strict=True)
    ]


class Run:
    """The action on one host, whose looks take as long as they hold their answer back."""

    def __init__(self, monkeypatch):
        self.asked, self.said, self.now, self.check_mode = [], [], 0.0, False
        for module in (engine_drain, polling):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(polling, "show", self.said.append)
        monkeypatch.setattr(ActionModule, "_poll", self.poll)

    def poll(self, work, arguments, *, about, answers, task_vars, seconds):
        assert work.module == "engine_requests_info"
        assert seconds > arguments["hold"]
        self.asked.append((arguments["nudge"], arguments["hold"]))
        self.arguments = arguments
        self.now += arguments["hold"]
        return {answers: self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]}

    def drain(self, *looks, engines=ENGINES, timeout=600.0, kv_timeout=30.0):
        self.looks = list(looks)
        action = ActionModule.__new__(ActionModule)
        action._task = SimpleNamespace(check_mode=self.check_mode)
        options = {
            "engines": engines,
            "model": "m",
            "api_key_file": "/k",
            "timeout": timeout,
            "kv_timeout": kv_timeout,
        }
        return action.work(options, {"inventory_hostname": "server1"})


@pytest.fixture
def run(monkeypatch):
    return Run(monkeypatch)


def test_idle_engines_are_asked_once_and_at_once(run):
    assert run.drain(seen()) == {"changed": False, "left": [], "seconds": 0.0}
    assert run.asked == [(False, 0.0)]
    assert run.arguments["engines"] == ENGINES
    assert (run.arguments["model"], run.arguments["api_key_file"]) == ("m", "/k")


def test_without_engines_nobody_is_asked(run):
    assert run.drain(engines=[])["left"] == []
    assert run.asked == []


def test_in_check_mode_nothing_is_awaited(run):
    run.check_mode = True
    assert run.drain(seen(1))["skipped"] is True
    assert run.asked == []


def test_requests_are_awaited_and_held_on_the_server(run):
    result = run.drain(seen(3, 1), seen(1), seen())
    assert (result["left"], result["seconds"]) == ([], 2 * polling.HOLD)
    assert run.asked == [(False, 0.0), (False, polling.HOLD), (False, polling.HOLD)]


def test_what_is_left_is_shown_now_and_then(run):
    run.drain(*[seen(2, 1)] * 8, seen())
    assert run.said == ["server1 engines: p has 2 requests; d has 1 request"]


def test_a_prefiller_is_nudged_only_after_the_last_request(run):
    """Of any engine: what a decoder still fetches is not given up."""
    run.drain(seen(kv=0.5, decoder=1), seen(kv=0.5), seen(kv=0.5), seen())
    assert [nudge for nudge, _ in run.asked] == [False, False, True, True]


def test_requests_that_take_too_long_are_cut_with_a_warning(run):
    result = run.drain(seen(2), timeout=10.0)
    assert result["seconds"] == 10.0
    assert result["left"] == ["p has 2 requests"]
    (finding,) = result["findings"]
    assert (finding["code"], finding["severity"]) == ("engine-drain-late", "warning")
    assert (finding["host"], finding["instance"], finding["variable"]) == ("server1", "p", "pd_drain_timeout")
    assert finding["message"] == "requests still ran after 10 s, and are cut"
    assert result["warnings"][0].startswith("server1: engine-drain-late: ")
    assert not result.get("failed")


def test_blocks_that_nobody_fetches_are_awaited_for_a_shorter_time_without_a_warning(run):
    result = run.drain(seen(kv=0.25), kv_timeout=8.0)
    assert result == {"changed": False, "left": ["p has 25.0% of its KV cache in use"], "seconds": 8.0}


def test_the_shorter_time_begins_with_the_last_request(run):
    result = run.drain(seen(1), seen(1), seen(1), seen(kv=0.5), kv_timeout=4.0)
    assert result["seconds"] == 3 * polling.HOLD + 4.0
    assert "findings" not in result


def test_the_longer_time_ends_both(run):
    result = run.drain(seen(1), seen(1), seen(1), seen(kv=0.5), timeout=6.0)
    assert result["seconds"] == 6.0
    assert "findings" not in result
