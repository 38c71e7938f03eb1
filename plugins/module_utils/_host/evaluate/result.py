# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the state of a server against the plan's requirements. Pure functions, no Ansible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..._findings import Finding, brief, counted, ordered
from ..catalogue import HOST_CHECKS
from ..query.server import HostState
from ..requirements import HostRequirements, Limits
from .chips import devices, held_chips, npus
from .docker import docker_engine, image_architecture
from .front import front
from .network import network, nic_with_address, ports_free
from .room import GIGA, disk_space, memory


def judge(requirements: HostRequirements, state: HostState, limits: Limits) -> list[Finding]:
    """Return every finding about this server, the worst first.

    ``requirements``: the plan's requirements for it; ``state``: what was read on it; ``limits``: the
    thresholds that the role's variables set.
    """
    return ordered(
        [
            *_root(state),
            *_directory(requirements, state),
            *devices(requirements, state),
            *npus(requirements, state, limits),
            *held_chips(requirements, state),
            *image_architecture(requirements, state),
            *ports_free(requirements, state),
            *network(requirements, state),
            *docker_engine(state),
            *front(requirements, state),
            *disk_space(requirements, state, limits),
            *memory(requirements, state, limits),
            *_kernel(state),
        ]
    )


def _root(state: HostState) -> Iterable[Finding]:
    if not state.root:
        yield HOST_CHECKS.finding("host-not-root", "the check does not run as root", seen="another user")


def _directory(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    if state.directory_open:
        yield HOST_CHECKS.finding(
            "host-directory-open",
            f"users other than root can change what root runs from {requirements.directory}",
            seen=state.directory_open,
            path=state.directory_open.split(" ")[0],
        )


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


def facts(requirements: HostRequirements, state: HostState, limits: Limits) -> dict[str, Any]:
    """Return the facts that are compared between servers or shown in the report."""
    nic = nic_with_address(state.nics, requirements.address)
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


def sample_ports(requirements: HostRequirements, state: HostState) -> list[int]:
    """Return the free ports on which to listen temporarily: those of the plan, and both ends of every range
    from which a library picks ports."""
    taken = {holder.port for holder in state.port_holders}
    ports: set[int] = set()
    for row in requirements.ports:
        if row.bound:
            ports |= set(range(row.first, row.last + 1))
        elif row.instance is None:
            ports |= {row.first, row.last}
    return sorted(ports - taken)


def summary(findings: Iterable[Finding]) -> str:
    """Return one line for the server, then one line for each finding."""
    found = list(findings)
    return "\n".join([counted(found), *brief(found)])
