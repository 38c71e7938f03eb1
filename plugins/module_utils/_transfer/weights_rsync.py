# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""rsync: what its daemon on each server serves, and how its words are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .weights_files import staging

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


@dataclass(frozen=True)
class Peer:
    """Another server of the chain: its name in the inventory, and the address on which it serves."""

    name: str
    address: str


@dataclass
class Job:
    """One server's part of the copy."""

    name: str
    path: str
    address: str
    port: int
    secret: str
    # Servers to fetch from, the nearest first; empty on the one that has the weights.
    sources: list[Peer] = field(default_factory=list)
    # Addresses of servers that may fetch from this one.
    clients: list[str] = field(default_factory=list)
    # MB/s (10⁶ bytes), 0: as fast as it goes.
    bandwidth: float = 0.0
    # Seconds without an answer after which the next source is asked.
    stall_timeout: float = 60.0
    # Seconds after which the process ends by itself if nobody asks for its status and nothing is fetched.
    idle_timeout: float = 120.0
    # Relative name → SHA-256, of those files for which it is known.
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The directory of the complete weights."""
        return Path(self.path)

    @property
    def staging(self) -> Path:
        """The directory in which they grow."""
        return staging(self.weights)


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
