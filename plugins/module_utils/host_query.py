# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a server: everything that the checks need, in one go, and nothing is changed.

What cannot be read is None: which finding follows is for host_verdict.py to say.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import platform
import re
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from . import docker_engine, safe_paths
from . import host_parsers as parsers
from .command_chains import Chain, Command, once, run_chains
from .hccn_parsers import NpuInfo, parse_driver_version, parse_npu_info
from .hccn_query import NPU_SMI, VERSION_INFO, Tools, read_file

DEPLOYMENT = "pd_rollout.deployment"
# netdevice(7): all IPv4 addresses of all NICs.
_SIOCGIFCONF = 0x8912
_IFREQ = 40
_IFREQS = 1024
# Somewhere on the internet: a UDP socket "connected" there sends nothing and tells the default route's
# address. It is what vLLM's get_ip asks.
_FAR = "8.8.8.8"
_NFT_SECONDS = 3.0


@dataclass(frozen=True)
class Nic:
    """A NIC. `up`: administratively up, with a carrier."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """Who has a port. `own`: a container of this deployment."""

    port: int
    address: str
    listens: bool
    pid: int | None
    who: str
    own: bool


@dataclass(frozen=True)
class Docker:
    """The Docker Engine. `problem`: why it does not answer; None with `installed` False: there is none."""

    installed: bool
    problem: str | None = None
    version: str | None = None
    driver: str | None = None
    cgroup: str | None = None
    root: str | None = None
    image_architecture: str | None = None
    has_image: bool = False


@dataclass(frozen=True)
class HostState:
    """What a server says of itself."""

    devices_missing: tuple[str, ...] = ()
    paths_missing: tuple[str, ...] = ()
    npu: NpuInfo | None = None
    # Those among npu-smi's processes that belong to this deployment.
    own_pids: frozenset[int] = frozenset()
    own_running: bool = False
    # Whether we are root, who sees everything.
    root: bool = True
    # Why the deployment's directory is not root's alone; empty: it is.
    directory_open: str = ""
    commands: Mapping[int, str] = field(default_factory=dict)
    driver: str | None = None
    firmware: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    ephemeral: tuple[int, int] | None = None
    reserved: tuple[tuple[int, int], ...] = ()
    nics: tuple[Nic, ...] = ()
    default_address: str | None = None
    # By peer: the address that packets leave from, and the NIC; None where there is no way.
    ways: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    docker: Docker = Docker(False)
    # By path: free bytes, None where it cannot be written.
    free: Mapping[str, int | None] = field(default_factory=dict)
    archive_bytes: int | None = None
    weights_there: bool = True
    memory: Mapping[str, int] = field(default_factory=dict)
    shm_bytes: int | None = None
    machine: str = ""
    kernel: Mapping[str, str] = field(default_factory=dict)
    firewall: tuple[str, ...] = ()


def look(wants: Mapping, options: Mapping) -> HostState:
    """Look at this server with the eyes of the plan: at its files while the tools answer."""
    tools = Tools(npu_smi=options["npu_smi"], timeout=options["timeout"])
    with ThreadPoolExecutor(max_workers=1) as pool:
        asked = pool.submit(ask_tools, tools, bool(wants["chips"]))
        return look_at_files(wants, options, asked)


@dataclass(frozen=True)
class ToolAnswers:
    """What npu-smi tells, and the rules of the firewall."""

    npu: NpuInfo | None
    firmware: tuple[str, ...]
    rules: tuple[str, ...]


def ask_tools(tools: Tools, with_chips: bool) -> ToolAnswers:
    """Ask npu-smi and the firewall at the same time, and all NPUs at once."""
    found = run_chains({"npus": _npus(tools, with_chips), "rules": _rules()})
    npu = found["npus"]
    numbers = sorted({chip.npu for chip in npu.chips}) if npu else []
    boards = run_chains(
        {one: once(tools.smi("board", "-t", "board", "-i", str(one))) for one in numbers}
    ).values()
    firmware = {parsers.parse_firmware(one.text) for one in boards if one.problem is None}
    return ToolAnswers(npu, tuple(sorted(version for version in firmware if version)), found["rules"])


def _npus(tools: Tools, with_chips: bool) -> Chain:
    if not with_chips:
        return None
    answer = yield tools.smi("info")
    return parse_npu_info(answer.text) if answer.problem is None else None


def _rules() -> Chain:
    """The firewall's rules: of iptables where there is one, else of nftables."""
    answer = yield Command("iptables", "-S", ["iptables", "-w", "1", "-S"], _NFT_SECONDS)
    if answer.problem is None and answer.status == 0:
        return tuple(f"iptables: {rule}" for rule in parsers.parse_iptables(answer.text)[:50])
    answer = yield Command("nft", "list", ["nft", "list", "ruleset"], _NFT_SECONDS)
    if answer.problem is None and answer.status == 0:
        return tuple(f"nftables: {rule}" for rule in parsers.parse_nft(answer.text)[:50])
    return ()


