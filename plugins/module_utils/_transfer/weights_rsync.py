# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""rsync: what its daemon on each server serves, and how its words are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = "pd_rollout"

# rsync's exit codes: some files could not be read or written; some were gone when their turn came.
PARTIAL_TRANSFER, VANISHED = 23, 24

NO_SPACE = "No space left on device"

REFUSED = "Connection refused"

READ_FAILED = re.compile(
    r"(?:send_files failed to open|read errors mapping|opendir|link_stat|readlink_stat).*", re.IGNORECASE
)

RECEIVED = re.compile(r"^Total bytes received: ([\d,.]+)", re.MULTILINE)

TRANSFERRED = re.compile(r"^Number of regular files transferred: ([\d,.]+)", re.MULTILINE)


@dataclass
class Job:
    """What one server has to do."""

    name: str
    path: str
    address: str
    port: int
    secret: str
    # Servers to take from, the nearest first: [{"name": …, "address": …}]; empty on the one that has them.
    sources: list[Any] = field(default_factory=list)
    # Addresses that may take from here.
    clients: list[Any] = field(default_factory=list)
    # MB/s (10⁶ bytes), 0: as fast as it goes.
    bandwidth: float = 0.0
    # Seconds without an answer after which the next source is asked.
    patience: float = 60.0
    # Seconds after which the process ends by itself when nobody asks, takes or gives.
    idle: float = 120.0
    # Relative name → SHA-256, of those files for which it is known.
    hashes: dict[str, Any] = field(default_factory=dict)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def daemon_config(job: Job, folder: Path, weights: Path) -> str:
    """The configuration of rsync's daemon; it is read anew for each connection."""
    return "\n".join(
        [
            f"pid file = {folder}/rsyncd.pid",
            f"log file = {folder}/rsyncd.log",
            f"address = {job.address}",
            f"port = {job.port}",
            "uid = root",
            "gid = root",
            # Links of a hub's cache lead out of the directory.
            "use chroot = no",
            "read only = yes",
            "list = no",
            # Names of clients are of no use, and a name server may be far.
            "reverse lookup = no",
            f"auth users = {USER}",
            f"secrets file = {folder}/secrets",
            f"hosts allow = {' '.join(job.clients) or '127.0.0.1'}",
            "hosts deny = *",
            "transfer logging = yes",
            "timeout = 300",
            "",
            "[control]",
            f"path = {folder}/public",
            "",
            "[weights]",
            f"path = {weights}",
            # What is hidden is not complete, or of no use elsewhere.
            "exclude = .*",
            "",
        ]
    )


def last_line(text: str) -> str:
    """The line of rsync's output that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.startswith(("rsync", "@ERROR"))]
    return lines[0] if lines else ""
