# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The table of faults: complete, every row exercised, and the docs made from it are current."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks.catalogue import CHECKS

ROOT = Path(__file__).resolve().parents[3]
SCENARIO = ROOT / "molecule" / "faults"
RUNS: list[dict[str, Any]] = yaml.safe_load((SCENARIO / "faults.yml").read_text(encoding="utf-8"))
ROWS = [row for run in RUNS for row in run["rows"]]
KEYS = {"fault", "about", "at", "finds", "upstream", "when"}
# Faults of the simulator that no check looks for (other formats and speeds of good answers), and variants
# that test_roles.py of the scenario tests.
NOT_IN_THE_TABLE = {
    "hccs_ping_form",
    "ping_fail",
    "super_pod_size",
    "tls_missing",
    "tool_format",
    "tool_slow",
}


def places(row: dict[str, Any]) -> list[str]:
    """The servers of a row."""
    return row["at"] if isinstance(row["at"], list) else [row["at"]]


@cache
def faults_of_the_simulator() -> set[str]:
    """What can be injected into servers and tools; faults of the engines show after the launch."""
    found: set[str] = set()
    for script, argument in (
        ("simulator/server/rootfs/opt/pd-sim/server_faults.py", "list"),
        ("simulator/tools/render.py", "--faults"),
    ):
        command = [sys.executable, "-B", str(ROOT / script), argument]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        found |= set(json.loads(done.stdout))
    return found


def test_the_docs_are_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "gen_faults_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_are_enough_faults_and_each_stands_once() -> None:
    assert len(ROWS) >= 40
    assert len({row["fault"] for row in ROWS}) == len(ROWS)
    assert len({run["run"] for run in RUNS}) == len(RUNS)


def test_every_row_is_exercised() -> None:
    path = SCENARIO / "tests" / "test_faults.py"
    spec = importlib.util.spec_from_file_location("molecule_faults_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (mark,) = module.test_faults_give_exactly_their_findings.pytestmark
    assert mark.args == ("run", RUNS)


def test_every_row_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    lines = [
        line for line in text.splitlines() if line.startswith("| ") and "| the engines show |" not in line
    ]
    assert len(lines) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row["fault"] for row in ROWS])
def test_a_row_is_complete(row: dict[str, Any]) -> None:
    assert set(row) - {"do", "set", "vars", "down", "says", "warns"} == KEYS
    assert set(row.get("warns") or ()) <= set(row["finds"])
    assert row["finds"]
    assert set(places(row)) <= {"prefill1", "prefill2", "decode1"}
    for text in row["finds"]:
        code = text.partition("@")[0]
        assert code in CHECKS, code
    assert set(row.get("do") or {}) <= faults_of_the_simulator()


@pytest.mark.parametrize("run", RUNS, ids=[run["run"] for run in RUNS])
def test_rows_of_a_run_do_not_touch_each_other(run: dict[str, Any]) -> None:
    used = [(host, name) for row in run["rows"] for host in places(row) for name in (row.get("do") or {})]
    assert len(used) == len(set(used))
    down = {row["at"] for row in run["rows"] if row.get("down")}
    both = [row for row in run["rows"] if down.intersection(places(row)) and not row.get("down")]
    assert not [row["fault"] for row in both]


def test_every_fault_that_a_check_looks_for_is_in_the_table() -> None:
    used = {name for row in ROWS for name in (row.get("do") or {})}
    assert faults_of_the_simulator() - used == NOT_IN_THE_TABLE
