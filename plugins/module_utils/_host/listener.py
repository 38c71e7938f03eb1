# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A temporary listener on the planned ports, and the client that tests them.

The listener is a separate process that outlives the task, so that all servers listen before any of them
connects: forks, task order and slow servers do not affect the result. It ends when all expected clients have
signed off, when it is stopped on its server, and by itself after its lifetime.

It does not answer strangers, and they cannot end it: a client first proves that it knows the run's token,
which servers get over ssh and which never crosses the network between them. The listener then does the same:

    client    ascend.pd_rollout hello NONCE MAC
    listener  ascend.pd_rollout NAME TIME NONCE MAC      the server's name and time
    client    ascend.pd_rollout done NAME MAC            this client no longer needs the listener
"""

from __future__ import annotations

import hashlib
import hmac
import resource
import secrets
import selectors
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from .. import _process

GREETING = "ascend.pd_rollout"
# Close at once instead of entering TIME_WAIT, which could keep an engine from binding the port.
_RESET = struct.pack("ii", 1, 0)
_WORKERS = 64
_GREETING_LIMIT = 512
# The most guests at a time, if the process may open that many files; the oldest makes way for the next.
_GUESTS = 4096
# Before Python 3.10 a socket's timeout is a separate error.
TIMED_OUT = (TimeoutError, socket.timeout)


@dataclass(frozen=True)
class Listener:
    """A running listener. ``started``: its start time by the kernel, so that no other process is stopped."""

    pid: int
    started: int
    ports: tuple[int, ...]


def start(
    address: str,
    ports: Iterable[int],
    name: str,
    lifetime: float,
    clients: Iterable[str] = (),
    token: str = "",
) -> tuple[Listener | None, dict[int, str]]:
    """Start a listener; return it (None without any free port) and the ports that failed, each with the
    reason.

    ``address``, ``ports``: where it listens; ``name``: of this server; ``lifetime``: in seconds; ``clients``:
    the servers that will sign off (``take_leave``), without any it stays until it is stopped; ``token``: the
    secret that clients must know.
    """
    sockets: list[socket.socket] = []
    refused: dict[int, str] = {}
    for port in sorted(set(ports)):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, port))
            one.listen(256)
        except OSError as error:
            one.close()
            refused[port] = error.strerror or str(error)
            continue
        one.setblocking(False)
        sockets.append(one)
    if not sockets:
        return None, refused
    bound = tuple(one.getsockname()[1] for one in sockets)
    awaited = set(clients)
    pid = _process.detach(
        lambda: serve(sockets, name, lifetime, awaited, token), keep=[one.fileno() for one in sockets]
    )
    for one in sockets:
        one.close()
    return Listener(pid, _process.start_time(pid) or 0, bound), refused


def proof(token: str, *words: str) -> str:
    """Return the proof that the sender of these words knows the token."""
    return hmac.new(token.encode(), "\0".join(words).encode(), hashlib.sha256).hexdigest()


def _proves(given: str, token: str, *words: str) -> bool:
    return hmac.compare_digest(given.encode(), proof(token, *words).encode())


class _Guest:
    """A connected client. ``nonce``: sent to it once it has proved that it knows the token."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.said = b""
        self.nonce = ""


class _Doorkeeper:
    """Answers guests; strangers are disconnected without an answer."""

    def __init__(self, name: str, clients: Iterable[str], token: str) -> None:
        self.name = name
        self.token = token
        self.left_to_come = set(clients)
        # Nonces of clients that were used, so that a recorded message cannot be replayed.
        self.heard: set[str] = set()

    def stays(self, guest: _Guest) -> bool:
        """Read from a guest; return whether its connection stays open."""
        said = guest.sock.recv(_GREETING_LIMIT)
        guest.said += said
        if not said or len(guest.said) > _GREETING_LIMIT:
            return False
        if not guest.said.endswith(b"\n"):
            return True
        words = guest.said.decode("utf-8", "replace").split()
        guest.said = b""
        if len(words) != 4 or words[0] != GREETING:
            return False
        if words[1] == "hello" and not guest.nonce:
            return self._greet(guest, *words[2:])
        if (
            words[1] == "done"
            and guest.nonce
            and _proves(words[3], self.token, "done", guest.nonce, words[2])
        ):
            self.left_to_come.discard(words[2])
        return False

    def _greet(self, guest: _Guest, nonce: str, given: str) -> bool:
        if nonce in self.heard or not _proves(given, self.token, "hello", nonce):
            return False
        self.heard.add(nonce)
        guest.nonce = secrets.token_hex(16)
        told = (self.name, f"{time.time():.6f}", guest.nonce)
        line = " ".join((GREETING, *told, proof(self.token, "here", nonce, *told)))
        guest.sock.send(f"{line}\n".encode())
        return True


