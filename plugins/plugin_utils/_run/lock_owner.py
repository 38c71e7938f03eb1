# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Identifies the run that holds a lock, so that it can be told later whether that run still exists."""

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
    """Return the start time of a process in the system's own format; None if there is no such process."""
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
    """Return a unique name of this controller, from which nothing about it can be learned.

    Containers with the host's network share its host name, and containers of one image their machine-id. But
    a process ID means a different process in each of them (pid_namespaces(7)).
    """
    try:
        identity = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        identity = ""
    words = f"{socket.gethostname()} {identity} {_numbering()}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _numbering() -> str:
    """Return the PID namespace of this process; empty if there are none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def boot() -> str:
    """Return the ID of the controller's current boot; empty if it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def describe(pid: int, deployment: str) -> dict[str, Any]:
    """Return the owner of a lock, for the run with process ID ``pid`` on this controller."""
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
    """Return why a lock counts as abandoned, or None if its run may still be going on.

    holder: the lock's holder, as returned by the module.
    max_age: maximum age in seconds, for a run that has never given a sign of life.
    max_silence: maximum seconds without a sign of life, for a run that has given one.
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
    """Return whether a process of another user exists, which /proc may hide (hidepid, proc(5))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def span(seconds: float) -> str:
    """Format a duration with two units: 45 s, 3 min 5 s, 2 h 10 min."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def who(holder: Mapping[str, Any]) -> str:
    """Return the owner in words."""
    if not holder.get("user"):
        return "Somebody"
    return f"{holder['user']} on {holder.get('controller')} (process {holder.get('pid')})"


def refusal(holder: Mapping[str, Any], host: str, path: str, max_silence: float) -> Finding:
    """Return the finding for a rollout that is refused because of another one.

    holder: the lock's holder, as returned by the module.
    host, path: server and path of the lock.
    max_silence: seconds without a sign of life after which the lock can be taken over.
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
