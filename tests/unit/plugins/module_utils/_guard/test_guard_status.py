# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What `pd-guard status` prints, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import main, status

NODE = {
    "rank": 0,
    "state": "up",
    "why": "",
    "generation": 2,
    "attempts": 0,
    "given_up": False,
    "gave_up": "",
}
LISTS: dict[str, Any] = {
    "listed": ["prefill", "decode"],
    "out": {},
    "closed": "",
    "failing": {},
    "comparing": [],
}


def shown(
    node: dict[str, Any] | None = None, lists: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "format": 1,
        "host": "server1",
        "deployment": "pd",
        "locked": False,
        "drained": "",
        "docker": "",
        "nodes": {"decode": {**NODE, **(node or {})}},
        "servers": {"server2": "fresh"},
        "lists": None if lists is None else {**LISTS, **lists},
        "events": [],
        **more,
    }


def test_where_all_is_well_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.show(False, [shown(lists={})]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "deployment pd on server1",
        "  decode  up, generation 2",
        "  the routers list prefill, decode",
        "  all is well",
    ]


GIVEN_UP = {"state": "down", "given_up": True, "gave_up": "it was started 5 times in a row; last: OOM"}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (shown({"state": "down", "why": "it ended"}), "decode is down: it ended"),
        (shown({"state": "loading"}), "decode is loading"),
        (shown({"why": "it hangs"}), "decode is up: it hangs"),
        (shown(GIVEN_UP), "decode: it was started 5 times in a row; last: OOM"),
        (shown(docker="no answer from the Docker Engine"), "no answer from the Docker Engine"),
        (shown(servers={"server2": "lost: no route"}), "server2 is lost: no route"),
        (shown(lists={"closed": "no decoder answers"}), "the front answers 503: no decoder answers"),
        (shown(lists={"out": {"d2": {"why": "it hangs"}}}), "d2 is out of the list: it hangs"),
        (
            shown(lists={"failing": {"decode": "it hangs"}}),
            "decode stays listed, as the last of its role: it hangs",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_as_it_should_be_is_said(
    found: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.show(False, [found]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[printed.index("  not as it should be:") + 1 :] == [f"    - {line}"]


def test_why_nothing_is_done_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.show(False, [shown(locked=True, drained="stopped")]) == 0
    printed = capsys.readouterr().out
    assert "a rollout holds the lock: the guard does nothing" in printed
    assert "the server is stopped: the guard leaves its engines as they are" in printed


def test_nodes_starts_and_the_last_events_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    events = [{"at": 0.0, "what": f"event {number}"} for number in range(12)]
    status.show(False, [shown({"rank": 1, "attempts": 2}, {"listed": []}, events=events)])
    printed = capsys.readouterr().out.splitlines()
    assert "  decode, node 1  up, generation 2, started 2 times in a row" in printed
    assert "  the routers list nothing that is known" in printed
    last = printed[printed.index("  last events:") + 1 :]
    assert [line.rpartition("  ")[2] for line in last] == [f"event {number}" for number in range(2, 12)]


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [shown({"why": "→"}), shown()]
    assert status.show(True, rows) == 1
    assert json.loads(capsys.readouterr().out) == rows


def test_the_guards_of_all_deployments_are_found(tmp_path: Path) -> None:
    for name, text in (("a-guard", '{"host": "a"}'), ("b-guard", "no json"), ("c", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text, encoding="utf-8")
    (tmp_path / "d-guard").mkdir()
    assert status.found(tmp_path) == [{"host": "a"}]


def test_without_a_guard_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.show(False, []) == 2
    assert "No guard" in capsys.readouterr().err


def test_the_command_shows_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(status, "show", lambda as_json: asked.append(as_json) or 0)
    assert main.main(["status"]) == main.main(["status", "--json"]) == main.main([]) == 0
    assert asked == [False, True, False]
