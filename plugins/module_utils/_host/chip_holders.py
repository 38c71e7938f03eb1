# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Finds containers outside the deployment that hold chips, and processes that have them open.

The driver gives a chip to one unprivileged container at a time, whether it computes or sleeps, from its first
use on: the next one stops with `dcmi model initialized failed, because the device is used. ret is -8020`
(vllm-ascend issues 632 and 2698). A privileged container takes no chip for itself, and `npu-smi set -t
device-share` lets several have one.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._docker.client import DockerError, get
from .._hccn.query import read_file
from . import parsers

# capabilities(7): privileged containers have all of them, and only who has them all is privileged to the
# driver (uda_access.c: uda_is_admin_task). The last one that each kernel has is CAP_AUDIT_READ.
_PRIVILEGED = (1 << 38) - 1
# For all containers: the engine does not answer for one that it is stuck with, and the check goes on.
_SECONDS = 10


@dataclass(frozen=True)
class ChipHolder:
    """A running container outside the deployment.

    ``alone``: its chips are not available to others; ``pid``: one of its processes, if the Docker Engine does
    not know the container.
    """

    name: str
    chips: tuple[int, ...]
    alone: bool
    seen: str
    pid: int | None = None


def of_docker(containers: Iterable[Mapping[str, Any]], own: set[str], socket_path: str) -> list[ChipHolder]:
    """Return the Docker Engine's running containers that have chips, without the deployment's own.

    ``containers``: the Docker Engine's list; ``own``: ids of the deployment's; ``socket_path``: its socket.
    """
    found = []
    begin = time.monotonic()
    for container in containers:
        if container["Id"] in own:
            continue
        if time.monotonic() - begin > _SECONDS:
            break
        # A container that ends meanwhile no longer holds anything.
        with suppress(DockerError, ValueError):
            path = f"/containers/{quote(container['Id'])}/json"
            details = json.loads(get(path, socket_path, _SECONDS))
            holder = holder_of(details)
            if holder is not None:
                found.append(holder)
    return found


def holder_of(details: Mapping[str, Any]) -> ChipHolder | None:
    """Return the holder from the output of ``docker inspect``, or None if the container has no chips."""
    host, config = details.get("HostConfig") or {}, details.get("Config") or {}
    name = str(details.get("Name") or details.get("Id", "")[:12]).lstrip("/")
    paths = (str(device.get("PathOnHost", "")) for device in host.get("Devices") or ())
    devices = {chip for chip in map(parsers.chip_of_device, paths) if chip is not None}
    visible = parsers.parse_visible_devices(config.get("Env") or ())
    # Only that runtime reads the variable.
    mounts = "ascend" in str(host.get("Runtime") or "").lower()
    chips = tuple(sorted({*devices, *visible}))
    if not chips:
        return None
    privileged = bool(host.get("Privileged"))
    seen = []
    if devices:
        seen.append(f"--device /dev/davinci{_numbers(devices)}")
    if visible:
        seen.append(f"ASCEND_VISIBLE_DEVICES={_numbers(visible)}, runtime {host.get('Runtime') or 'unknown'}")
    if privileged:
        seen.append("--privileged")
    return ChipHolder(name, chips, not privileged and bool(devices or mounts), "; ".join(seen))


def _numbers(chips: Iterable[Any]) -> str:
    numbers = [str(chip) for chip in sorted(chips)]
    return numbers[0] if len(numbers) == 1 else "{" + ",".join(numbers) + "}"


def of_other_runtimes(
    pids: Iterable[int],
    known: set[str],
    containers_of: Callable[[int], list[str]],
    names: Mapping[str, str],
) -> list[ChipHolder]:
    """Return the containers whose devices the Docker Engine does not report, found by their devices.

    These are containers of other runtimes (Kubernetes, podman) and those that get devices from a hook or CDI.
    Every container has its own /dev, which is visible through one of its processes. A privileged container
    has all devices of the server, whether it uses them or not, so it is skipped. ``pids``: the processes to
    check; ``known``: ids of containers to skip; ``containers_of``: returns the ids of a process's containers,
    the innermost last; ``names``: of the Docker Engine's containers, by id.
    """
    found: dict[str, ChipHolder] = {}
    namespaces = set()
    server_dev = Path("/dev").stat().st_dev
    for pid in pids:
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in namespaces:
                continue
            namespaces.add(namespace)
            if Path(f"/proc/{pid}/root/dev").stat().st_dev == server_dev:
                continue
            chips = _chips_in(f"/proc/{pid}/root/dev")
            ids = containers_of(pid)
            if not chips or set(ids) & known:
                continue
            capabilities = parsers.parse_capabilities(read_file(f"/proc/{pid}/status") or "")
            if capabilities is not None and capabilities & _PRIVILEGED == _PRIVILEGED:
                continue
            comm = (read_file(f"/proc/{pid}/comm") or "?").strip()
            name = f"{ids[-1][:12]} ({comm}, pid {pid})" if ids else f"of {comm} (pid {pid})"
            docker_name = _innermost(ids, names)
            alone = capabilities is not None
            # A container has several mount namespaces if it runs systemd, or containers of its own.
            found.setdefault(
                ids[-1] if ids else name,
                ChipHolder(
                    docker_name or name,
                    chips,
                    alone,
                    f"/dev/davinci{_numbers(chips)} in it",
                    None if docker_name else pid,
                ),
            )
    return list(found.values())


