"""The inventory: what it says of its hosts; the derived one, which differs only in how they are reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from pdsim import network
from pdsim.images import PACKAGE, SERVERS
from pdsim.layout import ROOT, SIMULATOR
from pdsim.server import Server
from pdsim.ui import SimError

DEFAULT_MODEL_PATH = "/root/.cache/DeepSeek-V3.1_w8a8mix_mtp"
# The value of pd_server for servers of eight chips without a super pod.
ATLAS_A2 = "atlas-a2"
# Addresses of own choice begin here, as in inventory/simulated_1p1d.
FIRST_NUMBER = 11
# The vNIC addresses of the chips have one byte for the server.
MOST_SERVERS = 250


@dataclass(frozen=True)
class Described:
    """An inventory's hosts as servers, and whether the simulator may choose their network."""

    servers: list[Server]
    own_network: bool
    # Hosts whose addresses the inventory leaves open.
    addressed: frozenset[str]


def ansible_playbook() -> str:
    """The ansible-playbook of the virtual environment, or else of the path."""
    own = ROOT / ".venv" / "bin" / "ansible-playbook"
    found = str(own) if own.exists() else shutil.which("ansible-playbook")
    if not found:
        raise SimError("ansible-playbook is missing; run `make venv` first.")
    return found


def rows(source: Path, sim_prefix: str) -> list[dict[str, Any]]:
    """Every host with the variables that matter here, templated by Ansible."""
    with tempfile.TemporaryDirectory(prefix="pdsim-") as folder:
        target = Path(folder) / "hosts.json"
        command = [ansible_playbook(), "--inventory", str(source), "--extra-vars", f"sim_prefix={sim_prefix}"]
        command += ["--extra-vars", f"sim_description={target}", str(SIMULATOR / "describe.yml")]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        # Undefined hosts, warnings about names of groups: nothing that concerns the simulator.
        environment["ANSIBLE_LOCALHOST_WARNING"] = "false"
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
        )
        if done.returncode != 0 or not target.exists():
            raise SimError(
                f"the inventory {source} could not be read:\n{(done.stdout + done.stderr).strip()[-1500:]}"
            )
        found: list[dict[str, Any]] = json.loads(target.read_text())
    return found


def describe(source: Path, sim_prefix: str) -> Described:
    """The inventory's hosts as servers; `sim_prefix` is the network for those that leave it open."""
    found = rows(source, sim_prefix)
    if not found:
        raise SimError(f"the inventory {source} has no hosts.")
    if len(found) > MOST_SERVERS:
        raise SimError(
            f"the inventory {source} has {len(found)} hosts; at most {MOST_SERVERS} can be simulated."
        )
    servers = []
    addressed = set()
    for position, row in enumerate(found):
        address = str(row["node_ip"] or row["ansible_host"])
        if not address:
            address = f"{sim_prefix}.{FIRST_NUMBER + position}"
            addressed.add(row["name"])
        if network.address(address) is None:
            raise SimError(f"host {row['name']}: {address} is no IPv4 address; pd_node_ip must be one.")
        if row["image"] not in SERVERS:
            raise SimError(
                f"host {row['name']}: sim_image is {row['image']}, not one of {', '.join(SERVERS)}."
            )
        packages = row["packages"]
        if not isinstance(packages, list) or not all(PACKAGE.fullmatch(str(one)) for one in packages):
            raise SimError(
                f"host {row['name']}: sim_packages is {packages}, not a list of packages of Debian."
            )
        servers.append(
            Server(
                name=row["name"],
                address=address,
                interface=str(row["interface"] or "eth0"),
                chips=int(row["chips"] or (8 if row["kind"] == ATLAS_A2 else 16)),
                index=position,
                model_path=str(row["model_path"] or DEFAULT_MODEL_PATH) if row["weights"] else None,
                groups=tuple(row["groups"]),
                engine=f"{row['release']}{'' if row['kind'] == ATLAS_A2 else '-a3'}",
                settings=row["server"],
                image=row["image"],
                packages=tuple(sorted({str(one) for one in packages})),
                shared=str(row["shared"]),
            )
        )
    seen: dict[str, str] = {}
    for server in servers:
        if server.address in seen:
            raise SimError(
                f"hosts {seen[server.address]} and {server.name} have the same address {server.address}."
            )
        seen[server.address] = server.name
    own = all(server.address.startswith(f"{sim_prefix}.") for server in servers)
    return Described(servers, own, frozenset(addressed))


def addresses(servers: list[Server]) -> list[IPv4Address]:
    """The addresses of all servers."""
    return [IPv4Address(server.address) for server in servers]


def reach(server: Server, folder: Path) -> dict[str, Any]:
    """The variables that lead Ansible to the simulated server."""
    options = (
        f"-o UserKnownHostsFile={folder / 'known_hosts'} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    )
    return {
        "ansible_host": server.address,
        "ansible_port": 22,
        "ansible_connection": "ansible.builtin.ssh",
        "ansible_user": server.settings.get("user", "root"),
        "ansible_become": "user" in server.settings,
        "ansible_ssh_private_key_file": str(folder / "id_ed25519"),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def derive(source: Path, described: Described, sim_prefix: str, folder: Path) -> Path:
    """Copy the inventory and add, for each host, how it is reached. Returns the copy's folder."""
    target = folder / "inventory"
    if target.exists():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.mkdir(parents=True)
        shutil.copy(source, target / source.name)
        for beside in ("group_vars", "host_vars"):
            if (source.parent / beside).is_dir():
                shutil.copytree(source.parent / beside, target / beside)
    for server in described.servers:
        variables = reach(server, folder)
        if described.own_network:
            variables["sim_prefix"] = sim_prefix
        host = target / "host_vars" / server.name
        host.mkdir(parents=True, exist_ok=True)
        # Ansible takes either a folder or a file of this name: the file moves into the folder.
        for suffix in (".yml", ".yaml", ".json"):
            single = host.with_name(server.name + suffix)
            if single.exists():
                single.rename(host / f"inventory{suffix}")
        text = yaml.safe_dump(variables, sort_keys=False, width=200)
        (host / "zz_simulated.yml").write_text(f"---\n# How the simulated server is reached.\n{text}")
    return target


def ssh_config(servers: list[Server], folder: Path) -> str:
    """A configuration for ssh, so that people and tests reach the servers by name."""
    common = (
        f"Host *\n  User root\n  IdentityFile {folder / 'id_ed25519'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
    )
    return "".join(f"Host {server.name}\n  HostName {server.address}\n" for server in servers) + common
