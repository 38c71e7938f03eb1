# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How the progress of a transfer reads on the screen. Pure functions; no Ansible."""

from __future__ import annotations

from typing import Any


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f}" if count < 1e9 else f"{count / 1e6:,.0f}"


def clock(seconds: float) -> str:
    """C(0:07), C(12:34) or C(1:02:03)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress(status: dict[str, Any]) -> str:
    """One line for the screen: MB of MB, MB/s, time left, from where."""
    done, total, rate = status.get("done", 0), status.get("total"), status.get("rate", 0.0)
    words = f"{megabytes(done)} MB"
    if total:
        words = f"{megabytes(done)} of {megabytes(total)} MB"
    if status["state"] == "copying":
        words += f", {rate / 1e6:,.1f} MB/s"
        if total and rate > 0 and done < total:
            words += f", {clock((total - done) / rate)} left"
        if status.get("source"):
            words += f", from {status['source']}"
    elif status["state"] == "waiting":
        return "waiting for its source"
    else:
        words += f", {status['state']}"
    return words
