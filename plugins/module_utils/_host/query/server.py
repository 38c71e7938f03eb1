# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads everything about a server that the checks need, in one pass. Changes nothing.

A value that cannot be read is None; ``evaluate`` decides which finding follows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable

from ..._commands import Runner, run_chains, run_commands
from ..._files import safe_paths
from ..._hccn.parsers import NpuChip, NpuInfo, parse_driver_version, parse_npu_info
from ..._hccn.query import Tools, read_file
from .. import chip_holders, parsers
from ..chip_holders import ChipHolder
from ..requirements import HostRequirements, Limits, PlannedFront
from .docker import Docker, container_name, inspect_docker
from .files import file_bytes, file_system_bytes, free_bytes, is_device, other_npu_smi, path_exists
from .front import Front, inspect_front
from .network import (
    PUBLIC_ADDRESS,
    Nic,
    PeerRoute,
    firewall_rules,
    gather_firewall_services,
    gather_nics,
    gather_routes,
    source_address,
)
from .processes import PortHolder, command, containers_of, gather_port_holders, in_container, process_ids

DEPLOYMENT = "pd_rollout.deployment"

# The driver's list of the processes that hold chips, and of the chips that are held.
NAMESPACES, UDEVICES = "/proc/uda/namespace_node", "/proc/uda/udevice"

# An idle chip has 2.8 to 3.5 GB of its memory in use, whatever its size: 5 % of 64 GB, 9 % of the 32 GB of a
# 910B4.
HBM_FREE = 0.9
HBM_IDLE_MB = 4096


@dataclass(frozen=True)
class HostState:
    """The state of a server, as read on it."""

    devices_missing: tuple[str, ...] = ()
    paths_missing: tuple[str, ...] = ()
    npu: NpuInfo | None = None
    # The path of npu-smi, if it is not the one that the containers mount.
    npu_smi: str | None = None
    # Running containers outside the deployment with chips, and NPUs that several containers may share.
    chip_holders: tuple[ChipHolder, ...] = ()
    shared_npus: frozenset[int] = frozenset()
    # For chips whose memory is in use: the processes that have the device open, by chip.
    openers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    # Processes listed by npu-smi that belong to this deployment.
    own_pids: frozenset[int] = frozenset()
    own_running: bool = False
    # Whether the check runs as root, which can read everything.
    root: bool = True
    # Why users other than root can change the deployment directory; empty if they cannot.
    directory_open: str = ""
    commands: Mapping[int, str] = field(default_factory=dict)
    driver: str | None = None
    firmware: tuple[str, ...] = ()
    # Processes that use planned ports.
    port_holders: tuple[PortHolder, ...] = ()
    ephemeral: tuple[int, int] | None = None
    reserved: tuple[tuple[int, int], ...] = ()
    nics: tuple[Nic, ...] = ()
    default_address: str | None = None
    # By peer.
    routes: Mapping[str, PeerRoute] = field(default_factory=dict)
    docker: Docker = field(default_factory=lambda: Docker(False))
    # By path: free bytes, None if it is not writable.
    free_space: Mapping[str, int | None] = field(default_factory=dict)
    # The size of the image's archive, None if there is none.
    archive_bytes: int | None = None
    weights_present: bool = True
    memory: Mapping[str, int] = field(default_factory=dict)
    shm_bytes: int | None = None
    machine: str = ""
    # ID and PRETTY_NAME of /etc/os-release.
    distribution: tuple[str, str] = ("", "")
    kernel: Mapping[str, str] = field(default_factory=dict)
    firewall: tuple[str, ...] = ()
    # None if no front is planned.
    front: Front | None = None


@dataclass(frozen=True)
class Sources:
    """Where a server is inspected: its tools, the driver's version file, and the Docker Engine.

    ``docker_root``: where the Docker Engine will store images, used only while it does not answer.
    """

    tools: Tools
    version_info: str
    docker_socket: str
    docker_root: str

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Sources:
        """Return the sources from the options of host_check."""
        return cls(
            Tools(npu_smi=options["npu_smi"], timeout=options["timeout"]),
            options["version_info"],
            options["docker_socket"],
            options["docker_root"],
        )


