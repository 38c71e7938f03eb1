# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Parses files in /proc and /sys, firewall rules and image names. Pure functions."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

LISTEN = 0x0A
TIME_WAIT = 0x06
CLOSED = 0x07

# proc(5): the columns of /proc/net/tcp that are needed.
_LOCAL, _STATE, _INODE = 1, 3, 9

# The driver's numbering of virtual NPUs (devdrv_user_common.h: VDAVINCI_VDEV_OFFSET, VDAVINCI_MAX_VFID_NUM).
FIRST_VIRTUAL, VIRTUAL_OF_A_CHIP = 100, 16

# UDA_NS_NUM of the driver.
PRIVILEGED_NAMESPACE = 128

# Suffixes of the release's image tags by hardware (vllm-ascend v0.13.0, installation.md).
_A3_TAG = re.compile(r"(^|[-_.])a3($|[-_.])", re.IGNORECASE)
_OTHER_TAG = re.compile(r"(^|[-_.])(310p|a5)($|[-_.])", re.IGNORECASE)
_RELEASE_TAG = re.compile(r"^v?\d+\.\d+")


@dataclass(frozen=True)
class Socket:
    """A TCP socket of this server."""

    address: str
    port: int
    state: int
    inode: int

    @property
    def listens(self) -> bool:
        return self.state == LISTEN


@dataclass(frozen=True)
class Route:
    """A route from /proc/net/route; network and mask are integers."""

    interface: str
    network: int
    mask: int
    metric: int


def _address(word: str) -> str:
    """Return an address from /proc/net/tcp or tcp6: 32-bit words in the machine's byte order."""
    words = [int(word[at : at + 8], 16) for at in range(0, len(word), 8)]
    raw = b"".join(struct.pack("=I", number) for number in words)
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw)
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def parse_sockets(text: str) -> list[Socket]:
    """Parse /proc/net/tcp or /proc/net/tcp6; lines that cannot be parsed are ignored."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) <= _INODE or not re.fullmatch(r"[0-9A-Fa-f]+:[0-9A-Fa-f]{4}", fields[_LOCAL]):
            continue
        address, port = fields[_LOCAL].split(":")
        if len(address) in (8, 32):
            found.append(
                Socket(_address(address), int(port, 16), int(fields[_STATE], 16), int(fields[_INODE]))
            )
    return found


def parse_routes(text: str) -> list[Route]:
    """Parse /proc/net/route, without routes that are down or reject packets."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or not int(fields[3], 16) & 1 or int(fields[3], 16) & 0x200:
            continue
        network, mask = (int.from_bytes(struct.pack("=I", int(fields[at], 16)), "big") for at in (1, 7))
        found.append(Route(fields[0], network, mask, int(fields[6])))
    return found


def route_to(routes: Iterable[Route], address: str) -> str | None:
    """Return the NIC through which packets to the address leave: longest prefix, then lowest metric."""
    try:
        wanted = int.from_bytes(socket.inet_aton(address), "big")
    except OSError:
        return None
    fitting = [route for route in routes if wanted & route.mask == route.network]
    return min(fitting, key=lambda route: (-route.mask, route.metric)).interface if fitting else None


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """Return ``8004,36100-36115`` as pairs of first and last port; words that are not ports are ignored."""
    found = []
    for word in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if match:
            first = int(match.group(1))
            found.append((first, int(match.group(2) or first)))
    return found


