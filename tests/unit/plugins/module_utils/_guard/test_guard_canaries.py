# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which pairs the canaries of a router's server ask, and what their results say."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import canaries
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.canaries import Outcome
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import canary, history
from guard_servers import config
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=5)


@given(NAMES, NAMES, st.integers(0, 20))
def test_each_instance_is_in_a_pair(prefillers: list[str], decoders: list[str], turn: int) -> None:
    pairs = canaries.matching(prefillers, decoders, turn)
    if not prefillers or not decoders:
        assert pairs == []
        return
    assert len(pairs) == len(set(pairs)) == max(len(prefillers), len(decoders))
    assert {name for name, _ in pairs} == set(prefillers)
    assert {name for _, name in pairs} == set(decoders)


def test_the_next_turn_pairs_them_otherwise() -> None:
    assert canaries.matching(["p1", "p2"], ["d1", "d2"], 0) == [("p1", "d1"), ("p2", "d2")]
    assert canaries.matching(["p1", "p2"], ["d1", "d2"], 1) == [("p1", "d2"), ("p2", "d1")]


def test_the_options_are_the_canarys(tmp_path: Path) -> None:
    made = config(tmp_path)
    asked = canaries.options(made, [made.instances["prefill"]], [made.instances["decode"]], ["decode"])
    assert set(asked) == {*canary.ARGUMENTS, "_check_mode"}
    assert canary.refused(asked) is None
    assert asked["decoders"] == [
        {"instance": "decode", "apis": [{"host": "192.0.2.1", "port": 7200}]},
    ]
    assert (asked["only"], asked["timeout"], asked["known"]) == (["decode"], 60.0, {})
    assert [pair.key for pair in canary.chosen(asked)] == ["prefill decode"]


def revision(folder: Path) -> None:
    record = {
        "revision": 1,
        "instances": {"prefill": {"version": "v1"}, "decode": {"version": "v1"}},
        "texts": {"prefill decode": [" Paris"], "decode": [" alone"]},
    }
    history.write(folder / "history", record, "{}")


def test_texts_of_a_revision_are_not_compared(tmp_path: Path) -> None:
    """Nobody tells the guard whether the weights have been replaced since."""
    made = config(tmp_path)
    revision(tmp_path)
    assert canaries.options(made, [], [made.instances["decode"]], [])["known"] == {}


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────


def result(*rows: str, suspects: str = "", **more: Any) -> dict[str, Any]:
    """A canary's result: rows such as ``p1 d1 ok`` or ``p1 d1 bad``."""
    words = [row.split() for row in rows]
    findings = [
        {"instance": f"{p} → {d}", "severity": "error", "message": f"{p} and {d} fail", "seen": "''"}
        for p, d, said in words
        if said == "bad"
    ]
    pairs = [{"prefiller": p, "decoder": d, "ok": said == "ok"} for p, d, said in words]
    return {"pairs": pairs, "findings": findings, "suspects": suspects.split(), **more}


def test_who_answers_passes() -> None:
    assert canaries.outcome([result("p1 d1 ok")], ["p1", "d1"]) == Outcome(("p1", "d1"))


def test_only_who_was_to_be_judged_is() -> None:
    assert canaries.outcome([result("p1 d1 bad", suspects="p1 d1")], ["d2"]) == Outcome()


def test_who_is_suspected_fails_with_the_first_reason() -> None:
    found = canaries.outcome([result("p1 d1 bad", suspects="d1")], ["p1", "d1"])
    # Nothing is said of p1: its only pair fails by the other's fault.
    assert found == Outcome((), (("d1", "p1 and d1 fail: ''"),))


def test_the_fault_of_the_other_side_is_not_ones_own() -> None:
    found = canaries.outcome([result("p1 d1 ok", "p1 d2 bad", suspects="d2")], ["p1"])
    assert found == Outcome(("p1",))


def test_who_fails_with_one_that_is_not_suspected_fails() -> None:
    """Both answer with others, and not with each other."""
    found = canaries.outcome([result("p1 d1 bad", "p1 d2 ok", "p2 d1 ok")], ["p1", "d1"])
    assert found.passed == ()
    assert [name for name, _ in found.bad] == ["p1", "d1"]


