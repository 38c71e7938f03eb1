# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How the transfer of an image or of weights to a server reads on the screen, and why it failed."""

from __future__ import annotations

from dataclasses import replace

from ...module_utils._findings import Finding
from ...module_utils._transfer import status as phases
from ...module_utils._transfer.catalogue import TRANSFER_CHECKS
from ...module_utils._transfer.status import TransferStatus


def megabytes(count: float) -> str:
    """Bytes in MB, with a decimal below 1 GB."""
    return f"{count / 1e6:,.1f}" if count < 1e9 else f"{count / 1e6:,.0f}"


def clock(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress(status: TransferStatus) -> str:
    """``61 %, 9,216 of 15,100 MB from registry.example, 112.4 MB/s, 0:52 left``."""
    phase, done, total = status.phase, status.done, status.total
    if phase == phases.WAITING:
        return "waiting for its source"
    if phase == phases.LOADING and done == total:
        return f"Docker unpacks {megabytes(done)} MB"
    words = f"{100 * done // total:.0f} %, {megabytes(done)} of {megabytes(total)} MB" if total else ""
    words = words or f"{megabytes(done)} MB"
    if phase in (phases.FETCHING, phases.LOADING):
        words += _speed(status)
        return f"loading, {words}" if phase == phases.LOADING else words
    return f"{words}, {phase}"


def _speed(status: TransferStatus) -> str:
    """Return from where it comes, how fast, and how long it will take, as far as known."""
    words = f" from {status.source}" if status.source and status.phase == phases.FETCHING else ""
    if status.rate > 0:
        words += f", {status.rate / 1e6:,.1f} MB/s"
        if status.total and status.done < status.total:
            words += f", {clock((status.total - status.done) / status.rate)} left"
    return words


def failure(host: str, status: TransferStatus, gone: str) -> Finding:
    """Return why a server did not get what was transferred to it.

    host: the server's name in the inventory.
    status: that of the transfer.
    gone: the code for a process that left no result.
    """
    if status.phase == phases.GONE or status.finding is None:
        return TRANSFER_CHECKS.finding(gone, host=host, seen="no process, and no result")
    return replace(status.finding, host=host)
