"""What the tests of this scenario start from: the check, and faults that the next test begins without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
# Seconds, long ones: a busy machine is no fault of the servers. Pings only where a run asks for them.
USUAL = {
    "hccn_check_mesh": "none",
    "hccn_check_timeout": 30,
    "hccn_check_ping_timeout": 30,
    "host_check_timeout": 30,
    "host_check_connect_timeout": 8,
}


@pytest.fixture
def check(inventory: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run check.yml, with further variables of single servers and further arguments; what it reports, and its
    exit code."""
    copy = tmp_path / "inventory"
    shutil.copytree(inventory, copy)

    def run(
        variables: dict[str, Any], of_hosts: dict[str, dict[str, Any]], *arguments: str
    ) -> dict[str, Any]:
        for host, own in of_hosts.items():
            (copy / "host_vars" / host / "zzz_faults.yml").write_text(yaml.safe_dump(own))
        extra = {"pd_plan_dir": str(tmp_path / "plan"), **USUAL, **variables}
        done = subprocess.run(
            [
                str(ROOT / ".venv/bin/ansible-playbook"),
                *("--inventory", str(copy), "--timeout", "15"),
                *("--extra-vars", json.dumps(extra)),
                *arguments,
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
