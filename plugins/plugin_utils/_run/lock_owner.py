# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who runs a rollout, in a form that tells later whether that run is still there."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...module_utils._findings import Finding
from ...module_utils._lock import LOCK_CHECKS


def process_start(pid: int) -> str | None:
    """When a process began, in the system's own words; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        # A controller without /proc (macOS).
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or None
    except ProcessLookupError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def machine() -> str:
    """A name of this controller that no other has, and that tells nothing about it.

    Containers with the host's network share its name, and those of one image their machine-id; but a number
    of a process means another process in each of them (pid_namespaces(7)).
    """
    try:
        identity = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        identity = ""
    words = f"{socket.gethostname()} {identity} {_numbering()}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _numbering() -> str:
    """The namespace that this process has its number in; empty where there are none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def boot() -> str:
    """This boot of the controller; empty where that cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def describe(pid: int, deployment: str) -> dict[str, Any]:
    """The owner that the process `pid` of this controller is."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"
    started = process_start(pid) or ""
    return {
        "run": f"{pid}-{started}-{machine()}-{boot()[:8]}".replace(" ", "_"),
        "user": user,
        "controller": socket.gethostname(),
        "machine": machine(),
        "boot": boot(),
        "pid": pid,
        "started": started,
        "deployment": deployment,
    }


def left_behind(holder: Mapping[str, Any], max_age: float, max_silence: float) -> str | None:
    """Why a lock counts as left behind, or None when its run may still go on.

    `max_silence`: seconds without a sign of life, of a run that gave one; `max_age`: seconds of any other.
    """
    if holder.get("silent") is not None:
        if holder["silent"] > max_silence:
            return f"its last sign of life was {span(holder['silent'])} ago"
    elif holder["age"] > max_age:
        return f"it is {span(holder['age'])} old, more than {span(max_age)}"
    if holder.get("machine") == machine():
        if holder.get("boot") != boot():
            return "this controller has been rebooted since"
        pid = int(holder.get("pid") or 0)
        began = process_start(pid)
        if began != holder.get("started") and not (began is None and _hidden(pid)):
            return f"its process {pid} has ended without releasing it"
    return None


def _hidden(pid: int) -> bool:
    """Whether there is a process of another user, which /proc may not show (hidepid, proc(5))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def span(seconds: float) -> str:
    """A length of time in two units: 45 s, 3 min 5 s, 2 h 10 min."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def who(holder: Mapping[str, Any]) -> str:
    """The owner in words."""
    if not holder.get("user"):
        return "Somebody"
    return f"{holder['user']} on {holder.get('controller')} (process {holder.get('pid')})"


def refusal(holder: Mapping[str, Any], host: str, path: str, max_silence: float) -> Finding:
    """Why a second rollout does not begin.

    holder: who has the lock, as its module returns it; host, path: where that is.
    max_silence: seconds without a sign of life after which the lock may be taken.
    """
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(holder["since"])))
    what = holder.get("deployment") or "a deployment"
    seen = None
    if holder.get("silent") is not None:
        seen = (
            f"its last sign of life was {span(holder['silent'])} ago; after {span(max_silence)} without one "
            "the lock can be taken over"
        )
    return LOCK_CHECKS.finding(
        "lock-held",
        f"{who(holder)} has been rolling out {what} on {host} since {since}, for {span(holder['age'])}",
        host=host,
        path=path,
        seen=seen,
    )
