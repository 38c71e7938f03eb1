# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Queries of the Docker Engine on this server with Python alone: its state, and whether it has reloaded.

The modules of community.docker need an engine that answers; these functions work before it does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .client import DEFAULT_SOCKET, DockerError, get

PID_FILE = "/var/run/docker.pid"
# Where packages install dockerd. The PATH of ssh sessions without a login shell may lack the last two.
SEARCH_PATH = "/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin:/snap/bin"
ANSWER_SECONDS = 10
POLL_SECONDS = 0.2


def info(socket_path: str = DEFAULT_SOCKET) -> dict[str, Any]:
    """Return the data of ``docker info``. Raises DockerError if the engine is not ready."""
    try:
        answer = json.loads(get("/info", socket_path, ANSWER_SECONDS))
    except ValueError as error:
        raise DockerError(f"{socket_path} did not answer with JSON") from error
    if not isinstance(answer, dict) or not answer.get("ServerVersion"):
        # Such an answer comes from an engine that is still starting, or whose containerd is dead.
        errors = "; ".join(answer.get("ServerErrors") or []) if isinstance(answer, dict) else ""
        raise DockerError(f"the engine is not ready: {errors or 'it reports no version'}")
    return answer


def wait_for_info(seconds: float, socket_path: str = DEFAULT_SOCKET) -> dict[str, Any]:
    """Return the data of ``docker info``, retrying for a number of seconds. Raises DockerError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return info(socket_path)
        except DockerError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)


def reload_events(since: float, until: float, socket_path: str = DEFAULT_SOCKET) -> list[dict[str, Any]]:
    """Return the engine's reload events between two times, in seconds since the epoch. Raises DockerError."""
    filters = quote(json.dumps({"type": ["daemon"], "event": ["reload"]}))
    body = get(f"/events?since={since:.9f}&until={until:.9f}&filters={filters}", socket_path, ANSWER_SECONDS)
    return [json.loads(line) for line in body.splitlines() if line.strip()]


def daemon_pid(pid_file: str = PID_FILE) -> int | None:
    """Return the process ID of the running dockerd from its pid file, or None."""
    try:
        pid = int(Path(pid_file).read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" else None


def daemon_arguments(pid: int | None) -> list[str]:
    """Return the command line of dockerd; empty if it is unknown."""
    if pid is None:
        return []
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def dockerd_path() -> str | None:
    """Return the path of dockerd, or None if it is not installed."""
    return shutil.which("dockerd", path=SEARCH_PATH)


def has_systemd() -> bool:
    """Return whether systemd is the init system (the test of sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def enabled_at_boot() -> bool | None:
    """Return whether the engine starts at boot; None if that is unknown."""
    if has_systemd():
        answer = subprocess.run(
            ["systemctl", "is-enabled", "docker.service"], capture_output=True, text=True, check=False
        ).stdout.strip()
        return {"enabled": True, "disabled": False}.get(answer)
    if Path("/etc/init.d/docker").exists():
        return any(Path("/etc").glob("rc[2345].d/S??docker"))
    return None
