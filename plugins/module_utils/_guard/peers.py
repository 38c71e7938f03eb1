# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The connections between guards: each tells the others how its nodes are, several times a second.

What a connection says about a server: as long as messages come, its guard lives. If they stop, and the server
does not even accept a connection, it is lost. If it refuses one, the guard alone is missing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import traceback
from typing import Any, Callable

from .frames import GREETING_SECONDS, Frames, WrongSecret

# Seconds between messages, without one until the server is asked for a connection, and until it must have
# accepted it.
BEAT, SILENCE, CONNECT = 0.5, 1.5, 1.0
# Between two attempts.
AGAIN = 0.5
CONNECTIONS = 256
# Of what guards tell.
FORMAT = 1

FRESH, UNGUARDED, LOST, UNKNOWN = "fresh", "unguarded", "lost", "unknown"


class Board:
    """What this guard tells, and what the others have told; every change wakes up who waits.

    Threads of the connections write, the service reads.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._mine: dict[str, Any] = {}
        self._version = 0
        self._theirs: dict[str, tuple[str, dict[str, Any], str]] = {}
        self._asks: list[dict[str, Any]] = []
        self._outgoing: dict[str, list[dict[str, Any]]] = {}
        self._news = False

    def tell(self, report: dict[str, Any]) -> None:
        """Set what this guard tells."""
        with self.changed:
            if report != self._mine:
                self._mine = report
                self._version += 1
                self.changed.notify_all()

    def mine(self, known: int, seconds: float) -> tuple[int, dict[str, Any] | None]:
        """Return what this guard tells, and its version; None if nothing new comes within a time."""
        with self.changed:
            if self._version == known:
                self.changed.wait(seconds)
            return (known, None) if self._version == known else (self._version, self._mine)

    def hear(self, host: str, state: str, report: dict[str, Any] | None, why: str = "") -> None:
        """Note what is known of another server; without a report the last one is kept."""
        with self.changed:
            before = self._theirs.get(host, (UNKNOWN, {}, ""))
            self._theirs[host] = (state, before[1] if report is None else report, why)
            if self._theirs[host] != before:
                self._wake()

    def theirs(self, host: str) -> tuple[str, dict[str, Any], str]:
        """Return the state of another server, its last report, and why it has none."""
        with self.changed:
            return self._theirs.get(host, (UNKNOWN, {}, ""))

    def ask(self, message: dict[str, Any]) -> None:
        """Note what another guard asks for."""
        with self.changed:
            self._asks.append(message)
            self._wake()

    def asks(self) -> list[dict[str, Any]]:
        """Return what others have asked for since the last call."""
        with self.changed:
            found, self._asks = self._asks, []
            return found

    def send(self, host: str, message: dict[str, Any]) -> None:
        """Have a message sent to another guard, if there is a connection."""
        with self.changed:
            if self._theirs.get(host, (UNKNOWN,))[0] == FRESH:
                self._outgoing.setdefault(host, []).append(message)

    def outgoing(self, host: str) -> list[dict[str, Any]]:
        """Return the messages for another guard, once."""
        with self.changed:
            return self._outgoing.pop(host, [])

    def wake(self) -> None:
        """Have the service look."""
        with self.changed:
            self._wake()

    def _wake(self) -> None:
        self._news = True
        self.changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait for something new."""
        with self.changed:
            deadline = time.monotonic() + seconds
            while not self._news:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            self._news = False


def listen(address: str, port: int, secret: bytes, name: str, board: Board) -> socket.socket:
    """Tell whoever connects with the secret; return the listening socket. Raises OSError."""
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(64)
    lasting("listener", lambda: _accept(server, secret, name, board))
    return server


def thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run something beside the service; it does not keep the service from ending."""
    started = threading.Thread(target=work, name=name, daemon=True)
    started.start()
    return started


def lasting(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run something beside the service for good: after an error that nobody has foreseen, it is run again."""

    def again() -> None:
        while True:
            try:
                work()
                return
            except Exception:  # What it guards must not go unguarded for whatever somebody has answered.
                traceback.print_exc()
            time.sleep(AGAIN)

    return thread(name, again)


def _accept(server: socket.socket, secret: bytes, name: str, board: Board) -> None:
    room = threading.BoundedSemaphore(CONNECTIONS)
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            if server.fileno() < 0:
                return
            time.sleep(AGAIN)
            continue
        if not room.acquire(blocking=False):
            link.close()
            continue
        thread("connection", lambda link=link: _serve(link, secret, name, board, room))  # type: ignore[misc]


def _serve(
    link: socket.socket, secret: bytes, name: str, board: Board, room: threading.BoundedSemaphore
) -> None:
    try:
        with contextlib.suppress(OSError, ValueError):
            link.settimeout(GREETING_SECONDS)
            frames = Frames(link, secret, "server", name)
            link.settimeout(None)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _seconds(GREETING_SECONDS))
            thread("reader", lambda: _read(frames, board))
            version = -1
            while True:
                version, report = board.mine(version, BEAT)
                frames.send({} if report is None else report)
    finally:
        # Its reader has the connection, too: closed here alone, it would stay open.
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        link.close()
        room.release()


def _seconds(seconds: float) -> bytes:
    """Return a time as the kernel takes it (struct timeval)."""
    return struct.pack("ll", int(seconds), 0)


def _read(frames: Frames, board: Board) -> None:
    with contextlib.suppress(OSError, ValueError):
        while True:
            message = frames.receive()
            if message:
                board.ask({**message, "from": frames.other})


class Peer:
    """Hears one other guard.

    host: its name.
    at: its address and port.
    """

    def __init__(self, host: str, at: tuple[str, int], secret: bytes, name: str, board: Board) -> None:
        self._host, self._at, self._secret, self._name, self._board = host, at, secret, name, board

    def run(self) -> None:
        """Hear it for good."""
        while True:
            link = self._connected()
            if link is None:
                time.sleep(AGAIN)
                continue
            with link, contextlib.suppress(OSError, ValueError):
                # What its end says about the server, the next attempt to connect tells.
                self._hear(link)

    def _connected(self) -> socket.socket | None:
        """Return a connection; None if there is none, after noting what this says."""
        try:
            return socket.create_connection(self._at, CONNECT)
        except ConnectionRefusedError:
            self._board.hear(self._host, UNGUARDED, None, "no guard runs there")
        except OSError as error:
            self._board.hear(self._host, LOST, None, f"the server does not answer: {error}")
        return None

    def _hear(self, link: socket.socket) -> None:
        """Hear it until the connection ends. Raises OSError, ValueError."""
        try:
            link.settimeout(GREETING_SECONDS)
            frames = Frames(link, self._secret, "client", self._name)
        except (OSError, ValueError) as error:
            why = str(error) if isinstance(error, WrongSecret) else "its guard does not answer"
            self._board.hear(self._host, UNGUARDED, None, why)
            time.sleep(AGAIN)
            return
        link.settimeout(SILENCE)
        told = False
        while True:
            message = frames.receive()
            if message.get("bye"):
                self._board.hear(self._host, UNGUARDED, None, "its guard was stopped")
                time.sleep(AGAIN)
                return
            told = told or bool(message)
            if not told:
                # It has not looked yet, and what it told before its own start may no longer be so.
                continue
            if message and message.get("format") != FORMAT:
                self._board.hear(self._host, UNGUARDED, None, "its guard is of another version")
                time.sleep(AGAIN)
                return
            self._board.hear(self._host, FRESH, message or None)
            for ask in self._board.outgoing(self._host):
                frames.send(ask)
