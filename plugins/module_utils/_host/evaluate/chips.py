# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the planned chips are present, healthy and free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..._findings import Finding, numbers
from ..._hccn.catalogue import chip_words
from ..._hccn.parsers import NpuChip, version_key
from .. import parsers
from ..catalogue import HOST_CHECKS
from ..query.server import HostState, full_chips
from .room import Limits

# Characters of npu-smi's output that a finding shows.
SHOWN = 1500


def devices(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
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
            f"the containers mount {', '.join(state.paths_missing)}, which does not exist",
            seen="no such file or directory",
            paths=" ".join(state.paths_missing),
        )

    if state.npu_smi:
        yield HOST_CHECKS.finding(
            "host-npu-smi-elsewhere",
            f"npu-smi is at {state.npu_smi}, but the containers mount {wants['npu_smi']}",
            seen=state.npu_smi,
            found=state.npu_smi,
            path=wants["npu_smi"],
        )


def npus(wants: Mapping[str, Any], state: HostState, limits: Limits) -> Iterable[Finding]:
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
            f"{chip_words(chips)}: in use by {what} (pid {pid}), which does not belong to this deployment",
            chips=chips,
            seen=f"{name}, pid {pid}",
            pids=pid,
        )
    if wants["chips"] and not state.npu.processes_known:
        told = "; ".join(state.npu.unread) or "no process table"
        yield HOST_CHECKS.finding(
            "host-npu-unread",
            "which processes use the chips is unknown: npu-smi's process table could not be parsed",
            seen=told[:SHOWN],
        )
    # The sole holder of a chip also has its memory; if others may have the chip too, that is unknown.
    held = {chip for one in state.chip_holders if one.alone for chip in one.chips}
    # While the deployment itself runs, memory is in use, whether npu-smi shows its processes or not.
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
    elif _elsewhere(state):
        cure = (
            "fuser -v /dev/davinci*; npu-smi info  # a reset would affect all chips of the server, and "
            f"others are in use: {_elsewhere(state)}"
        )
    return HOST_CHECKS.finding(
        "host-hbm-used",
        f"{chip_words(numbers_of)}: memory in use, {what}",
        chips=numbers_of,
        seen=seen,
        cure=cure,
    )


def _elsewhere(state: HostState) -> str:
    """Return the users of chips as text, by npu-smi, open devices and containers; empty if none."""
    pids = {one.pid for one in (state.npu.processes if state.npu else ())}.union(*state.openers.values())
    names = [one.name for one in state.chip_holders]
    told = [f"pid {pid}" for pid in sorted(pids)] + [f"container {name}" for name in names]
    return ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")


def holders_of_chips(wants: Mapping[str, Any], state: HostState) -> Iterable[Finding]:
    """Yield findings about containers outside the deployment that have planned chips."""
    npu_of = {chip.phy_id: chip.npu for chip in state.npu.chips} if state.npu else {}
    for one in state.chip_holders:
        chips = sorted(set(one.chips) & set(wants["chips"]))
        if not chips:
            continue
        shared = all(npu_of.get(chip) in state.shared_npus for chip in chips)
        alone = one.alone and not shared
        yield HOST_CHECKS.finding(
            "host-chip-held",
            f"{chip_words(chips)}: {'held by' if alone else 'available to'} container {one.name}, "
            "which does not belong to this deployment",
            chips=chips,
            seen=one.seen + ("; device-share is on" if shared else ""),
            severity=None if alone else "warning",
            name=one.name.split(" ")[0],
            # For other runtimes only a process is known.
            cure=f"ps -fp {one.pid}; cat /proc/{one.pid}/cgroup  # whose is it? then stop it with its own "
            "tool, or leave its chips out of pd_chips"
            if one.pid
            else None,
        )
