# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard of a deployment on a server."""

from __future__ import annotations

import os
import socket
import sys
import time

# Seconds between two signs of life; systemd waits for them for three times as long.
ALIVE = 20.0


def tell(state: str) -> None:
    """Tell systemd a state (sd_notify(3)); nothing where it does not ask."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def main() -> int:
    """Run the guard (``run CONFIG``), or say what it sees (``status``); return the exit status."""
    words = sys.argv[1:]
    if words[:1] == ["run"] and len(words) == 2:
        tell("READY=1")
        while True:
            time.sleep(ALIVE)
            tell("WATCHDOG=1")
    if words == ["status"]:
        return 0
    sys.stderr.write("usage: pd-guard status\n")
    return 2