def _innermost(ids: Sequence[str], names: Mapping[str, str]) -> str | None:
    """Return the name of the innermost of these containers that the Docker Engine knows, or None.

    ``ids``: the innermost last; ``names``: of the Docker Engine's containers, by id.
    """
    return next((names[identity] for identity in reversed(ids) if identity in names), None)


def by_driver(
    found: Iterable[ChipHolder],
    namespaces: Iterable[tuple[int, Iterable[int]]],
    opened: set[int] | None,
    own: set[str],
    containers_of: Callable[[int], list[str]],
    names: Mapping[str, str],
) -> list[ChipHolder]:
    """Return the holders, corrected by the driver's list of processes that hold chips.

    A container acquires its chips when it opens them for the first time. So does a process of a user other
    than root in its own mount namespace. ``found``: the holders so far; ``namespaces``: the driver's list of
    processes with their chips (parsers.parse_namespaces); ``opened``: the chips that are open in any such
    namespace, which may be more (parsers.parse_udevices), or None if unknown; ``own``: ids of the
    deployment's containers; ``containers_of``: returns the ids of a process's containers, the innermost last;
    ``names``: of the Docker Engine's containers, by id.
    """
    chips_by_pid = [(pid, set(chips), bool(set(containers_of(pid)) & own)) for pid, chips in namespaces]
    foreign = [(pid, chips) for pid, chips, is_own in chips_by_pid if not is_own]
    opened_by_others = (opened or set()).difference(
        *(chips for _pid, chips, is_own in chips_by_pid if is_own)
    )
    taken = opened_by_others.union(*(chips for _pid, chips in foreign))
    holders = [
        holder
        if opened is None or taken & set(holder.chips) or not holder.alone
        else replace(
            holder, alone=False, seen=f"{holder.seen}; according to the driver it has not used them yet"
        )
        for holder in found
    ]
    known = {chip for holder in holders if holder.alone for chip in holder.chips}
    for pid, chips in foreign:
        comm = read_file(f"/proc/{pid}/comm")
        # The first process may have ended, so its container is unknown and may be the deployment's own.
        if chips <= known or (comm is None and own):
            continue
        docker_name = _innermost(containers_of(pid), names)
        holders.append(
            ChipHolder(
                docker_name or f"of {(comm or 'a process that has ended').strip()} (pid {pid})",
                tuple(sorted(chips - known)),
                True,
                f"root_tgid {pid} in /proc/uda/namespace_node",
                None if docker_name else pid,
            )
        )
    return holders


def _chips_in(folder: str) -> tuple[int, ...]:
    chips = []
    with os.scandir(folder) as entries:
        for entry in entries:
            chip = parsers.chip_of_device(f"/dev/{entry.name}")
            if chip is not None and stat.S_ISCHR(entry.stat(follow_symlinks=False).st_mode):
                chips.append(chip)
    return tuple(sorted(chips))


def openers(pids: Iterable[int], chips: Iterable[int]) -> dict[int, list[int]]:
    """Return the processes that have a chip's device open, by chip; as root also those in containers.

    ``pids``: the processes to check; ``chips``: the chips to look for.
    """
    wanted = set(chips)
    devices = device_numbers("/dev")
    found: dict[int, list[int]] = {}
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with suppress(OSError):
                    path = re.sub(r" \(deleted\)$", "", os.readlink(handle.path))
                    chip = parsers.chip_of_device(path)
                    if chip is None:
                        continue
                    # A container may have the device under another name.
                    chip = devices.get(Path(handle.path).stat().st_rdev, chip)
                    if chip in wanted and pid not in found.setdefault(chip, []):
                        found[chip].append(pid)
    return found


def device_numbers(folder: str) -> dict[int, int]:
    """Return the chips by device number; empty if the numbers are not distinct."""
    found: dict[int, int] = {}
    chips = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            chip = re.fullmatch(r"davinci(\d+)", entry.name)
            with suppress(OSError):
                if chip and stat.S_ISCHR(entry.stat().st_mode):
                    found[entry.stat().st_rdev] = int(chip.group(1))
                    chips += 1
    return found if len(found) == chips else {}