def test_without_prefillers_a_decoder_is_asked_alone() -> None:
    row = {"prefiller": "", "decoder": "d1", "ok": False}
    finding = {"instance": "d1", "severity": "error", "message": "it is empty"}
    bad = {"pairs": [row], "findings": [finding], "suspects": ["d1"]}
    assert canaries.outcome([bad], ["d1"]) == Outcome((), (("d1", "it is empty"),))


def test_results_of_several_canaries_are_one() -> None:
    both = [result("p1 d1 ok"), result("p2 d2 bad", suspects="p2 d2")]
    found = canaries.outcome(both, ["p1", "p2"])
    assert found == Outcome(("p1",), (("p2", "p2 and d2 fail: ''"),))


def said(name: str, *codes: str, severity: str = "error") -> dict[str, Any]:
    """A canary's result of a pair that fails, with findings of these codes."""
    found = [
        {"instance": f"p1 → {name}", "severity": severity, "code": code, "message": code} for code in codes
    ]
    return {**result(f"p1 {name} no", suspects=name), "findings": found}


SILENT, WRONG, HINT = canaries.NO_ANSWER, "canary-wrong", "canary-transfer-unknown"


@pytest.mark.parametrize(
    ("results", "silent"),
    [
        ([said("d1", SILENT)], ["d1"]),
        ([said("d1", SILENT, SILENT)], ["d1"]),
        ([said("d1", SILENT), said("d1", SILENT)], ["d1"]),
        ([said("d1", SILENT, WRONG)], []),
        ([said("d1", SILENT), said("d1", WRONG)], []),
        ([said("d1", WRONG)], []),
        ([said("d1")], []),
    ],
)
def test_only_who_gives_no_answer_and_nothing_else_is_silent(
    results: list[dict[str, Any]], silent: list[str]
) -> None:
    found = canaries.outcome(results, ["p1", "d1"])
    assert [name for name, _ in found.bad] == ["d1"]
    assert sorted(found.silent) == silent


def test_a_hint_is_no_answer() -> None:
    found = said("d1", SILENT)
    found["findings"] += said("d1", HINT, severity="hint")["findings"]
    assert canaries.outcome([found], ["d1"]).silent == {"d1"}


def test_each_is_silent_for_itself() -> None:
    found = canaries.outcome([said("d1", SILENT), said("d2", WRONG), result("p1 d3 ok")], ["d1", "d2", "d3"])
    assert (found.passed, found.silent) == (("d3",), {"d1"})
    assert [name for name, _ in found.bad] == ["d1", "d2"]


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([], "it asked nobody"),
        ([{"failed": True, "msg": "Cannot read the API key"}], "Cannot read the API key"),
        ([result()], "it asked nobody"),
    ],
)
def test_a_canary_that_asks_nobody_says_nothing(results: list[dict[str, Any]], why: str) -> None:
    assert canaries.outcome(results, ["p1"]) == Outcome(failed=why)


def test_a_reason_is_there_without_a_finding() -> None:
    bad = {**result("p1 d1 bad", suspects="p1"), "findings": []}
    assert canaries.outcome([bad], ["p1"]).bad == (("p1", "its canary fails"),)


# ── its process ───────────────────────────────────────────────────────────────────────────────────────────


def program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_results_come_from_a_process_of_its_own(tmp_path: Path) -> None:
    echo = "import json, sys; json.dump([{'verb': sys.argv[1], 'asked': json.load(sys.stdin)}], sys.stdout)"
    found = canaries.run([{"a": 1}], program(tmp_path, echo))
    assert found == [{"verb": "canary", "asked": [{"a": 1}]}]


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        canaries.run([], program(tmp_path, "raise SystemExit('no prompt')"))
    with pytest.raises(ValueError, match="it failed"):
        canaries.run([], program(tmp_path, "raise SystemExit(3)"))
    with pytest.raises(ValueError, match="Expecting value"):
        canaries.run([], program(tmp_path, "print('x')"))


def test_the_process_runs_the_canary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(canary, "result", lambda asked: {"of": asked})
    monkeypatch.setattr(sys, "stdin", io.StringIO('[{"a": 1}, {"a": 2}]'))
    assert canaries.ask() == 0
    assert json.loads(capsys.readouterr().out) == [{"of": {"a": 1}}, {"of": {"a": 2}}]
