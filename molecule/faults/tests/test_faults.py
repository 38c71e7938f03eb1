"""Every fault of faults.yml gives exactly its findings."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# The tests drive the controller; one server is enough to run them once.
testinfra_hosts = ["prefill1"]

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "molecule" / "faults" / "faults.yml"
RUNS: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text())
# What the machine under the simulated servers decides, unless a row says so.
OF_THE_MACHINE = {
    "host-governor",
    "host-numa-balancing",
    "host-swappiness",
    "host-thp",
}

Found = list[tuple[str, str]]


def filled(value: Any, words: dict[str, str]) -> Any:
    """The table's values with what only the run knows, such as the address of a server."""
    text = json.dumps(value)
    for name, word in words.items():
        text = text.replace("{{ " + name + " }}", word)
    return json.loads(text)


def places(row: dict[str, Any]) -> list[str]:
    """The servers of a row."""
    return row["at"] if isinstance(row["at"], list) else [row["at"]]


def expected(rows: list[dict[str, Any]]) -> Found:
    """Code and place of everything that the rows find."""
    pairs = ((*text.partition("@"), on) for row in rows for on in places(row) for text in row["finds"])
    return sorted((code, place or on) for code, _at, place, on in pairs)


def reported(found: dict[str, Any], wanted: Found) -> Found:
    """Code and place of every finding, but what the machine decides and nobody asked for."""
    return sorted(
        (one["code"], one["host"] or "")
        for one in found["findings"]
        if one["code"] not in OF_THE_MACHINE or (one["code"], one["host"]) in wanted
    )


@pytest.mark.parametrize("run", RUNS, ids=[run["run"] for run in RUNS])
def test_faults_give_exactly_their_findings(
    run: dict[str, Any],
    check: Callable[..., dict[str, Any]],
    rehearse: Callable[..., None],
    servers: dict[str, Any],
) -> None:
    words = {name: one["address"] for name, one in servers.items()}
    words["other_architecture"] = "amd64" if platform.machine() in ("aarch64", "arm64") else "arm64"
    faults: dict[str, dict[str, Any]] = {}
    of_hosts: dict[str, dict[str, Any]] = {host: dict(own) for host, own in (run.get("set") or {}).items()}
    for row in run["rows"]:
        for host in places(row):
            faults.setdefault(host, {}).update(filled(row.get("do") or {}, words))
            of_hosts.setdefault(host, {}).update(row.get("set") or {})
    rehearse(faults, [row["at"] for row in run["rows"] if row.get("down")])
    variables = dict(run.get("vars") or {})
    for row in run["rows"]:
        variables.update(row.get("vars") or {})
    found = check(variables, of_hosts)
    wanted = expected(run["rows"])
    assert reported(found, wanted) == wanted, found["said"]
    messages = [f"{one['message']}; {one['seen']}" for one in found["findings"]]
    for row in run["rows"]:
        assert any(row.get("says", "") in message for message in messages), (row["fault"], messages)
        severities = {(one["code"], one["host"]): one["severity"] for one in found["findings"]}
        for code in row.get("warns") or ():
            assert severities[code, row["at"]] == "warning", (row["fault"], code)
    errors = any(one["severity"] == "error" for one in found["findings"])
    # 2: a server stopped; 4: one was not reached.
    assert (found["code"] != 0) is errors, found["said"]
