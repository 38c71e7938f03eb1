# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Finds processes that listen on a port, and their containers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..._hccn.query import read_file
from .. import parsers


@dataclass(frozen=True)
class PortHolder:
    """A process that uses a port. ``own``: of a container, the front or the guard of this deployment."""

    port: int
    address: str
    listens: bool
    pid: int | None
    who: str
    own: bool


def in_container(pid: int, names: Mapping[str, str]) -> str:
    """Return the process's container as text, if the engine knows it: the innermost one, because the server
    itself may run in a container."""
    known = [identity for identity in containers_of(pid) if identity in names]
    return f" in container {names[known[0]]}" if known else ""


def containers_of(pid: int) -> list[str]:
    """Return the ids of the containers that a process runs in."""
    return parsers.parse_cgroup(read_file(f"/proc/{pid}/cgroup") or "")


def in_unit(pid: int, units: Iterable[str]) -> bool:
    """Return whether a process belongs to one of these units of systemd, given without their suffix."""
    groups = (line.strip().split("/") for line in (read_file(f"/proc/{pid}/cgroup") or "").splitlines())
    names = {f"{unit}.service" for unit in units}
    return any(not names.isdisjoint(group) for group in groups)


def command(pid: int) -> str:
    """Return the program of a process and its first argument, without what may be a secret."""
    words = (read_file(f"/proc/{pid}/cmdline") or "").split("\0")[:2]
    return " ".join(word for word in words if word)[:80] or (read_file(f"/proc/{pid}/comm") or "").strip()


def gather_port_holders(
    ports: Iterable[tuple[int, int]], own: set[str], names: Mapping[str, str], units: Iterable[str] = ()
) -> Iterable[PortHolder]:
    """Yield the processes that use any of these ports.

    ``ports``: ranges, with their ends; ``own``: ids of the deployment's containers; ``names``: of all
    containers, by id; ``units``: those of the deployment's front and guard.
    """
    ranges = list(ports)
    found: dict[int, parsers.Socket] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for sock in parsers.parse_sockets(read_file(path) or ""):
            planned = any(first <= sock.port <= last for first, last in ranges)
            if planned and sock.state not in (parsers.TIME_WAIT, parsers.CLOSED) and sock.inode:
                found[sock.inode] = sock
    if not found:
        return
    owners = owners_of(set(found))
    for inode, sock in found.items():
        pid = owners.get(inode)
        ids = containers_of(pid) if pid is not None else []
        where = in_container(pid, names) if pid is not None else ""
        who = f"{command(pid)} (pid {pid}){where}" if pid is not None else "an unknown process"
        ours = bool(set(ids) & own) or (pid is not None and in_unit(pid, units))
        yield PortHolder(sock.port, sock.address, sock.listens, pid, who, ours)


def owners_of(inodes: set[int]) -> dict[int, int]:
    """Return the processes that hold sockets, by the sockets' inodes."""
    found: dict[int, int] = {}
    for pid in process_ids():
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


def process_ids() -> list[int]:
    """Return the IDs of all processes."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
