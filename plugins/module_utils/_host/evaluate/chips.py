# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the planned chips are present, healthy and free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..._findings import Finding, numbers
from ..._hccn.catalogue import chip_words
from ..._hccn.parsers import NpuChip, version_key
from .. import parsers
from ..catalogue import HOST_CHECKS
from ..query.server import HostState, full_chips
from ..requirements import HostRequirements, Limits

# Characters of npu-smi's output that a finding shows.
SHOWN = 1500


def devices(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    if state.devices_missing:
        suffixes = {device: device[len("/dev/davinci") :] for device in state.devices_missing}
        chips = [int(suffix) for suffix in suffixes.values() if suffix.isdigit()]
        others = [device for device, suffix in suffixes.items() if not suffix.isdigit()]
        names = [
            f"/dev/davinci{numbers(chips)}" if len(chips) < 2 else f"/dev/davinci{{{numbers(chips)}}}"
        ] * bool(chips)
        present = len(requirements.devices) - len(state.devices_missing)
        yield HOST_CHECKS.finding(
            "host-device-missing",
            f"{', '.join([*names, *others])} missing",
            chips=chips,
            seen=f"{present} of {len(requirements.devices)} devices",
        )
    if state.paths_missing:
        yield HOST_CHECKS.finding(
            "host-mount-missing",
            f"the containers mount {', '.join(state.paths_missing)}, which does not exist",
            seen="no such file or directory",
            paths=" ".join(state.paths_missing),
        )

    if state.npu_smi:
        yield HOST_CHECKS.finding(
            "host-npu-smi-elsewhere",
            f"npu-smi is at {state.npu_smi}, but the containers mount {requirements.npu_smi}",
            seen=state.npu_smi,
            found=state.npu_smi,
            path=requirements.npu_smi,
        )


def npus(requirements: HostRequirements, state: HostState, limits: Limits) -> Iterable[Finding]:
    if state.driver and requirements.driver and version_key(state.driver) < version_key(requirements.driver):
        yield HOST_CHECKS.finding(
            "host-driver-older",
            f"driver {state.driver} is older than {requirements.driver}, which the release recommends",
            seen=state.driver,
            expected=f"{requirements.driver} or newer",
        )
    minimum = limits.firmware_minimum or requirements.firmware
    old = [version for version in state.firmware if minimum and version_key(version) < version_key(minimum)]
    if old:
        yield HOST_CHECKS.finding(
            "host-firmware-older",
            f"firmware {', '.join(old)} is older than {minimum}",
            seen=", ".join(old),
            expected=f"{minimum} or newer",
        )
    if state.npu is None:
        return
    by_place = {(chip.npu, chip.chip): chip for chip in state.npu.chips}
    busy: dict[tuple[int, str], list[int]] = defaultdict(list)
    with_process = set()
    for process in state.npu.processes:
        chip = by_place.get((process.npu, process.chip))
        number = chip.phy_id if chip else 2 * process.npu + process.chip
        with_process.add(number)
        if number in requirements.chips and process.pid not in state.own_pids:
            busy[(process.pid, process.name)].append(number)
    for (pid, name), chips in busy.items():
        program = state.commands.get(pid) or name
        yield HOST_CHECKS.finding(
            "host-npu-process",
            f"{chip_words(chips)}: in use by {program} (pid {pid}), which does not belong to this deployment",
            chips=chips,
            seen=f"{name}, pid {pid}",
            pids=pid,
        )
    if requirements.chips and not state.npu.processes_known:
        unread = "; ".join(state.npu.unread) or "no process table"
        yield HOST_CHECKS.finding(
            "host-npu-unread",
            "which processes use the chips is unknown: npu-smi's process table could not be parsed",
            seen=unread[:SHOWN],
        )
    # The sole holder of a chip also has its memory; if others may have the chip too, that is unknown.
    held = {chip for holder in state.chip_holders if holder.alone for chip in holder.chips}
    # While the deployment itself runs, memory is in use, whether npu-smi shows its processes or not.
    if not state.own_running:
        full = full_chips(state.npu.chips, set(requirements.chips) - with_process - held)
        if full:
            yield _used_memory(state, full)
    per_npu = max(
        (sum(1 for chip in state.npu.chips if chip.npu == npu) for npu, _chip in by_place), default=0
    )
    here = parsers.hardware((chip.name for chip in state.npu.chips), per_npu)
    made_for = parsers.image_hardware(requirements.image)
    if here and made_for and here != made_for:
        yield HOST_CHECKS.finding(
            "host-image-hardware",
            f"{requirements.image} is not for Atlas {here.upper()}",
            seen=f"{state.npu.chips[0].name}, {per_npu} chips an NPU; image for {made_for.upper()}",
        )


def _used_memory(state: HostState, full: Sequence[NpuChip]) -> Finding:
    """Return the finding about memory in use without a listed process; it recommends a reset only if all
    chips are unused.

    On Atlas A3, and on Atlas A2 with HCCS, ``npu-smi set -t reset`` resets all chips of the server, whichever
    is named (npucli/npu_chip_set.c: reset_server_handle_amp), so no chip may be in use.
    """
    numbers_of = [chip.phy_id for chip in full]
    worst = max(full, key=lambda chip: (chip.hbm_used or 0) / (chip.hbm_total or 1))
    seen = f"{worst.hbm_used} of {worst.hbm_total} MB on chip {worst.phy_id}"
    pids = sorted({pid for chip in numbers_of for pid in state.openers.get(chip, ())})
    what, cure = "but no process is listed", None
    if pids:
        who = ", ".join(f"{state.commands.get(pid) or 'a process'} (pid {pid})" for pid in pids[:4])
        more = f" and {len(pids) - 4} more" if len(pids) > 4 else ""
        what = f"the device is open in {who}{more}"
        cure = f"ps -fp {','.join(map(str, pids))}"
    elif state.npu is None or not state.npu.processes_known or not state.root:
        what = "but the processes that use it could not be read"
        cure = "npu-smi info; fuser -v /dev/davinci*; docker ps  # as root: find the service that uses it"
    elif _chip_users(state):
        cure = (
            "fuser -v /dev/davinci*; npu-smi info  # a reset would affect all chips of the server, and "
            f"others are in use: {_chip_users(state)}"
        )
    return HOST_CHECKS.finding(
        "host-hbm-used",
        f"{chip_words(numbers_of)}: memory in use, {what}",
        chips=numbers_of,
        seen=seen,
        cure=cure,
    )


def _chip_users(state: HostState) -> str:
    """Return the users of chips as text, by npu-smi, open devices and containers; empty if none."""
    processes = state.npu.processes if state.npu else ()
    pids = {process.pid for process in processes}.union(*state.openers.values())
    users = [f"pid {pid}" for pid in sorted(pids)]
    users += [f"container {holder.name}" for holder in state.chip_holders]
    return ", ".join(users[:4]) + (f" and {len(users) - 4} more" if len(users) > 4 else "")


def held_chips(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    """Yield findings about containers outside the deployment that have planned chips."""
    npu_of = {chip.phy_id: chip.npu for chip in state.npu.chips} if state.npu else {}
    for holder in state.chip_holders:
        chips = sorted(set(holder.chips) & set(requirements.chips))
        if not chips:
            continue
        shared = all(npu_of.get(chip) in state.shared_npus for chip in chips)
        alone = holder.alone and not shared
        yield HOST_CHECKS.finding(
            "host-chip-held",
            f"{chip_words(chips)}: {'held by' if alone else 'available to'} container {holder.name}, "
            "which does not belong to this deployment",
            chips=chips,
            seen=holder.seen + ("; device-share is on" if shared else ""),
            severity=None if alone else "warning",
            name=holder.name.split(" ")[0],
            # For other runtimes only a process is known.
            cure=f"ps -fp {holder.pid}; cat /proc/{holder.pid}/cgroup  # whose is it? then stop it with its "
            "own tool, or leave its chips out of pd_chips"
            if holder.pid
            else None,
        )
