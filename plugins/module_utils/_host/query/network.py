# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads NICs, addresses, routes and firewall rules of this server."""

from __future__ import annotations

import array
import fcntl
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..._commands import Command, Runner
from ..._hccn.query import read_file
from .. import parsers
from .processes import process_ids

# netdevice(7): all IPv4 addresses of all NICs.
_SIOCGIFCONF = 0x8912

_IFREQ = 40

_IFREQS = 1024

# A public address: "connecting" a UDP socket to it sends nothing and reveals the default route's source
# address. vLLM's get_ip does the same.
PUBLIC_ADDRESS = "8.8.8.8"

_NFT_SECONDS = 3.0


@dataclass(frozen=True)
class Nic:
    """A NIC. ``up``: administratively up, with carrier."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class PeerRoute:
    """How packets reach another server: their source address and NIC; None if there is no route, or no NIC in
    the main routing table."""

    source: str | None
    nic: str | None


def firewall_rules(runner: Runner) -> tuple[str, ...]:
    """Return the firewall's rules: of iptables if present, otherwise of nftables."""
    answer = runner.run(Command("iptables", "-S", ["iptables", "-w", "1", "-S"], _NFT_SECONDS))
    if answer.problem is None and answer.status == 0:
        return tuple(f"iptables: {rule}" for rule in parsers.parse_iptables(answer.text)[:50])
    answer = runner.run(Command("nft", "list", ["nft", "list", "ruleset"], _NFT_SECONDS))
    if answer.problem is None and answer.status == 0:
        return tuple(f"nftables: {rule}" for rule in parsers.parse_nft(answer.text)[:50])
    return ()


def gather_nics() -> Iterable[Nic]:
    """Yield all NICs of this server."""
    addresses = addresses_by_nic()
    for name in sorted(path.name for path in Path("/sys/class/net").iterdir()):
        base = f"/sys/class/net/{name}"
        flags = int((read_file(f"{base}/flags") or "0").strip(), 16)
        carrier = (read_file(f"{base}/carrier") or "0").strip() == "1"
        mtu = (read_file(f"{base}/mtu") or "").strip()
        yield Nic(name, bool(flags & 1) and carrier, int(mtu) if mtu else 0, tuple(addresses.get(name, ())))


def addresses_by_nic() -> dict[str, list[str]]:
    """Return the IPv4 addresses by NIC, directly from the kernel."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        names = array.array("B", bytes(_IFREQ * _IFREQS))
        request = struct.pack("iL", len(names), names.buffer_info()[0])
        length = struct.unpack("iL", fcntl.ioctl(kernel.fileno(), _SIOCGIFCONF, request))[0]
        raw = names.tobytes()[:length]
    found: dict[str, list[str]] = {}
    for at in range(0, len(raw), _IFREQ):
        # An address with a label of its own shows as eth0:1.
        name = raw[at : at + 16].split(b"\0", 1)[0].decode().partition(":")[0]
        found.setdefault(name, []).append(socket.inet_ntoa(raw[at + 20 : at + 24]))
    return found


def source_address(address: str) -> str | None:
    """Return the source address of packets to an address. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


def gather_routes(peers: Mapping[str, str]) -> dict[str, PeerRoute]:
    """Return the routes to these servers by name; ``peers``: their addresses by name."""
    table = parsers.parse_routes(read_file("/proc/net/route") or "")
    return {
        name: PeerRoute(source_address(address), parsers.route_to(table, address))
        for name, address in peers.items()
    }


def gather_firewall_services() -> Iterable[str]:
    """Yield firewall services, whose rules may not be visible."""
    if any((read_file(f"/proc/{pid}/comm") or "").strip() == "firewalld" for pid in process_ids()):
        yield "firewalld is running"
    if re.search(r"^ENABLED=yes", read_file("/etc/ufw/ufw.conf") or "", re.MULTILINE):
        yield "ufw is enabled"