def serve(
    sockets: Sequence[socket.socket],
    name: str,
    lifetime: float,
    clients: set[str] | None = None,
    token: str = "",
) -> None:
    """Answer clients that know the token until all have signed off or the lifetime is over.

    ``sockets``: the listening sockets; ``name``: of this server; ``lifetime``: in seconds; ``clients``: the
    servers that will sign off.
    """
    deadline = time.monotonic() + lifetime
    doorkeeper = _Doorkeeper(name, clients or (), token)
    guests: OrderedDict[int, _Guest] = OrderedDict()
    most = _most_guests(len(sockets))
    with selectors.DefaultSelector() as waiting:

        def send_away(guest: _Guest) -> None:
            guests.pop(guest.sock.fileno(), None)
            waiting.unregister(guest.sock)
            guest.sock.close()

        for one in sockets:
            waiting.register(one, selectors.EVENT_READ, None)
        left = lifetime
        while left > 0:
            for key, _events in waiting.select(left):
                ready = cast("socket.socket", key.fileobj)
                if key.data is None:
                    with suppress(OSError):
                        sock, _address = ready.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        guests[sock.fileno()] = _Guest(sock)
                        waiting.register(sock, selectors.EVENT_READ, guests[sock.fileno()])
                elif ready.fileno() >= 0:
                    stays = False
                    with suppress(OSError):
                        stays = doorkeeper.stays(key.data)
                    if not stays:
                        send_away(key.data)
                if len(guests) > most:
                    send_away(next(iter(guests.values())))
            if clients and not doorkeeper.left_to_come:
                return
            left = deadline - time.monotonic()


def _most_guests(listening: int) -> int:
    """Return how many guests can be accepted without running out of file descriptors."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _GUESTS if files == resource.RLIM_INFINITY else files - listening - 16
    return max(1, min(_GUESTS, allowed))


def _greeted(one: socket.socket, token: str) -> list[str]:
    """Greet the listener; return its name, time and nonce if it knows the token, otherwise an empty list."""
    nonce = secrets.token_hex(16)
    one.sendall(f"{GREETING} hello {nonce} {proof(token, 'hello', nonce)}\n".encode())
    said = b""
    while len(said) <= _GREETING_LIMIT and not said.endswith(b"\n"):
        part = one.recv(_GREETING_LIMIT)
        if not part:
            break
        said += part
    words = said.decode("utf-8", "replace").split()
    good = len(words) == 5 and words[0] == GREETING and _proves(words[4], token, "here", nonce, *words[1:4])
    return words[1:4] if good else []


def take_leave(address: str, port: int, own_name: str, timeout: float, token: str = "") -> bool:
    """Sign off from a listener; return whether it received that.

    ``address``, ``port``: of the listener; ``own_name``: this server's; ``timeout``: in seconds.
    """
    try:
        with socket.create_connection((address, port), timeout) as one:
            told = _greeted(one, token)
            if not told:
                return False
            one.sendall(f"{GREETING} done {own_name} {proof(token, 'done', told[2], own_name)}\n".encode())
            # The listener closes without lingering, which shows as an end or as a reset.
            with suppress(ConnectionResetError):
                one.recv(1)
    except OSError:
        return False
    return True


def stop(pid: int, started: int, patience: float = 2.0) -> bool:
    """Stop a listener; return whether it was still running. ``patience``: seconds until it is killed."""
    return _process.end_started(pid, started, patience)


@dataclass(frozen=True)
class Trial:
    """The result of one connection. ``problem``: None, timeout, refused, silent, other or error.

    ``clock``: the other server's time minus ours, and its uncertainty, both in seconds.
    """

    problem: str | None
    seen: str = ""
    clock: tuple[float, float] | None = None


def attempt(address: str, port: int, name: str, timeout: float, token: str = "") -> Trial:
    """Connect to a port and check that the expected server answers.

    ``name``: of that server; ``timeout``: in seconds.
    """
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.settimeout(timeout)
    silent = Trial("timeout", f"no answer within {timeout:g} s")
    with one:
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.connect((address, port))
        except TIMED_OUT:
            return silent
        except ConnectionRefusedError:
            return Trial("refused", "connection refused")
        except OSError as error:
            return Trial("error", error.strerror or str(error))
        told: list[str] = []
        before = time.time()
        try:
            told = _greeted(one, token)
        except TIMED_OUT:
            return silent
        except (ConnectionResetError, BrokenPipeError):
            pass
        except OSError as error:
            return Trial("error", error.strerror or str(error))
        after = time.time()
    if not told:
        return Trial("other", "something other than the listener answers")
    if told[0] != name:
        return Trial("other", f"{told[0]} answers")
    return Trial(None, "", (float(told[1]) - (before + after) / 2, (after - before) / 2))


def attempt_all(targets: Sequence[Mapping[str, Any]], timeout: float, token: str = "") -> list[Trial]:
    """Test all targets, many at a time; return the results in their order."""
    if not targets:
        return []
    with ThreadPoolExecutor(min(_WORKERS, len(targets))) as pool:
        return list(
            pool.map(lambda one: attempt(one["address"], one["port"], one["server"], timeout, token), targets)
        )
