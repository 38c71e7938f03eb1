# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a server: everything that the checks need, in one go, and nothing is changed.

What cannot be read is None: which finding follows is for host_verdict.py to say.
"""

from __future__ import annotations

import array
import fcntl
import json
import mmap
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
from typing import Any
from urllib.parse import quote

from .._commands import Chain, Command, once, run_chains
from .._docker import engine
from .._docker.client import DockerError, get
from .._files import safe_paths
from .._hccn.parsers import NpuChip, NpuInfo, parse_driver_version, parse_npu_info, version_key
from .._hccn.query import NPU_SMI, VERSION_INFO, Tools, npu_smi_at, read_file
from . import chip_holders, parsers
from .chip_holders import ChipHolder

DEPLOYMENT = "pd_rollout.deployment"
# Who has which chips, and which chips somebody has, by the driver.
NAMESPACES, UDEVICES = "/proc/uda/namespace_node", "/proc/uda/udevice"
# netdevice(7): all IPv4 addresses of all NICs.
_SIOCGIFCONF = 0x8912
_IFREQ = 40
_IFREQS = 1024
# Somewhere on the internet: a UDP socket "connected" there sends nothing and tells the default route's
# address. It is what vLLM's get_ip asks.
_FAR = "8.8.8.8"
_NFT_SECONDS = 3.0
# An idle chip has 2.8 to 3.5 GB of its memory in use, whatever its size: 5 % of 64 GB, 9 % of the 32 GB of a
# 910B4.
HBM_FREE = 0.9
HBM_IDLE_MB = 4096
# Older engines refuse clone3, see host-docker-old.
DOCKER_MINIMUM = "20.10.10"


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
    # Of an old one: whether clone3 is in the seccomp list of the program that runs (None: it cannot be read);
    # whose build it is; which runc it starts; and whether it is another product behind the same socket.
    clone3: bool | None = None
    runc: str | None = None
    product: str = ""
    # Of which seccomp profile its containers get: default or builtin, a file, unconfined; empty: of none.
    seccomp: str = "default"


@dataclass(frozen=True)
class HostState:
    """What a server says of itself."""

    devices_missing: tuple[str, ...] = ()
    paths_missing: tuple[str, ...] = ()
    npu: NpuInfo | None = None
    # Where npu-smi is, if it is not where the containers mount it from.
    npu_smi: str | None = None
    # Running containers of others with chips, and the NPUs that several containers may share.
    chip_holders: tuple[ChipHolder, ...] = ()
    shared_npus: frozenset[int] = frozenset()
    # Where memory of a chip is in use: by chip, the processes that have its device open.
    openers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
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
    # ID and PRETTY_NAME of /etc/os-release.
    distribution: tuple[str, str] = ("", "")
    kernel: Mapping[str, str] = field(default_factory=dict)
    firewall: tuple[str, ...] = ()


def look(wants: Mapping[str, Any], options: Mapping[str, Any]) -> HostState:
    """Look at this server with the eyes of the plan: at its files while the tools answer."""
    tools = Tools(npu_smi=options["npu_smi"], timeout=options["timeout"])
    with ThreadPoolExecutor(max_workers=1) as pool:
        asked = pool.submit(ask_tools, tools, bool(wants["chips"]))
        return look_at_files(wants, options, asked, tools)


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


def look_at_files(
    wants: Mapping[str, Any], options: Mapping[str, Any], asked: Future[ToolAnswers], tools: Tools
) -> HostState:
    """What is read, not asked for; at the end with what the tools told meanwhile."""
    docker, containers = look_at_docker(wants.get("image") or "", options["docker_socket"])
    own = {
        one["Id"]
        for one in containers
        if (one.get("Labels") or {}).get(DEPLOYMENT) == wants.get("deployment")
    }
    names = {one["Id"]: container_name(one) for one in containers}
    ports = [(row["first"], row["last"]) for row in wants["ports"]]
    paths = {wants["directory"], docker.root or options["docker_root"]}
    if options["weights_gigabytes"]:
        paths.add(options["weights_path"])
    holding = tuple(holders(ports, own, names))
    chips = set(wants["chips"])
    others = holders_of_chips(chips, containers, own, docker, options["docker_socket"]) if chips else ()
    told = asked.result()
    pids = {one.pid for one in told.npu.processes} if told.npu else set()
    every = told.npu.chips if told.npu else ()
    full = {chip.phy_id for chip in full_chips(every, chips)} if not own else set()
    # Of all chips: a reset of one is a reset of all.
    opened = chip_holders.openers(_pids(), {chip.phy_id for chip in every}) if full else {}
    pids = pids.union(*opened.values())
    return HostState(
        devices_missing=tuple(path for path in wants["devices"] if not is_device(path)),
        paths_missing=tuple(path for path in wants["paths"] if not is_there(path)),
        npu=told.npu,
        npu_smi=elsewhere(wants.get("npu_smi")),
        chip_holders=tuple(others),
        shared_npus=shared_npus(tools, told.npu, others),
        openers={chip: tuple(found) for chip, found in opened.items()},
        own_pids=frozenset(pid for pid in pids if set(containers_of(pid)) & own),
        own_running=bool(own),
        root=os.geteuid() == 0,
        directory_open=safe_paths.problem(wants["directory"]) or "",
        commands={pid: command(pid) + _in_container(pid, names) for pid in pids},
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
        distribution=parsers.parse_os_release(read_file("/etc/os-release") or ""),
        kernel=look_at_kernel(),
        firewall=(*look_at_firewall(), *told.rules),
    )


def full_chips(chips: Iterable[NpuChip], wanted: Iterable[int]) -> list[NpuChip]:
    """Those of the wanted chips whose memory somebody has."""
    numbers = set(wanted)
    return [
        chip
        for chip in chips
        if chip.phy_id in numbers
        and chip.hbm_total
        and chip.hbm_used is not None
        and chip.hbm_used > max((1 - HBM_FREE) * chip.hbm_total, HBM_IDLE_MB)
    ]


def holders_of_chips(
    chips: set[int], containers: list[dict[str, Any]], own: set[str], docker: Docker, socket_path: str
) -> list[ChipHolder]:
    """Containers of others, of whatever runtime, with any of these chips."""
    found = chip_holders.of_docker(containers, own, socket_path)
    # Of an engine that does not answer nobody knows which containers are ours.
    if docker.problem is None:
        told = {one.name for one in found}
        names = {one["Id"]: container_name(one) for one in containers}
        known = own | {identity for identity, name in names.items() if name in told}
        found += chip_holders.of_other_runtimes(_pids(), known, containers_of, names)
        account = parsers.parse_namespaces(read_file(NAMESPACES) or "?")
        if account is not None:
            opened = parsers.parse_udevices(read_file(UDEVICES) or "?")
            found = chip_holders.by_driver(found, account, opened, own, containers_of, names)
    return [one for one in found if chips & set(one.chips)]


def container_name(listed: Mapping[str, Any]) -> str:
    """The name of a container as the engine lists it."""
    return str((listed.get("Names") or ["?"])[0]).lstrip("/")


def shared_npus(tools: Tools, npu: NpuInfo | None, holders: Iterable[ChipHolder]) -> frozenset[int]:
    """The NPUs with chips that those containers have, which several containers may use."""
    held = {chip for one in holders if one.alone for chip in one.chips}
    numbers = sorted({chip.npu for chip in npu.chips if chip.phy_id in held}) if npu else []
    answers = run_chains(
        {one: once(tools.smi("device-share", "-t", "device-share", "-i", str(one))) for one in numbers}
    )
    return frozenset(
        one
        for one, answer in answers.items()
        if answer.problem is None and parsers.parse_device_share(answer.text)
    )


def elsewhere(path: str | None) -> str | None:
    """Where npu-smi is, if it is not at the path that the containers mount."""
    found = npu_smi_at(path) if path and not is_there(path) else path
    return found if found != path else None


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


def look_at_docker(image: str, socket_path: str) -> tuple[Docker, list[dict[str, Any]]]:
    """The engine, and its running containers."""
    installed = engine.dockerd_path() is not None
    try:
        info = engine.info(socket_path)
        containers = json.loads(get("/containers/json", socket_path, engine.ANSWER_SECONDS))
    except DockerError as error:
        return Docker(installed, str(error) if installed else None), []
    except ValueError:
        return Docker(installed, "its answers are no JSON"), []
    version = info.get("ServerVersion") or ""
    clone3, runc, product = None, None, ""
    if version_key(version) < version_key(DOCKER_MINIMUM):
        clone3 = knows_clone3(version)
        runc, product = components(socket_path)
    details: dict[str, Any] = {}
    if image:
        with suppress(DockerError, ValueError):
            details = json.loads(get(f"/images/{quote(image)}/json", socket_path, engine.ANSWER_SECONDS))
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
            clone3,
            runc,
            product,
            seccomp_profile(info.get("SecurityOptions")),
        ),
        containers,
    )


def seccomp_profile(options: object) -> str:
    """The profile of `name=seccomp,profile=default` in the engine's security options; empty: no seccomp."""
    if not isinstance(options, list):
        return "default"
    for one in options:
        values = dict(part.partition("=")[::2] for part in str(one).split(","))
        if values.get("name") == "seccomp" or one == "seccomp":
            return values.get("profile") or "default"
    return ""