def inspect_server(requirements: HostRequirements, limits: Limits, sources: Sources) -> HostState:
    """Return the state of this server; its files are read while the tools answer.

    ``requirements``: the plan's; ``limits``: of the space, with the paths that it is needed at; ``sources``:
    the paths of what is inspected.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(ask_tools, sources.tools, bool(requirements.chips), requirements.front)
        return _gather_state(requirements, limits, sources, pending)


@dataclass(frozen=True)
class ToolAnswers:
    """The answers of npu-smi, the rules of the firewall, and the state of the front."""

    npu: NpuInfo | None
    firmware: tuple[str, ...]
    rules: tuple[str, ...]
    front: Front | None = None


def ask_tools(tools: Tools, with_chips: bool, front: PlannedFront | None = None) -> ToolAnswers:
    """Query npu-smi, the firewall and what a front needs at the same time, and all NPUs at once."""
    chains: dict[str, Callable[[Runner], Any]] = {
        "npus": partial(_npus, tools=tools, with_chips=with_chips),
        "rules": firewall_rules,
        "front": partial(inspect_front, planned=front),
    }
    found = run_chains(chains)
    npu = found["npus"]
    numbers = sorted({chip.npu for chip in npu.chips}) if npu else []
    boards = run_commands(
        {number: tools.smi("board", "-t", "board", "-i", str(number)) for number in numbers}
    ).values()
    firmware = {parsers.parse_firmware(answer.text) for answer in boards if answer.problem is None}
    return ToolAnswers(
        npu, tuple(sorted(version for version in firmware if version)), found["rules"], found["front"]
    )


def _npus(runner: Runner, tools: Tools, with_chips: bool) -> NpuInfo | None:
    if not with_chips:
        return None
    answer = runner.run(tools.smi("info"))
    return parse_npu_info(answer.text) if answer.problem is None else None


def _gather_state(
    requirements: HostRequirements, limits: Limits, sources: Sources, pending: Future[ToolAnswers]
) -> HostState:
    """Return the state from files, combined at the end with the tools' answers, which are ``pending``."""
    docker, containers = inspect_docker(requirements.image, sources.docker_socket)
    own = {
        container["Id"]
        for container in containers
        if (container.get("Labels") or {}).get(DEPLOYMENT) == requirements.deployment
    }
    names = {container["Id"]: container_name(container) for container in containers}
    ports = [(row.first, row.last) for row in requirements.ports]
    paths = {requirements.directory, docker.root or sources.docker_root}
    if limits.weights_gigabytes:
        paths.add(limits.weights_path)
    units = [f"{requirements.deployment}-{purpose}" for purpose in ("front", "guard")]
    port_holders = tuple(gather_port_holders(ports, own, names, units))
    chips = set(requirements.chips)
    others = gather_chip_holders(chips, containers, own, docker, sources.docker_socket) if chips else ()
    answers = pending.result()
    pids = {process.pid for process in answers.npu.processes} if answers.npu else set()
    all_chips = answers.npu.chips if answers.npu else ()
    full = full_chips(all_chips, chips) if not own else []
    # For all chips, because resetting one resets all.
    opened = chip_holders.openers(process_ids(), {chip.phy_id for chip in all_chips}) if full else {}
    pids = pids.union(*opened.values())
    return HostState(
        devices_missing=tuple(path for path in requirements.devices if not is_device(path)),
        paths_missing=tuple(path for path in requirements.paths if not path_exists(path)),
        npu=answers.npu,
        npu_smi=other_npu_smi(requirements.npu_smi),
        chip_holders=tuple(others),
        shared_npus=shared_npus(sources.tools, answers.npu, others),
        openers={chip: tuple(found) for chip, found in opened.items()},
        own_pids=frozenset(pid for pid in pids if set(containers_of(pid)) & own),
        own_running=bool(own),
        root=os.geteuid() == 0,
        directory_open=safe_paths.problem(requirements.directory) or "",
        commands={pid: command(pid) + in_container(pid, names) for pid in pids},
        driver=parse_driver_version(read_file(sources.version_info) or ""),
        firmware=answers.firmware,
        port_holders=port_holders,
        ephemeral=parsers.parse_port_range(read_file("/proc/sys/net/ipv4/ip_local_port_range") or ""),
        reserved=tuple(parsers.parse_ranges(read_file("/proc/sys/net/ipv4/ip_local_reserved_ports") or "")),
        nics=tuple(gather_nics()),
        default_address=source_address(PUBLIC_ADDRESS),
        routes=gather_routes(requirements.peers),
        docker=docker,
        free_space={path: free_bytes(path) for path in paths if path},
        archive_bytes=file_bytes(limits.image_archive),
        weights_present=not limits.weights_path or path_exists(limits.weights_path),
        memory=parsers.parse_meminfo(read_file("/proc/meminfo") or ""),
        shm_bytes=file_system_bytes("/dev/shm"),
        machine=platform.machine(),
        distribution=parsers.parse_os_release(read_file("/etc/os-release") or ""),
        kernel=gather_kernel_parameters(),
        firewall=(*gather_firewall_services(), *answers.rules),
        front=answers.front,
    )