def look_at_files(wants: Mapping, options: Mapping, asked: Future) -> HostState:
    """What is read, not asked for; at the end with what the tools told meanwhile."""
    docker, containers = look_at_docker(wants.get("image") or "", options["docker_socket"])
    own = {
        one["Id"]
        for one in containers
        if (one.get("Labels") or {}).get(DEPLOYMENT) == wants.get("deployment")
    }
    names = {one["Id"]: (one.get("Names") or ["?"])[0].lstrip("/") for one in containers}
    ports = [(row["first"], row["last"]) for row in wants["ports"]]
    paths = {wants["directory"], docker.root or options["docker_root"]}
    if options["weights_gigabytes"]:
        paths.add(options["weights_path"])
    holding = tuple(holders(ports, own, names))
    told = asked.result()
    pids = {one.pid for one in told.npu.processes} if told.npu else set()
    return HostState(
        devices_missing=tuple(path for path in wants["devices"] if not is_device(path)),
        paths_missing=tuple(path for path in wants["paths"] if not is_there(path)),
        npu=told.npu,
        own_pids=frozenset(pid for pid in pids if set(containers_of(pid)) & own),
        own_running=bool(own),
        root=os.geteuid() == 0,
        directory_open=safe_paths.problem(wants["directory"]) or "",
        commands={pid: command(pid) for pid in pids},
        driver=parse_driver_version(read_file(options["version_info"]) or ""),
        firmware=told.firmware,
        holders=holding,
        ephemeral=parsers.parse_port_range(read_file("/proc/sys/net/ipv4/ip_local_port_range") or ""),
        reserved=tuple(parsers.parse_ranges(read_file("/proc/sys/net/ipv4/ip_local_reserved_ports") or "")),
        nics=tuple(look_at_nics()),
        default_address=source_address(_FAR),
        ways=look_at_ways(wants["peers"]),
        docker=docker,
        free={path: free_bytes(path) for path in paths if path},
        archive_bytes=file_bytes(options["image_archive"]),
        weights_there=not options["weights_path"] or is_there(options["weights_path"]),
        memory=parsers.parse_meminfo(read_file("/proc/meminfo") or ""),
        shm_bytes=file_system_bytes("/dev/shm"),
        machine=platform.machine(),
        kernel=look_at_kernel(),
        firewall=(*look_at_firewall(), *told.rules),
    )


def is_there(path: str) -> bool:
    """Whether there is something; where that may not be looked at, it is not known to be missing."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(Path(path).stat().st_mode)
    except OSError:
        return False


def look_at_docker(image: str, socket_path: str) -> tuple[Docker, list[dict]]:
    """The engine, and its running containers."""
    installed = docker_engine.dockerd_path() is not None
    try:
        info = docker_engine.info(socket_path)
        containers = json.loads(docker_engine.get("/containers/json", socket_path))
    except docker_engine.EngineError as error:
        return Docker(installed, str(error) if installed else None), []
    except ValueError:
        return Docker(installed, "its answers are no JSON"), []
    details: dict = {}
    if image:
        with suppress(docker_engine.EngineError, ValueError):
            details = json.loads(docker_engine.get(f"/images/{quote(image)}/json", socket_path))
    return (
        Docker(
            True,
            None,
            info.get("ServerVersion"),
            info.get("Driver"),
            info.get("CgroupDriver"),
            info.get("DockerRootDir"),
            details.get("Architecture") or None,
            bool(details),
        ),
        containers,
    )


def containers_of(pid: int) -> list[str]:
    return parsers.parse_cgroup(read_file(f"/proc/{pid}/cgroup") or "")


def command(pid: int) -> str:
    """The program of a process and its first word, without what may be a secret."""
    words = (read_file(f"/proc/{pid}/cmdline") or "").split("\0")[:2]
    return " ".join(word for word in words if word)[:80] or (read_file(f"/proc/{pid}/comm") or "").strip()


def holders(ports: Iterable[tuple[int, int]], own: set[str], names: Mapping[str, str]) -> Iterable[Holder]:
    """Who has any of these ports."""
    ranges = list(ports)
    found: dict[int, parsers.Socket] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for one in parsers.parse_sockets(read_file(path) or ""):
            wanted = any(first <= one.port <= last for first, last in ranges)
            if wanted and one.state not in (parsers.TIME_WAIT, parsers.CLOSED) and one.inode:
                found[one.inode] = one
    if not found:
        return
    owners = owners_of(set(found))
    for inode, one in found.items():
        pid = owners.get(inode)
        ids = containers_of(pid) if pid is not None else []
        # The innermost one that the engine knows: a server may itself run in a container.
        known = [identity for identity in ids if identity in names]
        where = f" in container {names[known[0]]}" if known else ""
        who = f"{command(pid)} (pid {pid}){where}" if pid is not None else "an unknown process"
        yield Holder(one.port, one.address, one.listens, pid, who, bool(set(ids) & own))


def owners_of(inodes: set[int]) -> dict[int, int]:
    """The processes that hold sockets, by the sockets' inodes."""
    found: dict[int, int] = {}
    for pid in _pids():
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with suppress(OSError):
                    match = re.fullmatch(r"socket:\[(\d+)\]", str(Path(handle.path).readlink()))
                    if match and int(match.group(1)) in inodes:
                        found.setdefault(int(match.group(1)), pid)
        if len(found) == len(inodes):
            break
    return found