def knows_clone3(version: str) -> bool | None:
    """Whether the engine's program names clone3, as builds do that have it in their seccomp list.

    None where the program cannot be read, or is not the one that answers (after an update without a restart).
    """
    pid = engine.daemon_pid()
    path = f"/proc/{pid}/exe" if pid else engine.dockerd_path()
    try:
        with (Path(path or "/")).open("rb") as handle:
            program = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        with program:
            return program.find(b"clone3") >= 0 if program.find(version.encode()) >= 0 else None
    except (OSError, ValueError):
        return None


def components(socket_path: str) -> tuple[str | None, str]:
    """The version of runc, and `Podman Engine` where that answers in the Docker Engine's place."""
    try:
        told = json.loads(get("/version", socket_path, engine.ANSWER_SECONDS)).get("Components") or ()
    except (DockerError, ValueError):
        return None, ""
    versions = {str(one.get("Name")): str(one.get("Version") or "") for one in told}
    return versions.get("runc"), next((name for name in versions if "podman" in name.lower()), "")


def _in_container(pid: int, names: Mapping[str, str]) -> str:
    """Its container, where the engine knows it: the innermost one, since a server may run in one itself."""
    known = [identity for identity in containers_of(pid) if identity in names]
    return f" in container {names[known[0]]}" if known else ""


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
        where = _in_container(pid, names) if pid is not None else ""
        who = f"{command(pid)} (pid {pid}){where}" if pid is not None else "an unknown process"
        yield Holder(one.port, one.address, one.listens, pid, who, bool(set(ids) & own))


def owners_of(inodes: set[int]) -> dict[int, int]:
    """The processes that hold sockets, by the sockets' inodes."""
    found: dict[int, int] = {}
    for pid in _pids():
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with suppress(OSError):
                    # Path.readlink came with Python 3.9.
                    match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(handle.path))
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
            return str(one.getsockname()[0])
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
