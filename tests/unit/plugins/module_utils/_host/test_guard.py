# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the check of a server says of the guard of what was deployed there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _systemd as systemd
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import guard
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import (
    HostRequirements,
    PlannedContainer,
    PlannedFront,
    PlannedGuard,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import report

STATUS: dict[str, Any] = {
    "format": 1,
    "nodes": {"decode1": {"given_up": False, "why": ""}, "decode2": {"given_up": False, "why": ""}},
    "lists": {"listed": ["decode1", "decode2"], "out": {}, "closed": ""},
}


@dataclass
class Server:
    """A server with an engine, whose guard runs."""

    root: Path
    active: bool = True

    def run(self, _words: list[str]) -> tuple[int, str]:
        return (0 if self.active else 3), ""

    def requirements(self, **changes: Any) -> HostRequirements:
        serving = PlannedContainer("pd-decode1", "decode1", str(self.root / "pd" / "decode1.sh"), "decode1")
        given: dict[str, Any] = {
            "serving": (serving,),
            "guard": PlannedGuard("pd-guard", str(self.root / "run")),
            **dict.fromkeys(("chips", "devices", "paths", "ports"), ()),
        }
        directory = str(self.root / "pd")
        return HostRequirements(
            address="198.51.100.1", directory=directory, peers={}, deployment="pd", **{**given, **changes}
        )

    def says(self, status: Any) -> None:
        (self.root / "run" / "status.json").write_text(json.dumps(status))

    def found(self, **changes: Any) -> list[tuple[str, str | None, str]]:
        requirements = self.requirements(**changes)
        found = guard.findings(requirements, guard.inspect(requirements))
        assert {finding.severity for finding in found} <= {"error"}
        return [(finding.code, finding.instance, str(finding.seen)) for finding in found]

    def codes(self, **changes: Any) -> list[str]:
        return [code for code, _, _ in self.found(**changes)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path)
    for name in ("pd", "run", "units", "booted"):
        (tmp_path / name).mkdir()
    (tmp_path / "pd" / "decode1.sh").write_text("exec vllm serve\n")
    (tmp_path / "units" / "pd-guard.service").write_text("[Service]\n")
    monkeypatch.setattr(systemd, "UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(systemd, "run", made.run)
    monkeypatch.setattr(guard, "BOOTED", str(tmp_path / "booted"))
    made.says(STATUS)
    return made


def test_one_that_runs_and_sees_all_well_is_no_finding(server: Server) -> None:
    assert server.found() == []
    state = guard.inspect(server.requirements())
    assert state is not None
    assert state.facts() == {"active": True, "given_up": {}, "out": {}, "closed": ""}


def test_one_that_does_not_run(server: Server) -> None:
    server.active = False
    assert server.found() == [("host-guard-stopped", None, "pd-guard.service is not active")]
    (server.root / "units" / "pd-guard.service").unlink()
    assert server.found() == [("host-guard-stopped", None, "there is no pd-guard.service")]


def test_nothing_is_said_where_nothing_was_deployed(server: Server) -> None:
    server.active = False
    (server.root / "pd" / "decode1.sh").unlink()
    assert server.found() == []


def test_nothing_is_said_of_one_that_is_not_planned(server: Server) -> None:
    server.active = False
    assert server.found(guard=None) == []


def test_it_needs_systemd_also_before_it_is_deployed(server: Server) -> None:
    (server.root / "booted").rmdir()
    assert server.codes() == ["host-systemd-absent"]
    assert server.codes(serving=()) == ["host-systemd-absent"]
    assert server.codes(front=PlannedFront("/etc/pd_rollout/pd/front", ("pd-front",), ("haproxy",))) == []


def test_what_it_no_longer_starts(server: Server) -> None:
    nodes = {**STATUS["nodes"], "decode1": {"given_up": True, "why": "ended 5 times: out of memory"}}
    server.says({**STATUS, "nodes": nodes})
    assert server.found() == [("host-guard-gave-up", "decode1", "ended 5 times: out of memory")]
    (server.root / "pd" / "drained.json").write_text("{}")
    assert server.found() == []


def test_what_it_has_taken_out(server: Server) -> None:
    out = {"decode2": {"why": "no answer for 8 s", "since": 1767323045}}
    server.says({**STATUS, "lists": {**STATUS["lists"], "out": out}})
    seen = "no answer for 8 s, since 2026-01-02T03:04:05Z"
    assert server.found() == [("host-guard-left-out", "decode2", seen)]
    state = guard.inspect(server.requirements())
    assert state is not None and state.facts()["out"] == {"decode2": seen}


def test_nothing_of_a_role_serves(server: Server) -> None:
    server.says({**STATUS, "lists": {**STATUS["lists"], "closed": "no decoder answers"}})
    assert server.found() == [("host-guard-alarm", None, "no decoder answers")]


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        {"format": 2, "nodes": {"decode1": {"given_up": True}}},
        {"format": 1, "nodes": [], "lists": None},
        {"format": 1, "nodes": {"decode1": None}, "lists": {"out": {"decode1": None}, "closed": None}},
    ],
)
def test_a_status_that_cannot_be_read_says_nothing(server: Server, status: Any) -> None:
    server.says(status)
    assert server.found() == []


def test_a_time_that_is_none_is_left_out() -> None:
    status = {**STATUS, "lists": {"out": {"decode1": {"why": "it hangs", "since": "soon"}}}}
    assert guard.said(status).out == {"decode1": "it hangs"}


def test_deploy_mends_what_the_guard_says(server: Server) -> None:
    server.active = False
    requirements = server.requirements()
    (finding,) = guard.findings(requirements, guard.inspect(requirements))
    assert report.repaired(finding).severity == "hint"
