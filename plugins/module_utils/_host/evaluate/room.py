# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the disks and the memory have room for the image, the weights and the caches."""

from __future__ import annotations

from collections.abc import Iterable

from ..._findings import Finding
from ..catalogue import HOST_CHECKS
from ..query.server import HostState
from ..requirements import HostRequirements, Limits

GIGA = 10**9

# Unpacking needs about the archive's size, and some more for temporary files.
ARCHIVE_FACTOR = 1.2

# Launch scripts and the key.
DIRECTORY_BYTES = 65536

SHM_BYTES = 64 * 2**20


def disk_space(requirements: HostRequirements, state: HostState, limits: Limits) -> Iterable[Finding]:
    directory = requirements.directory
    free = state.free_space.get(directory)
    if directory in state.free_space and (free is None or free < DIRECTORY_BYTES):
        seen = "read-only" if free is None else f"{free} bytes free"
        yield HOST_CHECKS.finding("host-disk-full", f"{directory} is not writable", seen=seen, path=directory)
    root = state.docker.root
    if root and not state.docker.has_image:
        needed = limits.image_gigabytes * GIGA
        if state.archive_bytes is not None:
            needed = ARCHIVE_FACTOR * state.archive_bytes
        free = state.free_space.get(root) or 0
        if needed and free < needed:
            yield HOST_CHECKS.finding(
                "host-disk-image",
                f"{_size(free)} free at {root}, but the image needs {_size(needed)}",
                seen=f"{_size(free)} free",
                expected=f"{_size(needed)} free",
                path=root,
            )
    if limits.weights_gigabytes and limits.weights_path and not state.weights_present:
        free = state.free_space.get(limits.weights_path) or 0
        if free < limits.weights_gigabytes * GIGA:
            yield HOST_CHECKS.finding(
                "host-disk-weights",
                f"{_size(free)} free for {limits.weights_path}, "
                f"but the weights need {limits.weights_gigabytes:g} GB",
                seen=f"{_size(free)} free",
                path=limits.weights_path,
            )


def _size(number: float) -> str:
    return f"{number / GIGA:.1f} GB" if number < 100 * GIGA else f"{number / GIGA:.0f} GB"


def memory(requirements: HostRequirements, state: HostState, limits: Limits) -> Iterable[Finding]:
    total, available = state.memory.get("MemTotal"), state.memory.get("MemAvailable")
    if total is not None and total < limits.memory_gigabytes * GIGA:
        yield HOST_CHECKS.finding(
            "host-memory",
            f"{_size(total)} of memory, but {limits.memory_gigabytes:g} GB are required",
            seen=_size(total),
            expected=f"{limits.memory_gigabytes:g} GB",
        )
    elif available is not None and not state.own_running and available < requirements.shm:
        yield HOST_CHECKS.finding(
            "host-memory",
            f"{_size(available)} of memory available, "
            f"but the containers' shared memory may need {_size(requirements.shm)}",
            seen=f"{_size(available)} available",
            expected=f"{_size(requirements.shm)} or more",
        )
    if state.shm_bytes is None or state.shm_bytes < SHM_BYTES:
        seen = "not mounted" if state.shm_bytes is None else f"{state.shm_bytes // 2**20} MB"
        yield HOST_CHECKS.finding("host-shm", f"/dev/shm: {seen}", seen=seen)
