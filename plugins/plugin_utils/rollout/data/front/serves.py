# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the front of a server has a router that serves: serves.py ADDRESS PORT, of its metrics.

keepalived runs it every second, and moves an address that fronts share away from one that does not.
"""

from __future__ import annotations

import socket
import sys


def main(address: str, port: int) -> int:
    """Return the exit status: 0 if the front serves."""
    try:
        with socket.create_connection((address, port), 1) as link:
            link.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return int(b" 200 " not in link.recv(64))
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