def merged_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same ports in as few ranges as possible."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def range_text(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges in the format of net.ipv4.ip_local_reserved_ports."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def uncovered(wanted: Iterable[tuple[int, int]], covered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the wanted ports that are not in ``covered``."""
    left = merged_ranges(wanted)
    for first, last in merged_ranges(covered):
        kept = []
        for begin, end in left:
            if begin < first:
                kept.append((begin, min(end, first - 1)))
            if end > last:
                kept.append((max(begin, last + 1), end))
            # If neither applies, all of it is covered.
        left = [(begin, end) for begin, end in kept if begin <= end]
    return merged_ranges(left)


def within(ranges: Iterable[tuple[int, int]], limits: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the part of the ranges within the limits."""
    cut = ((max(first, limits[0]), min(last, limits[1])) for first, last in ranges)
    return [(first, last) for first, last in cut if first <= last]


def parse_port_range(text: str) -> tuple[int, int] | None:
    """Parse /proc/sys/net/ipv4/ip_local_port_range."""
    words = text.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and all(w.isdigit() for w in words) else None


def parse_cgroup(text: str) -> list[str]:
    """Return the ids of the containers in /proc/PID/cgroup, the innermost of each line."""
    found = []
    for line in text.splitlines():
        ids = re.findall(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", line)
        if ids and ids[-1] not in found:
            found.append(ids[-1])
    return found


def parse_visible_devices(environment: Iterable[str]) -> list[int]:
    """Return the chips of ``ASCEND_VISIBLE_DEVICES=0-2,4``, which Ascend Docker Runtime gives a container."""
    found: set[int] = set()
    for entry in environment:
        name, _equals, value = entry.partition("=")
        if name == "ASCEND_VISIBLE_DEVICES":
            # `Ascend910-3` is a chip too; `void` is not.
            for first, last in parse_ranges(re.sub(r"Ascend\w*-", "", value)):
                found |= set(range(first, min(last, first + 1023) + 1))
    return sorted({chip_of_number(number) for number in found})


def chip_of_number(number: int) -> int:
    """Return the chip of a device number: virtual NPUs start at 100, with 16 for each chip."""
    return number if number < FIRST_VIRTUAL else (number - FIRST_VIRTUAL) // VIRTUAL_OF_A_CHIP


def chip_of_device(path: str) -> int | None:
    """Return the chip of a device: 3 for ``/dev/davinci3``, 1 for the virtual NPU ``/dev/vdavinci116``."""
    match = re.fullmatch(r"/dev/v?davinci(\d+)", path)
    return chip_of_number(int(match.group(1))) if match else None


def parse_namespaces(text: str) -> list[tuple[int, list[int]]] | None:
    """Parse /proc/uda/namespace_node, the driver's list of chip holders; None if the format is unknown.

    The first process of each mount namespace that opened chips, and the chips, which no other one gets. The
    numbers from 128 on are those of privileged ones, which take nothing for themselves (uda_proc_fs.c,
    uda_access.c).
    """
    found = []
    for block in re.split(r"^(?=[ \t]*ns_id\b)", text, flags=re.MULTILINE):
        if not block.strip():
            continue
        head = re.match(r"[ \t]*ns_id (\d+) identify \w+ root_tgid (\d+) dev_num (\d+)\b", block)
        devices = re.findall(r"^[ \t]*\d+[ \t]+(\d+)[ \t]*$", block, re.MULTILINE)
        if head is None or len(devices) != int(head.group(3)):
            return None
        if int(head.group(1)) < PRIVILEGED_NAMESPACE and devices:
            found.append((int(head.group(2)), sorted({chip_of_number(int(device)) for device in devices})))
    return found


def parse_udevices(text: str) -> set[int] | None:
    """Return the chips that a container has opened, from /proc/uda/udevice; None if the format is unknown.

    That of a container that has ended stays until the next one opens the chip (uda_access.c).
    """
    found = set()
    blocks = re.split(r"^(?=[ \t]*udevid\b)", text, flags=re.MULTILINE)
    blocks = [block for block in blocks if block.strip()]
    for block in blocks:
        head = re.match(r"[ \t]*udevid (\d+) type\b", block)
        if head is None:
            return None
        if "has used by container" in block:
            found.add(chip_of_number(int(head.group(1))))
    return found if blocks else None


def parse_device_share(text: str) -> bool | None:
    """Return whether containers may share a chip, from ``npu-smi info -t device-share``; None if unknown."""
    found = re.findall(r"^[ \t]*Device-share Status[ \t]*:[ \t]*(\w+)", text, re.MULTILINE | re.I)
    return all(status.lower() == "true" for status in found) if found else None


def parse_os_release(text: str) -> tuple[str, str]:
    """Return ID and PRETTY_NAME from /etc/os-release."""
    values = dict(re.findall(r"^(\w+)=[\"']?(.*?)[\"']?[ \t\r]*$", text, re.MULTILINE))
    return values.get("ID", "").lower(), values.get("PRETTY_NAME") or values.get("ID", "")


def parse_capabilities(text: str) -> int | None:
    """Return the effective capabilities from /proc/PID/status as a bit mask."""
    match = re.search(r"^CapEff:[ \t]*([0-9a-fA-F]+)", text, re.MULTILINE)
    return int(match.group(1), 16) if match else None


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the values of /proc/meminfo in bytes."""
    return {
        match.group(1): int(match.group(2)) * 1024
        for match in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)
    }


def parse_choice(text: str) -> str | None:
    """Return the selected word of ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", text)
    return match.group(1) if match else None


def parse_firmware(text: str) -> str | None:
    """Return the firmware version from ``npu-smi info -t board``."""
    match = re.search(
        r"^[ \t]*Firmware Version[ \t]*:[ \t]*(\S+)", text.replace("\r", ""), re.MULTILINE | re.I
    )
    return match.group(1) if match else None


def parse_iptables(text: str) -> list[str]:
    """Return what blocks packets in ``iptables -S``: a closed INPUT chain, and rules that drop or reject."""
    found = []
    for line in text.splitlines():
        words = line.split()
        closed = words[:2] == ["-P", "INPUT"] and words[2:] != ["ACCEPT"]
        # Docker's forwarding chains do not affect the server's ports.
        rule = words[:1] == ["-A"] and not words[1].startswith(("DOCKER", "FORWARD"))
        if closed or (rule and any(word in ("DROP", "REJECT") for word in words)):
            found.append(line.strip())
    return found


def parse_nft(text: str) -> list[str]:
    """Return the same from ``nft list ruleset``: input hooks that drop, and rules that drop or reject."""
    found = []
    chain, hook = "", False
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("chain "):
            chain, hook = words.rstrip(" {"), False
        elif "hook input" in words:
            hook = True
            if "policy drop" in words:
                found.append(f"{chain}: policy drop")
        elif hook and re.search(r"\b(drop|reject)\b", words):
            found.append(f"{chain}: {words}")
    return found


def closes(rule: str, port: int) -> bool:
    """Return whether a rule of iptables or nftables applies to this port, or to all ports."""
    named = re.findall(r"(?:--dports?|dport)\s+(?:\{([^}]*)\}|([\d,:-]+))", rule)
    if not named:
        return True
    ranges = parse_ranges(",".join(listed or single for listed, single in named).replace(":", "-"))
    return any(first <= port <= last for first, last in ranges)


def concerns(rule: str, addresses: Iterable[str]) -> bool:
    """Return whether a rule of iptables or nftables can match packets between these addresses; its exceptions
    are ignored."""
    known = [ipaddress.ip_address(address) for address in addresses]
    for named in re.findall(r"(?<!! )(?:-s|-d|saddr|daddr)\s+(?!!)(?:\{([^}]*)\}|([\d./]+))", rule):
        networks = [_network(text) for text in (named[0] or named[1]).split(",")]
        if not any(network and address in network for network in networks for address in known):
            return False
    return True


def _network(text: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text.strip(), strict=False)
    except ValueError:
        return None


def hardware(names: Iterable[str], chips_per_npu: int) -> str | None:
    """Return ``a3``, ``a2``, or None if it is not clear, from the names in npu-smi's table.

    An A3 NPU shows as Ascend910 with two chips, an A2 as 910B1 … 910B4 with one.
    """
    seen = {name.upper().replace("ASCEND", "").strip() for name in names}
    if not seen:
        return None
    if all(name.startswith("910B") for name in seen):
        return "a2"
    if all(name.startswith("910_93") or name == "910" for name in seen) and chips_per_npu == 2:
        return "a3"
    return None


def image_hardware(image: str) -> str | None:
    """Return the hardware from an image's tag; None if the tag has another format, or there is none."""
    name = image.split("@")[0].rpartition("/")[2]
    tag = name.partition(":")[2]
    if _A3_TAG.search(tag):
        return "a3"
    if _OTHER_TAG.search(tag):
        return "other"
    return "a2" if name.startswith("vllm-ascend:") and _RELEASE_TAG.match(tag) else None


def architecture(machine: str) -> str | None:
    """Return Docker's name for the architecture of ``uname -m``; None if there is no image for it."""
    return {"aarch64": "arm64", "arm64": "arm64", "x86_64": "amd64", "amd64": "amd64"}.get(machine)