def look_at_nics() -> Iterable[Nic]:
    addresses = addresses_by_nic()
    for name in sorted(path.name for path in Path("/sys/class/net").iterdir()):
        base = f"/sys/class/net/{name}"
        flags = int((read_file(f"{base}/flags") or "0").strip(), 16)
        carrier = (read_file(f"{base}/carrier") or "0").strip() == "1"
        mtu = (read_file(f"{base}/mtu") or "").strip()
        yield Nic(name, bool(flags & 1) and carrier, int(mtu) if mtu else 0, tuple(addresses.get(name, ())))


def addresses_by_nic() -> dict[str, list[str]]:
    """IPv4 addresses, from the kernel: no program is needed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        names = array.array("B", bytes(_IFREQ * _IFREQS))
        request = struct.pack("iL", len(names), names.buffer_info()[0])
        length = struct.unpack("iL", fcntl.ioctl(one.fileno(), _SIOCGIFCONF, request))[0]
        raw = names.tobytes()[:length]
    found: dict[str, list[str]] = {}
    for at in range(0, len(raw), _IFREQ):
        # An address with a label of its own shows as eth0:1.
        name = raw[at : at + 16].split(b"\0", 1)[0].decode().partition(":")[0]
        found.setdefault(name, []).append(socket.inet_ntoa(raw[at + 20 : at + 24]))
    return found


def source_address(address: str) -> str | None:
    """The address that packets to that one leave from. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect((address, 9))
            return one.getsockname()[0]
        except OSError:
            return None


def look_at_ways(peers: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    routes = parsers.parse_routes(read_file("/proc/net/route") or "")
    return {
        name: (source_address(address), parsers.route_to(routes, address)) for name, address in peers.items()
    }


def free_bytes(path: str) -> int | None:
    """Free bytes where the path is, or will be; None where nothing can be written."""
    place = Path(path)
    while not is_there(str(place)) and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return None if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize


def file_bytes(path: str) -> int | None:
    try:
        return Path(path).stat().st_size if path else None
    except OSError:
        return None


def file_system_bytes(path: str) -> int | None:
    """The size of a file system of its own at that path; None where there is none."""
    try:
        found = os.statvfs(path) if os.path.ismount(path) else None
    except OSError:
        return None
    return found.f_blocks * found.f_frsize if found else None


def look_at_kernel() -> dict[str, str]:
    """Parameters that matter, as far as the kernel has them."""
    governors = {
        (read_file(str(path)) or "").strip()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    found = {
        "thp": parsers.parse_choice(read_file("/sys/kernel/mm/transparent_hugepage/enabled") or "") or "",
        "governor": ", ".join(sorted(governors)),
        "swappiness": (read_file("/proc/sys/vm/swappiness") or "").strip(),
        "numa_balancing": (read_file("/proc/sys/kernel/numa_balancing") or "").strip(),
    }
    return {name: value for name, value in found.items() if value}


def look_at_firewall() -> Iterable[str]:
    """Services that keep packets out, whose rules need not show."""
    if any((read_file(f"/proc/{pid}/comm") or "").strip() == "firewalld" for pid in _pids()):
        yield "firewalld is running"
    if re.search(r"^ENABLED=yes", read_file("/etc/ufw/ufw.conf") or "", re.MULTILINE):
        yield "ufw is enabled"


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


__all__ = ["NPU_SMI", "VERSION_INFO", "Docker", "Holder", "HostState", "Nic", "look"]
