# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Messages between the guards of a deployment: lines of JSON, each with an HMAC of the deployment's secret.

Both sides begin with a number of their own, from which with the secret the key of the connection follows. So
a line that somebody records cannot be sent again, on this connection or another. What is said is no secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
from typing import Any

# Bytes of a line at most.
LIMIT = 1 << 20
# Seconds for the beginning.
GREETING_SECONDS = 3.0


class WrongSecret(OSError):
    """The other side does not have the secret of this deployment, or is no guard."""


class Frames:
    """One side of a connection.

    link: the connection, with a timeout.
    secret: that of the deployment.
    side: ``server`` or ``client``; whoever accepts is the server.
    name: what this side is called; the other side's name is in ``other``.

    Raises OSError.
    """

    def __init__(self, link: socket.socket, secret: bytes, side: str, name: str) -> None:
        self._link, self._side = link, side
        self._their_side = "client" if side == "server" else "server"
        self._reader = link.makefile("rb")
        self._sent = self._received = 0
        mine = secrets.token_hex(16)
        link.sendall(f"{mine}\n".encode())
        theirs = self._reader.readline(64).decode("ascii", "replace").strip()
        if len(theirs) != len(mine):
            raise WrongSecret("no guard answers there")
        pair = f"{mine} {theirs}" if side == "server" else f"{theirs} {mine}"
        self._key = hmac.new(secret, pair.encode(), hashlib.sha256).digest()
        self.send({"name": name})
        self.other = str(self.receive().get("name"))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. Raises OSError."""
        body = json.dumps(message)
        self._link.sendall(f"{self._mac(self._side, self._sent, body)} {body}\n".encode())
        self._sent += 1

    def receive(self) -> dict[str, Any]:
        """Return the next message. Raises OSError: also at the end, and if nothing comes in time."""
        line = self._reader.readline(LIMIT).decode("utf-8", "replace")
        if not line.endswith("\n"):
            raise ConnectionResetError("the connection has ended")
        mac, _, body = line.rstrip("\n").partition(" ")
        # As bytes: of text it compares ASCII alone, and a stranger may send anything.
        if not hmac.compare_digest(mac.encode(), self._mac(self._their_side, self._received, body).encode()):
            raise WrongSecret("it has another secret than this deployment")
        self._received += 1
        found = json.loads(body)
        if not isinstance(found, dict):
            raise WrongSecret("its message is no mapping")
        return found

    def _mac(self, side: str, number: int, body: str) -> str:
        return hmac.new(self._key, f"{side} {number} {body}".encode(), hashlib.sha256).hexdigest()
