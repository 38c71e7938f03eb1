"""Addresses: a network of its own for each simulated cluster, that nothing on this machine uses."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pdsim.docker import docker, inspect
from pdsim.layout import CHECKOUT, labels, prefix
from pdsim.ui import SimError

# Networks of own choice are /24 out of this one: the third number from checkout and name, then the next free.
OWN = IPv4Network("10.213.0.0/16")
# A fixed inventory's addresses must fit into one network of at most this size.
WIDEST = 16


def host_routes() -> list[IPv4Network]:
    """What this machine's routes and interfaces use (the default route aside)."""
    if shutil.which("ip"):
        listed = subprocess.run(
            ["ip", "-4", "-json", "route"], capture_output=True, check=False, text=True
        ).stdout
        found = [row["dst"] for row in json.loads(listed or "[]") if row.get("dst") not in (None, "default")]
        return [IPv4Network(dst, strict=False) for dst in found]
    networks = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            networks.append(IPv4Network((address, bin(mask).count("1")), strict=False))
    return networks


def docker_networks() -> dict[str, list[IPv4Network]]:
    """Docker's networks by name."""
    names = docker("network", "ls", "--format", "{{.Name}}").split()
    networks: dict[str, list[IPv4Network]] = {}
    for network in inspect("network", *names):
        for config in (network.get("IPAM") or {}).get("Config") or []:
            if re.fullmatch(r"[0-9./]+", config.get("Subnet", "")):
                networks.setdefault(network["Name"], []).append(IPv4Network(config["Subnet"]))
    return networks


def choose_prefix(name: str) -> str:
    """The first three numbers of a free network for this cluster, e.g. `10.213.77`."""
    used = host_routes()
    for networks in docker_networks().values():
        used += networks
    subnets = list(OWN.subnets(new_prefix=24))
    first = zlib.crc32(f"{CHECKOUT} {name}".encode()) % len(subnets)
    for step in range(len(subnets)):
        subnet = subnets[(first + step) % len(subnets)]
        if not any(subnet.overlaps(other) for other in used):
            return str(subnet.network_address).rsplit(".", 1)[0]
    raise SimError(f"no free network in {OWN} for {name}; `sim status` lists what is there.")


def covering(addresses: Iterable[IPv4Address]) -> IPv4Network:
    """The network of a fixed inventory: /24, or as wide as its addresses need."""
    listed = sorted(addresses)
    for length in range(24, WIDEST - 1, -1):
        network = IPv4Network((listed[0], length), strict=False)
        if listed[-1] in network:
            return network
    raise SimError(
        f"the addresses {listed[0]} to {listed[-1]} do not fit into one network of /{WIDEST}: not simulated."
    )


def gateway(network: IPv4Network, taken: Sequence[IPv4Address]) -> IPv4Address:
    """A free address for the machine's own end: the first, or else the last free one."""
    candidates = [network.network_address + 1, *(network.broadcast_address - n for n in range(1, 250))]
    for candidate in candidates:
        if candidate not in taken and candidate in network:
            return candidate
    raise SimError(f"no address of {network} is left for the machine itself.")


def create(name: str, network: IPv4Network, addresses: Sequence[IPv4Address]) -> None:
    """Make the cluster's network, unless something on the machine is in its place."""
    here = prefix(name)
    for other, networks in docker_networks().items():
        if other == here and network in networks:
            return
        if any(network.overlaps(one) for one in networks):
            raise SimError(
                f"the inventory's addresses ({network}) are in use by this machine's Docker network {other}."
            )
    for route in host_routes():
        if network.overlaps(route):
            raise SimError(
                f"the inventory's addresses ({network}) collide with this machine's own route to {route}."
            )
    own_end = gateway(network, addresses)
    mtu = machine_mtu()
    options = ["--opt", f"com.docker.network.driver.mtu={mtu}"] if mtu else []
    docker(
        "network",
        "create",
        "--subnet",
        str(network),
        "--gateway",
        str(own_end),
        *options,
        *labels(name),
        here,
    )


def machine_mtu() -> int | None:
    """The packet size of the machine's default route, where it is below Docker's 1500 bytes."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1], 16) == 0 and int(fields[7], 16) == 0:
            mtu = int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text())
            return mtu if mtu < 1500 else None
    return None


def address(text: str) -> IPv4Address | None:
    """The text as an IPv4 address, if it is one."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
