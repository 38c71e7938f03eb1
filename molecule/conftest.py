"""What the scenarios' tests have in common: `host` reaches a scenario's servers over ssh, by name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parent.parent
SIM = ROOT / "simulator" / "sim"
HOSTS = pytest.StashKey[str]()


def scenario_name(config: pytest.Config) -> str:
    """The scenario: Molecule tells, or else the folder of the tests does."""
    if "MOLECULE_SCENARIO_NAME" in os.environ:
        return os.environ["MOLECULE_SCENARIO_NAME"]
    for argument in config.args:
        parts = Path(argument.split("::")[0]).resolve().parts
        if "molecule" in parts[:-1]:
            return parts[parts.index("molecule") + 1]
    raise pytest.UsageError("name the scenario's tests: pytest molecule/<scenario>/tests")


def state_folder(config: pytest.Config) -> Path:
    """Where the simulator keeps what belongs to the scenario's servers."""
    folder = ROOT / ".sim" / f"molecule-{scenario_name(config)}"
    if not (folder / "servers.json").exists():
        raise pytest.UsageError(f"the servers are not there; run: molecule create -s {scenario_name(config)}")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without `testinfra_hosts` in the test's module, a test runs on every server of the scenario."""
    option = metafunc.config.option
    if not option.ssh_config:
        folder = state_folder(metafunc.config)
        option.connection = "ssh"
        option.ssh_config = str(folder / "ssh_config")
        every = ",".join(json.loads((folder / "servers.json").read_text())["hosts"])
        metafunc.config.stash[HOSTS] = option.hosts or every
    # Testinfra asks the module only if the option is not set, and then does not know the servers.
    named = getattr(metafunc.module, "testinfra_hosts", None)
    option.hosts = ",".join(named) if named else metafunc.config.stash.get(HOSTS, option.hosts)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> dict[str, Any]:
    """The scenario's servers: name → address, container, groups."""
    found: dict[str, Any] = json.loads((state_folder(pytestconfig) / "servers.json").read_text())["hosts"]
    return found


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Callable[[str], testinfra.host.Host]:
    """`server("decode1")`: another server of the scenario than the one that `host` is."""
    ssh_config = str(state_folder(pytestconfig) / "ssh_config")
    return lambda name: testinfra.get_host(f"ssh://{name}", ssh_config=ssh_config)


@pytest.fixture(scope="session")
def inventory(pytestconfig: pytest.Config) -> Path:
    """The inventory that leads to the scenario's servers."""
    return state_folder(pytestconfig) / "inventory"


@pytest.fixture
def sim(pytestconfig: pytest.Config) -> Callable[..., str]:
    """`sim("fault", "server1", "link_down")`: the simulator's commands for the scenario's servers."""
    name = state_folder(pytestconfig).name

    def run(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(SIM), command, "--name", name, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def play(inventory: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`play("playbooks/check.yml", "--check")`: run a playbook on the scenario's servers."""

    def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        environment.pop("ANSIBLE_FORCE_COLOR", None)
        return subprocess.run(
            [str(ROOT / ".venv/bin/ansible-playbook"), "--inventory", str(inventory), playbook, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
        )

    return run
