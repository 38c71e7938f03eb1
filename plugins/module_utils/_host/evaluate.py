# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""From the state of a server and what the plan wants of it to findings. Pure functions, no Ansible."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._findings import Finding, brief, counted, numbers, ordered
from .._hccn.catalogue import chip_words
from .._hccn.parsers import NpuChip, version_key
from . import parsers
from .catalogue import HOST_CHECKS
from .query import DOCKER_MINIMUM, Docker, Holder, HostState, Nic, full_chips

GIGA = 10**9
HCCL = "HCCL"
# Unpacking needs the archive's content, which is about its size, and some for what is written on the way.
ARCHIVE_FACTOR = 1.2
# Launch scripts and the key.
DIRECTORY_BYTES = 65536
# Distributions whose Docker Engine has the version of what it contains. Others patch an old one:
# docker-engine 18.09.0 of openEuler has clone3 in its seccomp list (its series.conf, patches 0191 and 0192),
# and those that are made from openEuler may have it from there.
UNPATCHED = frozenset({"", "almalinux", "centos", "debian", "fedora", "raspbian", "rhel", "rocky", "ubuntu"})
# From here on runc answers ENOSYS to calls that are newer than all of the list (its "-ENOSYS stub", see
# opencontainers/runc PR 3490), and the C library tries clone. The lists of 20.10 end behind clone3.
RUNC_WITH_ENOSYS, LISTS_BEHIND_CLONE3 = (1, 0, 0, 93), "20.10"
# Characters of what npu-smi said that a finding shows.
SHOWN = 1500
SHM_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """What the role's variables demand, in GB (10^9 bytes); 0 is not checked."""

    image_gigabytes: float = 0.0
    weights_gigabytes: float = 0.0
    weights_path: str = ""
    memory_gigabytes: float = 0.0
    image_archive: str = ""
    # The oldest firmware that will do; empty: that of the release's row, if it names one.
    firmware_minimum: str = ""


def judge(wants: Mapping[str, Any], state: HostState, limits: Limits) -> list[Finding]:
    """Everything that is wrong with this server, worst first."""
    return ordered(
        [
            *_root(state),
            *_directory(wants, state),
            *_devices(wants, state),
            *_npus(wants, state, limits),
            *_holders(wants, state),
            *_image(wants, state),
            *_ports(wants, state),
            *_network(wants, state),
            *_docker(state),
            *_space(wants, state, limits),
            *_memory(wants, state, limits),
            *_kernel(state),
        ]
    )


def _root(state: HostState) -> Iterable[Finding]:
    if not state.root:
        yield HOST_CHECKS.finding("host-not-root", "the check does not run as root", seen="another user")


