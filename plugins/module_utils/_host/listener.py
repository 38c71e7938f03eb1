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
from typing import Any, NamedTuple, cast

from .. import _process

GREETING = "ascend.pd_rollout"
# Close at once instead of entering TIME_WAIT, which could keep an engine from binding the port.
_RESET = struct.pack("ii", 1, 0)
_WORKERS = 64
_GREETING_LIMIT = 512
# The most connections at a time, if the process may open that many files; beyond that the oldest is closed.
_MAX_CONNECTIONS = 4096
# Before Python 3.10 a socket's timeout is a separate error.
TIMED_OUT = (TimeoutError, socket.timeout)


@dataclass(frozen=True)
class Listener:
    """A running listener. ``started``: its start time by the kernel, so that no other process is stopped."""

    pid: int
    started: int
    ports: tuple[int, ...]

    def to_dict(self) -> dict[str, int]:
        """Return what identifies its process, as a JSON object."""
        return {"pid": self.pid, "started": self.started}


@dataclass(frozen=True)
class Target:
    """A port to test, and the server that must answer there."""

    server: str
    address: str
    port: int

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Target:
        """Return the target from a JSON object; unknown keys are ignored."""
        return cls(value["server"], value["address"], value["port"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"server": self.server, "address": self.address, "port": self.port}


@dataclass(frozen=True)
class Greeting:
    """What a listener reports: its server's name and time, in seconds, and the nonce of this connection."""

    server: str
    time: float
    nonce: str


class Clock(NamedTuple):
    """Another server's time minus this one's, and the uncertainty of that, both in seconds."""

    difference: float
    uncertainty: float


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
    the servers that will sign off (``sign_off``), without any it stays until it is stopped; ``token``: the
    secret that clients must know.
    """
    sockets: list[socket.socket] = []
    refused: dict[int, str] = {}
    for port in sorted(set(ports)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            sock.listen(256)
        except OSError as error:
            sock.close()
            refused[port] = error.strerror or str(error)
            continue
        sock.setblocking(False)
        sockets.append(sock)
    if not sockets:
        return None, refused
    bound = tuple(sock.getsockname()[1] for sock in sockets)
    awaited = set(clients)
    pid = _process.detach(
        lambda: serve(sockets, name, lifetime, awaited, token), keep=[sock.fileno() for sock in sockets]
    )
    for sock in sockets:
        sock.close()
    return Listener(pid, _process.start_time(pid) or 0, bound), refused


def proof(token: str, *words: str) -> str:
    """Return the proof that the sender of these words knows the token."""
    return hmac.new(token.encode(), "\0".join(words).encode(), hashlib.sha256).hexdigest()


def _proves(given: str, token: str, *words: str) -> bool:
    return hmac.compare_digest(given.encode(), proof(token, *words).encode())


class _Connection:
    """A connected client. ``nonce``: sent to it once it has proved that it knows the token."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.nonce = ""


class _Responder:
    """Answers clients; strangers are disconnected without an answer."""

    def __init__(self, name: str, clients: Iterable[str], token: str) -> None:
        self.name = name
        self.token = token
        # Clients that have not signed off.
        self.awaited = set(clients)
        # Nonces of clients that were used, so that a recorded message cannot be replayed.
        self.used_nonces: set[str] = set()

    def stays(self, connection: _Connection) -> bool:
        """Read from a connection and answer; return whether it stays open."""
        data = connection.sock.recv(_GREETING_LIMIT)
        connection.received += data
        if not data or len(connection.received) > _GREETING_LIMIT:
            return False
        if not connection.received.endswith(b"\n"):
            return True
        words = connection.received.decode("utf-8", "replace").split()
        connection.received = b""
        if len(words) != 4 or words[0] != GREETING:
            return False
        if words[1] == "hello" and not connection.nonce:
            return self._greet(connection, *words[2:])
        if (
            words[1] == "done"
            and connection.nonce
            and _proves(words[3], self.token, "done", connection.nonce, words[2])
        ):
            self.awaited.discard(words[2])
        return False

    def _greet(self, connection: _Connection, nonce: str, given: str) -> bool:
        """Answer a greeting; return whether it was valid. ``given``: the client's proof for its nonce."""
        if nonce in self.used_nonces or not _proves(given, self.token, "hello", nonce):
            return False
        self.used_nonces.add(nonce)
        connection.nonce = secrets.token_hex(16)
        words = (self.name, f"{time.time():.6f}", connection.nonce)
        line = " ".join((GREETING, *words, proof(self.token, "here", nonce, *words)))
        connection.sock.send(f"{line}\n".encode())
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
    servers that will sign off; ``token``: the secret that clients must know.
    """
    deadline = time.monotonic() + lifetime
    responder = _Responder(name, clients or (), token)
    connections: OrderedDict[int, _Connection] = OrderedDict()
    limit = _connection_limit(len(sockets))
    with selectors.DefaultSelector() as selector:

        def disconnect(connection: _Connection) -> None:
            connections.pop(connection.sock.fileno(), None)
            selector.unregister(connection.sock)
            connection.sock.close()

        for listening in sockets:
            selector.register(listening, selectors.EVENT_READ, None)
        left = lifetime
        while left > 0:
            for key, _events in selector.select(left):
                ready = cast("socket.socket", key.fileobj)
                if key.data is None:
                    with suppress(OSError):
                        sock, _address = ready.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        connections[sock.fileno()] = _Connection(sock)
                        selector.register(sock, selectors.EVENT_READ, connections[sock.fileno()])
                elif ready.fileno() >= 0:
                    stays = False
                    with suppress(OSError):
                        stays = responder.stays(key.data)
                    if not stays:
                        disconnect(key.data)
                if len(connections) > limit:
                    disconnect(next(iter(connections.values())))
            if clients and not responder.awaited:
                return
            left = deadline - time.monotonic()


def _connection_limit(listening: int) -> int:
    """Return how many clients can be connected without running out of file descriptors.

    ``listening``: the number of listening sockets.
    """
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MAX_CONNECTIONS if files == resource.RLIM_INFINITY else files - listening - 16
    return max(1, min(_MAX_CONNECTIONS, allowed))


def _exchange_greetings(connection: socket.socket, token: str) -> Greeting | None:
    """Greet the listener; return its greeting, or None if it does not know the token. Raises OSError."""
    nonce = secrets.token_hex(16)
    connection.sendall(f"{GREETING} hello {nonce} {proof(token, 'hello', nonce)}\n".encode())
    reply = b""
    while len(reply) <= _GREETING_LIMIT and not reply.endswith(b"\n"):
        data = connection.recv(_GREETING_LIMIT)
        if not data:
            break
        reply += data
    words = reply.decode("utf-8", "replace").split()
    if len(words) != 5 or words[0] != GREETING or not _proves(words[4], token, "here", nonce, *words[1:4]):
        return None
    return Greeting(words[1], float(words[2]), words[3])


def sign_off(target: Target, own_name: str, timeout: float, token: str = "") -> bool:
    """Sign off from a listener; return whether it received that.

    ``target``: one of its ports; ``own_name``: this server's; ``timeout``: in seconds; ``token``: the run's
    secret.
    """
    try:
        with socket.create_connection((target.address, target.port), timeout) as connection:
            greeting = _exchange_greetings(connection, token)
            if greeting is None:
                return False
            signature = proof(token, "done", greeting.nonce, own_name)
            connection.sendall(f"{GREETING} done {own_name} {signature}\n".encode())
            # The listener closes without lingering, which shows as an end or as a reset.
            with suppress(ConnectionResetError):
                connection.recv(1)
    except OSError:
        return False
    return True


def stop(pid: int, started: int, patience: float = 2.0) -> bool:
    """Stop a listener; return whether it was still running. ``patience``: seconds until it is killed."""
    return _process.end_started(pid, started, patience)


@dataclass(frozen=True)
class Trial:
    """The result of one connection. ``problem``: None, timeout, refused, silent, other or error.

    ``clock``: the other server's, if it has answered.
    """

    problem: str | None
    seen: str = ""
    clock: Clock | None = None


def attempt(target: Target, timeout: float, token: str = "") -> Trial:
    """Connect to a port and check that the expected server answers.

    ``timeout``: in seconds; ``token``: the run's secret.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    silent = Trial("timeout", f"no answer within {timeout:g} s")
    with connection:
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.connect((target.address, target.port))
        except TIMED_OUT:
            return silent
        except ConnectionRefusedError:
            return Trial("refused", "connection refused")
        except OSError as error:
            return Trial("error", error.strerror or str(error))
        greeting = None
        before = time.time()
        try:
            greeting = _exchange_greetings(connection, token)
        except TIMED_OUT:
            return silent
        except (ConnectionResetError, BrokenPipeError):
            pass
        except OSError as error:
            return Trial("error", error.strerror or str(error))
        after = time.time()
    if greeting is None:
        return Trial("other", "something other than the listener answers")
    if greeting.server != target.server:
        return Trial("other", f"{greeting.server} answers")
    return Trial(None, "", Clock(greeting.time - (before + after) / 2, (after - before) / 2))


def attempt_all(targets: Sequence[Target], timeout: float, token: str = "") -> list[Trial]:
    """Test all targets, many at a time; return the results in their order.

    ``timeout``: of one connection, in seconds; ``token``: the run's secret.
    """
    if not targets:
        return []
    with ThreadPoolExecutor(min(_WORKERS, len(targets))) as pool:
        return list(pool.map(lambda target: attempt(target, timeout, token), targets))