def full_chips(chips: Iterable[NpuChip], wanted: Iterable[int]) -> list[NpuChip]:
    """Return the wanted chips whose memory is in use."""
    numbers = set(wanted)
    return [
        chip
        for chip in chips
        if chip.phy_id in numbers
        and chip.hbm_total
        and chip.hbm_used is not None
        and chip.hbm_used > max((1 - HBM_FREE) * chip.hbm_total, HBM_IDLE_MB)
    ]


def gather_chip_holders(
    chips: set[int], containers: list[dict[str, Any]], own: set[str], docker: Docker, socket_path: str
) -> list[ChipHolder]:
    """Return the containers outside the deployment, of any runtime, that have any of these chips.

    ``containers``: the Docker Engine's list; ``own``: ids of the deployment's; ``docker``: the Docker Engine;
    ``socket_path``: its socket.
    """
    found = chip_holders.of_docker(containers, own, socket_path)
    # If the engine does not answer, the deployment's own containers are unknown.
    if docker.problem is None:
        reported = {holder.name for holder in found}
        names = {container["Id"]: container_name(container) for container in containers}
        known = own | {identity for identity, name in names.items() if name in reported}
        found += chip_holders.of_other_runtimes(process_ids(), known, containers_of, names)
        namespaces = parsers.parse_namespaces(read_file(NAMESPACES) or "?")
        if namespaces is not None:
            opened = parsers.parse_udevices(read_file(UDEVICES) or "?")
            found = chip_holders.by_driver(found, namespaces, opened, own, containers_of, names)
    return [holder for holder in found if chips & set(holder.chips)]


def shared_npus(tools: Tools, npu: NpuInfo | None, holders: Iterable[ChipHolder]) -> frozenset[int]:
    """Return the NPUs of these containers' chips that several containers may share."""
    held = {chip for holder in holders if holder.alone for chip in holder.chips}
    numbers = sorted({chip.npu for chip in npu.chips if chip.phy_id in held}) if npu else []
    answers = run_commands(
        {number: tools.smi("device-share", "-t", "device-share", "-i", str(number)) for number in numbers}
    )
    return frozenset(
        number
        for number, answer in answers.items()
        if answer.problem is None and parsers.parse_device_share(answer.text)
    )


def gather_kernel_parameters() -> dict[str, str]:
    """Return the relevant kernel parameters that exist."""
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