def _directory(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    if state.directory_open:
        yield HOST_CHECKS.finding(
            "host-directory-open",
            f"others than root may decide what root runs from {wants['directory']}",
            seen=state.directory_open,
            path=state.directory_open.split(" ")[0],
        )


def _devices(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    if state.devices_missing:
        chips = [
            int(d[len("/dev/davinci") :]) for d in state.devices_missing if d[len("/dev/davinci") :].isdigit()
        ]
        others = [d for d in state.devices_missing if not d[len("/dev/davinci") :].isdigit()]
        names = [
            f"/dev/davinci{numbers(chips)}" if len(chips) < 2 else f"/dev/davinci{{{numbers(chips)}}}"
        ] * bool(chips)
        yield HOST_CHECKS.finding(
            "host-device-missing",
            f"{', '.join([*names, *others])} missing",
            chips=chips,
            seen=f"{len(wants['devices']) - len(state.devices_missing)} of {len(wants['devices'])} devices",
        )
    if state.paths_missing:
        yield HOST_CHECKS.finding(
            "host-mount-missing",
            f"{', '.join(state.paths_missing)} missing, which the containers mount",
            seen="no such file or directory",
            paths=" ".join(state.paths_missing),
        )

    if state.npu_smi:
        yield HOST_CHECKS.finding(
            "host-npu-smi-elsewhere",
            f"npu-smi is {state.npu_smi}, and the containers mount {wants['npu_smi']}",
            seen=state.npu_smi,
            found=state.npu_smi,
            path=wants["npu_smi"],
        )


def _npus(wants: Mapping[str, Any], state: HostState, limits: Limits) -> Iterable[Finding]:
    if state.driver and wants.get("driver") and version_key(state.driver) < version_key(wants["driver"]):
        yield HOST_CHECKS.finding(
            "host-driver-older",
            f"driver {state.driver} is older than {wants['driver']}, which the release recommends",
            seen=state.driver,
            expected=f"{wants['driver']} or newer",
        )
    least = limits.firmware_minimum or wants.get("firmware")
    old = [version for version in state.firmware if least and version_key(version) < version_key(least)]
    if old:
        yield HOST_CHECKS.finding(
            "host-firmware-older",
            f"firmware {', '.join(old)} is older than {least}",
            seen=", ".join(old),
            expected=f"{least} or newer",
        )
    if state.npu is None:
        return
    by_place = {(chip.npu, chip.chip): chip for chip in state.npu.chips}
    busy: dict[tuple[int, str], list[int]] = defaultdict(list)
    used_by_somebody = set()
    for process in state.npu.processes:
        chip = by_place.get((process.npu, process.chip))
        number = chip.phy_id if chip else 2 * process.npu + process.chip
        used_by_somebody.add(number)
        if number in wants["chips"] and process.pid not in state.own_pids:
            busy[(process.pid, process.name)].append(number)
    for (pid, name), chips in busy.items():
        what = state.commands.get(pid) or name
        yield HOST_CHECKS.finding(
            "host-npu-process",
            f"{chip_words(chips)}: in use by {what} (pid {pid}), which is not of this deployment",
            chips=chips,
            seen=f"{name}, pid {pid}",
            pids=pid,
        )
    if wants["chips"] and not state.npu.processes_known:
        told = "; ".join(state.npu.unread) or "no table of processes"
        yield HOST_CHECKS.finding(
            "host-npu-unread",
            "who uses the chips is not known: npu-smi's table of processes was not understood",
            seen=told[:SHOWN],
        )
    # Who has a chip for himself has its memory; of a chip that others may have, too, nobody knows.
    held = {chip for one in state.chip_holders if one.alone for chip in one.chips}
    # While the deployment itself runs, its memory is in use; whether npu-smi shows its processes or not.
    if not state.own_running:
        full = full_chips(state.npu.chips, set(wants["chips"]) - used_by_somebody - held)
        if full:
            yield _used_memory(state, full)
    per_npu = max((sum(1 for c in state.npu.chips if c.npu == n) for n, _c in by_place), default=0)
    here = parsers.hardware((chip.name for chip in state.npu.chips), per_npu)
    made_for = parsers.image_hardware(wants.get("image") or "")
    if here and made_for and here != made_for:
        yield HOST_CHECKS.finding(
            "host-image-hardware",
            f"{wants['image']} is not for Atlas {here.upper()}",
            seen=f"{state.npu.chips[0].name}, {per_npu} chips an NPU; image for {made_for.upper()}",
        )


def _used_memory(state: HostState, full: Sequence[NpuChip]) -> Finding:
    """Memory that is in use although no process shows. A reset is advised only where nobody is there.

    On Atlas A3, and on Atlas A2 with HCCS, `npu-smi set -t reset` resets all chips of the server, whichever
    is named (npucli/npu_chip_set.c: reset_server_handle_amp): so nobody may use any of them.
    """
    numbers_of = [chip.phy_id for chip in full]
    worst = max(full, key=lambda chip: (chip.hbm_used or 0) / (chip.hbm_total or 1))
    seen = f"{worst.hbm_used} of {worst.hbm_total} MB on chip {worst.phy_id}"
    pids = sorted({pid for chip in numbers_of for pid in state.openers.get(chip, ())})
    what, cure = "and no process shows", None
    if pids:
        who = ", ".join(f"{state.commands.get(pid) or 'a process'} (pid {pid})" for pid in pids[:4])
        more = f" and {len(pids) - 4} more" if len(pids) > 4 else ""
        what = f"the device is open in {who}{more}"
        cure = f"ps -fp {','.join(map(str, pids))}"
    elif state.npu is None or not state.npu.processes_known or not state.root:
        what = "by whom could not be read"
        cure = "npu-smi info; fuser -v /dev/davinci*; docker ps  # as root: find out whose service it is"
    elif _elsewhere(state):
        cure = (
            "fuser -v /dev/davinci*; npu-smi info  # a reset would end all chips of the server, and others "
            f"are used: {_elsewhere(state)}"
        )
    return HOST_CHECKS.finding(
        "host-hbm-used",
        f"{chip_words(numbers_of)}: memory in use, {what}",
        chips=numbers_of,
        seen=seen,
        cure=cure,
    )


def _elsewhere(state: HostState) -> str:
    """Who uses chips of the server, by npu-smi, open devices and containers."""
    pids = {one.pid for one in (state.npu.processes if state.npu else ())}.union(*state.openers.values())
    names = [one.name for one in state.chip_holders]
    told = [f"pid {pid}" for pid in sorted(pids)] + [f"container {name}" for name in names]
    return ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")


def _holders(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    """Containers of others that have chips of the plan."""
    npu_of = {chip.phy_id: chip.npu for chip in state.npu.chips} if state.npu else {}
    for one in state.chip_holders:
        chips = sorted(set(one.chips) & set(wants["chips"]))
        if not chips:
            continue
        shared = all(npu_of.get(chip) in state.shared_npus for chip in chips)
        alone = one.alone and not shared
        yield HOST_CHECKS.finding(
            "host-chip-held",
            f"{chip_words(chips)}: container {one.name} {'holds' if alone else 'has'}"
            f" {'it' if len(chips) == 1 else 'them'}, which is not of this deployment",
            chips=chips,
            seen=one.seen + ("; device-share is on" if shared else ""),
            severity=None if alone else "warning",
            name=one.name.split(" ")[0],
            # Of other runtimes only a process is known.
            cure=f"ps -fp {one.pid}; cat /proc/{one.pid}/cgroup  # whose it is; then end it where it was "
            "started, or leave its chips out of pd_chips"
            if one.pid
            else None,
        )


def _image(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    here = parsers.architecture(state.machine)
    if here is None:
        yield HOST_CHECKS.finding("host-architecture", f"no image for {state.machine}", seen=state.machine)
    elif state.docker.image_architecture not in (None, here):
        yield HOST_CHECKS.finding(
            "host-image-architecture",
            f"{wants['image']} is for {state.docker.image_architecture}",
            seen=f"image {state.docker.image_architecture}, server {here}",
            expected=here,
            image=wants["image"],
        )


def _ports(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    # One process on several ports of one purpose is one finding.
    groups: dict[tuple[str, str], list[Holder]] = defaultdict(list)
    names: dict[tuple[str, str], str] = {}
    for holder in state.holders:
        if holder.own:
            continue
        for row in wants["ports"]:
            if not row["first"] <= holder.port <= row["last"]:
                continue
            code = _port_code(row, holder)
            if code:
                groups[(code, f"{row['purpose']}\0{holder.who}")].append(holder)
                names[(code, f"{row['purpose']}\0{holder.who}")] = row["purpose"]
    for (code, key), found in groups.items():
        who = found[0].who
        ports = sorted({one.port for one in found})
        verb = "is taken" if code != "host-port-connection" else "is held by a connection"
        if len(ports) > 1:
            verb = verb.replace("is", "are", 1)
        yield HOST_CHECKS.finding(
            code,
            f"port{'s' * (len(ports) > 1)} {numbers(ports)} ({names[(code, key)]}) {verb}: {who}",
            seen=f"{who} {'listens' if found[0].listens else 'is connected'}"
            f" at {found[0].address}:{ports[0]}",
            port=ports[0],
        )
    wanted = [(r["first"], r["last"]) for r in wants["ports"] if r["bound"] or r["purpose"] == HCCL]
    if state.ephemeral is not None:
        open_ones = parsers.uncovered(
            parsers.within(parsers.merged_ranges(wanted), state.ephemeral), state.reserved
        )
        if open_ones:
            yield HOST_CHECKS.finding(
                "host-ports-not-reserved",
                "planned ports are in Linux's range for outgoing connections and not reserved",
                seen=f"{parsers.range_text(open_ones)} within {state.ephemeral[0]}-{state.ephemeral[1]}",
                ranges=parsers.range_text(parsers.merged_ranges([*state.reserved, *wanted])),
            )


def _port_code(row: Mapping[str, Any], holder: Holder) -> str | None:
    """Which finding it is that somebody has a port of that row."""
    if row["bound"]:
        return "host-port-taken" if holder.listens else "host-port-connection"
    # The libraries bind to the service address: who listens on the loopback alone is not in their way.
    if not holder.listens or holder.address.startswith("127."):
        return None
    if row["purpose"] == HCCL:
        return "host-port-hccl"
    return "host-port-pool" if row.get("instance") is None else None


def _network(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    address, declared = wants["address"], wants.get("interface")
    by_name = {nic.name: nic for nic in state.nics}
    carrier = carrying(state.nics, address)
    if declared and declared not in by_name:
        yield HOST_CHECKS.finding(
            "host-nic-missing",
            f"there is no NIC {declared}",
            seen=", ".join(nic.name for nic in state.nics if nic.name != "lo") or "no NIC",
            expected=declared + (f"; {carrier.name} carries {address}" if carrier else ""),
        )
    elif declared and carrier is not None and carrier.name != declared:
        yield HOST_CHECKS.finding(
            "host-address-elsewhere",
            f"{address} is on {carrier.name}, not on {declared}",
            seen=f"{declared}: {', '.join(by_name[declared].addresses) or 'no address'}",
            expected=f"{declared} carries {address}",
        )
    if carrier is None:
        yield HOST_CHECKS.finding(
            "host-address-missing",
            f"no NIC carries {address}",
            seen="; ".join(
                f"{n.name} {', '.join(n.addresses)}" for n in state.nics if n.addresses and n.name != "lo"
            ),
            expected=f"{address} on a NIC",
        )
        # All that follows would only say the same in other words.
        return
    for nic in {name: by_name[name] for name in (carrier.name, declared) if name in by_name}.values():
        if not nic.up:
            yield HOST_CHECKS.finding(
                "host-nic-down", f"NIC {nic.name} is down", seen="down, or no carrier", nic=nic.name
            )
    for advertised in dict.fromkeys(wants.get("advertise") or ()):
        tells = advertised or state.default_address
        if tells != address:
            origin = "VLLM_HOST_IP" if advertised else "the default route"
            yield HOST_CHECKS.finding(
                "host-advertised-address",
                f"the engine would advertise {tells or 'no address'} ({origin}) instead of {address}",
                seen=f"{tells or 'no default route'}, by {origin}",
                expected=address,
                address=address,
            )
    # A NIC that the main table does not name is one of policy routing: nothing is known of it.
    astray = {
        name: (source, over)
        for name, (source, over) in state.ways.items()
        if carrier.up and (source != address or over not in (None, carrier.name))
    }
    if astray:
        name, (source, over) = next(iter(astray.items()))
        yield HOST_CHECKS.finding(
            "host-route-elsewhere",
            f"packets to {', '.join(astray)} do not leave from {address} over {carrier.name}",
            seen=f"to {name}: from {source or 'nowhere, there is no route'}"
            + (f" over {over}" if over else ""),
            expected=f"from {address} over {carrier.name}",
            peer=wants["peers"][name],
        )


def carrying(nics: Iterable[Nic], address: str) -> Nic | None:
    """The NIC with that address."""
    return next((nic for nic in nics if address in nic.addresses), None)


def _docker(state: HostState) -> Iterable[Finding]:
    docker = state.docker
    if not docker.installed:
        yield HOST_CHECKS.finding("host-docker-absent", "no Docker Engine is installed", seen="no dockerd")
    elif docker.problem and not state.root:
        # Its socket is only for root.
        return
    elif docker.problem:
        yield HOST_CHECKS.finding(
            "host-docker-silent", "the Docker Engine does not answer", seen=docker.problem
        )
    else:
        yield from _docker_age(docker, state.distribution)
        if docker.driver == "vfs":
            yield HOST_CHECKS.finding("host-docker-storage", "the storage driver is vfs", seen="vfs")
        if docker.cgroup == "none":
            yield HOST_CHECKS.finding(
                "host-docker-cgroup", "the Docker Engine has no control groups", seen="none"
            )


def _docker_age(docker: Docker, distribution: tuple[str, str]) -> Iterable[Finding]:
    """Whether threads can start in its containers: by its seccomp list where that can be seen."""
    version = docker.version or ""
    if docker.product:
        yield HOST_CHECKS.finding(
            "host-docker-other",
            f"{docker.product} {version} answers in the Docker Engine's place",
            seen=f"{docker.product} {version}",
        )
        return
    if not version or version_key(version) >= version_key(DOCKER_MINIMUM) or docker.clone3:
        return
    # Without seccomp nothing is refused.
    if docker.seccomp in ("", "unconfined"):
        return
    name, title = distribution
    unsure = ""
    if docker.seccomp not in ("default", "builtin"):
        unsure = f"; whether its seccomp profile {docker.seccomp} allows clone3 was not checked"
    elif docker.clone3 is None and name not in UNPATCHED:
        unsure = f"; whether {title or name} has patched it to allow clone3 could not be seen"
    elif (
        version_key(version) < version_key(LISTS_BEHIND_CLONE3) and runc_key(docker.runc) >= RUNC_WITH_ENOSYS
    ):
        unsure = f"; its runc {docker.runc} may let the C library do without clone3"
    cure = "docker run --rm {image} python3 -c 'import threading; threading.Thread().start()'  # try it"
    yield HOST_CHECKS.finding(
        "host-docker-old",
        f"Docker Engine {version} is older than {DOCKER_MINIMUM}{unsure}",
        seen=version + (f" of {title}" if title else ""),
        severity="warning" if unsure else None,
        cure=cure if unsure else None,
        image="IMAGE",
    )


def runc_key(version: str | None) -> tuple[int, ...]:
    """Orders 1.0.0-rc92 < 1.0.0-rc93 < 1.0.0; of none it is the least."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?:[-~]rc\.?(\d+))?", version or "")
    return (
        tuple(int(part or 10**6) if at == 3 else int(part) for at, part in enumerate(match.groups()))
        if match
        else ()
    )


def _space(wants: Mapping[str, Any], state: HostState, limits: Limits) -> Iterable[Finding]:
    directory = wants["directory"]
    free = state.free.get(directory)
    if directory in state.free and (free is None or free < DIRECTORY_BYTES):
        seen = "read-only" if free is None else f"{free} bytes free"
        yield HOST_CHECKS.finding(
            "host-disk-full", f"{directory} cannot be written", seen=seen, path=directory
        )
    root = state.docker.root
    if root and not state.docker.has_image:
        needed = limits.image_gigabytes * GIGA
        if state.archive_bytes is not None:
            needed = ARCHIVE_FACTOR * state.archive_bytes
        free = state.free.get(root) or 0
        if needed and free < needed:
            yield HOST_CHECKS.finding(
                "host-disk-image",
                f"{_size(free)} free at {root}, the image takes {_size(needed)}",
                seen=f"{_size(free)} free",
                expected=f"{_size(needed)} free",
                path=root,
            )
    if limits.weights_gigabytes and limits.weights_path and not state.weights_there:
        free = state.free.get(limits.weights_path) or 0
        if free < limits.weights_gigabytes * GIGA:
            yield HOST_CHECKS.finding(
                "host-disk-weights",
                f"{_size(free)} free for {limits.weights_path}, "
                f"the weights take {limits.weights_gigabytes:g} GB",
                seen=f"{_size(free)} free",
                path=limits.weights_path,
            )


def _size(number: float) -> str:
    return f"{number / GIGA:.1f} GB" if number < 100 * GIGA else f"{number / GIGA:.0f} GB"


def _memory(wants: Mapping[str, Any], state: HostState, limits: Limits) -> Iterable[Finding]:
    total, available = state.memory.get("MemTotal"), state.memory.get("MemAvailable")
    if total is not None and total < limits.memory_gigabytes * GIGA:
        yield HOST_CHECKS.finding(
            "host-memory",
            f"{_size(total)} of memory, {limits.memory_gigabytes:g} GB are demanded",
            seen=_size(total),
            expected=f"{limits.memory_gigabytes:g} GB",
        )
    elif available is not None and not state.own_running and available < wants.get("shm", 0):
        yield HOST_CHECKS.finding(
            "host-memory",
            f"{_size(available)} of memory available, "
            f"the containers' shared memory may take {_size(wants['shm'])}",
            seen=f"{_size(available)} available",
            expected=f"{_size(wants['shm'])} or more",
        )
    if state.shm_bytes is None or state.shm_bytes < SHM_BYTES:
        seen = "not mounted" if state.shm_bytes is None else f"{state.shm_bytes // 2**20} MB"
        yield HOST_CHECKS.finding("host-shm", f"/dev/shm: {seen}", seen=seen)


def _kernel(state: HostState) -> Iterable[Finding]:
    kernel = state.kernel
    if kernel.get("thp") == "never":
        yield HOST_CHECKS.finding("host-thp", "transparent huge pages are off", seen="never")
    if kernel.get("governor", "performance") != "performance":
        yield HOST_CHECKS.finding(
            "host-governor", f"CPU governor {kernel['governor']}", seen=kernel["governor"]
        )
    if kernel.get("swappiness", "0") != "0":
        yield HOST_CHECKS.finding(
            "host-swappiness", f"vm.swappiness is {kernel['swappiness']}", seen=kernel["swappiness"]
        )
    if kernel.get("numa_balancing", "0") != "0":
        yield HOST_CHECKS.finding(
            "host-numa-balancing",
            "NUMA balancing is on",
            seen=f"kernel.numa_balancing = {kernel['numa_balancing']}",
        )


def facts(wants: Mapping[str, Any], state: HostState, limits: Limits) -> dict[str, Any]:
    """What is compared between servers, and what people want to see of one."""
    nic = carrying(state.nics, wants["address"])
    return {
        "interface": nic.name if nic else None,
        "mtu": nic.mtu if nic else None,
        "driver": state.driver,
        "firmware": list(state.firmware),
        "architecture": state.machine,
        "docker": state.docker.version,
        # None where no engine answers; of the archive, where none is asked for.
        "image": state.docker.has_image if state.docker.version else None,
        "image_archive": state.archive_bytes is not None if limits.image_archive else None,
        "storage_driver": state.docker.driver,
        "memory_gigabytes": round(state.memory.get("MemTotal", 0) / GIGA, 1),
        "firewall": list(state.firewall),
        "kernel": dict(state.kernel),
    }


def samples(wants: Mapping[str, Any], state: HostState) -> list[int]:
    """The ports to listen on for a while, without those that somebody has: those of the plan, and both ends
    of every range that a library takes from."""
    taken = {holder.port for holder in state.holders}
    ports: set[int] = set()
    for row in wants["ports"]:
        if row["bound"]:
            ports |= set(range(row["first"], row["last"] + 1))
        elif row.get("instance") is None:
            ports |= {row["first"], row["last"]}
    return sorted(ports - taken)


def summary(findings: Iterable[Finding]) -> str:
    """One line on the server, then one line a finding."""
    found = list(findings)
    return "\n".join([counted(found), *brief(found)])
