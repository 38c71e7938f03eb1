"""Every fault of faults.yml gives exactly its findings, and nothing is found after the cure."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
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

# Seconds, long ones: a busy machine is no fault of the servers. Pings only where a run asks for them.
USUAL = {
    "hccn_check_mesh": "none",
    "hccn_check_timeout": 30,
    "hccn_check_ping_timeout": 30,
    "host_check_timeout": 30,
    "host_check_connect_timeout": 8,
}

Found = list[tuple[str, str]]


@pytest.fixture
def check(inventory: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run check.yml, with further variables of single servers; what it reports, and its exit code."""
    copy = tmp_path / "inventory"
    shutil.copytree(inventory, copy)

    def run(variables: dict[str, Any], of_hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
        for host, own in of_hosts.items():
            (copy / "host_vars" / host / "zzz_faults.yml").write_text(yaml.safe_dump(own))
        extra = {"pd_plan_dir": str(tmp_path / "plan"), **USUAL, **variables}
        done = subprocess.run(
            [
                str(ROOT / ".venv/bin/ansible-playbook"),
                *("--inventory", str(copy), "--timeout", "15"),
                *("--extra-vars", json.dumps(extra)),
                "playbooks/check.yml",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )
        written = tmp_path / "plan" / "check.json"
        assert written.exists(), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(written.read_text())
        found.update(code=done.returncode, said=done.stdout + done.stderr)
        return found

    return run


@pytest.fixture(scope="session")
def simulator(inventory: Path) -> Iterator[Callable[..., None]]:
    """The simulator's commands; at the end no fault is on."""
    name = inventory.parent.name

    def run(command: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [str(ROOT / "simulator/sim"), command, "--name", name, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    yield run
    run("rehearse", "-", text="{}")


@pytest.fixture
def rehearse(simulator: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Have exactly these faults on, and those of the test before off."""
    off: list[str] = []

    def on(faults: dict[str, dict[str, Any]], switched_off: list[str]) -> None:
        simulator("rehearse", "-", text=json.dumps(faults))
        for host in switched_off:
            off.append(host)
            simulator("stop", host, "--power-cut")

    yield on
    for host in off:
        simulator("start", host)


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
    messages = [one["message"] for one in found["findings"]]
    for row in run["rows"]:
        assert any(row.get("says", "") in message for message in messages), (row["fault"], messages)
        severities = {(one["code"], one["host"]): one["severity"] for one in found["findings"]}
        for code in row.get("warns") or ():
            assert severities[code, row["at"]] == "warning", (row["fault"], code)
    errors = any(one["severity"] == "error" for one in found["findings"])
    # 2: a server stopped; 4: one was not reached.
    assert (found["code"] != 0) is errors, found["said"]


def test_after_the_cure_the_check_is_clean(
    check: Callable[..., dict[str, Any]], rehearse: Callable[..., None]
) -> None:
    rehearse({}, [])
    found = check({"model_weights_hashes": "full", "hccn_check_mesh": "ring"}, {})
    assert reported(found, []) == [], found["said"]
    assert found["code"] == 0
