# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A temporary listener on the ports of the plan, and the other side that tries them.

The listener is a process of its own that outlives the task, so that all servers can listen before any of them
tries: no forks, no order of tasks and no slow server decide the result. It greets everybody with the
server's name and time. It ends when all who were to try have taken leave, when it is told to, and by itself
after a while.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GREETING = "ascend.pd_rollout"
# Closing at once instead of waiting (TIME_WAIT), which could keep an engine from binding the port.
_RESET = struct.pack("ii", 1, 0)
_WORKERS = 64
_GREETING_LIMIT = 512
# Seconds between looks whether a process has gone.
_LOOK = 0.01


@dataclass(frozen=True)
class Listener:
    """A running listener. `started`: the kernel's start time, so that nobody else is ended in its place."""

    pid: int
    started: int
    ports: tuple[int, ...]


def start(
    address: str, ports: Iterable[int], name: str, lifetime: float, clients: Iterable[str] = ()
) -> tuple[Listener | None, dict[int, str]]:
    """Listen on these ports for so many seconds; also the ports that could not be had, and why.

    `clients`: who will take leave (`take_leave`); without any the listener stays until it is ended.
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
    pid = os.fork()
    if pid == 0:
        _child(sockets, name, lifetime, set(clients))
    for one in sockets:
        one.close()
    return Listener(pid, start_time(pid) or 0, bound), refused


def _child(sockets: Sequence[socket.socket], name: str, lifetime: float, clients: set[str]) -> None:
    """The new process: on its own, without the files of the task, and gone at the end whatever happens."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        kept = {one.fileno() for one in sockets} | {0, 1, 2}
        for entry in list(Path("/proc/self/fd").iterdir()):
            if int(entry.name) not in kept:
                with suppress(OSError):
                    os.close(int(entry.name))
        serve(sockets, name, lifetime, clients)
    finally:
        os._exit(0)


def serve(
    sockets: Sequence[socket.socket], name: str, lifetime: float, clients: set[str] | None = None
) -> None:
    """Greet everybody until all clients have taken leave or the time is up."""
    deadline = time.monotonic() + lifetime
    left_to_come = set(clients or ())
    with selectors.DefaultSelector() as waiting:
        for one in sockets:
            waiting.register(one, selectors.EVENT_READ, "listener")
        while (left := deadline - time.monotonic()) > 0:
            for key, _events in waiting.select(left):
                if key.data == "listener":
                    with suppress(OSError):
                        guest, _address = key.fileobj.accept()
                        guest.setblocking(False)
                        guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        guest.send(f"{GREETING} {name} {time.time():.6f}\n".encode())
                        waiting.register(guest, selectors.EVENT_READ, "guest")
                else:
                    # The guest has gone, or takes leave and waits for the end.
                    with suppress(OSError):
                        left_to_come.discard(_who_leaves(key.fileobj.recv(_GREETING_LIMIT)))
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
            if clients and not left_to_come:
                return


def _who_leaves(said: bytes) -> str | None:
    words = said.decode("utf-8", "replace").split()
    return words[2] if len(words) == 3 and words[:2] == [GREETING, "done"] else None


def take_leave(address: str, port: int, own_name: str, timeout: float) -> bool:
    """Tell a listener that this server has tried all that it wanted; whether it was heard."""
    try:
        with socket.create_connection((address, port), timeout) as one:
            one.recv(_GREETING_LIMIT)
            one.sendall(f"{GREETING} done {own_name}\n".encode())
            # The listener closes without lingering, which shows as an end or as a reset.
            with suppress(ConnectionResetError):
                one.recv(1)
    except OSError:
        return False
    return True


def gone_within(pid: int, started: int, seconds: float) -> bool:
    """Wait for the end of that process; whether it came."""
    deadline = time.monotonic() + seconds
    while start_time(pid) == started:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK)
    return True


def start_time(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks; None when there is none (or only its remains)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def stop(pid: int, started: int, patience: float = 2.0) -> bool:
    """End that listener; whether it was still there."""
    if pid <= 1 or start_time(pid) != started:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if gone_within(pid, started, patience):
            break
    return True


@dataclass(frozen=True)
class Trial:
    """What came of one connection. `problem`: None, timeout, refused, silent, other or error.

    `clock`: the other server's time less ours, and how exact that is, both in seconds.
    """

    problem: str | None
    seen: str = ""
    clock: tuple[float, float] | None = None


def attempt(address: str, port: int, name: str, timeout: float) -> Trial:
    """Connect, and read who answers."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.settimeout(timeout)
    try:
        with one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            before = time.time()
            one.connect((address, port))
            said = one.recv(_GREETING_LIMIT).decode("utf-8", "replace").split()
            after = time.time()
    except TimeoutError:
        return Trial("timeout", f"no answer within {timeout:g} s")
    except ConnectionRefusedError:
        return Trial("refused", "connection refused")
    except OSError as error:
        return Trial("error", error.strerror or str(error))
    if len(said) != 3 or said[0] != GREETING:
        return Trial("other", "something else than the listener answers")
    if said[1] != name:
        return Trial("other", f"{said[1]} answers")
    return Trial(None, "", (float(said[2]) - (before + after) / 2, (after - before) / 2))


def attempt_all(targets: Sequence[dict], timeout: float) -> list[Trial]:
    """All of them, many at a time, in the order of the targets."""
    if not targets:
        return []
    with ThreadPoolExecutor(min(_WORKERS, len(targets))) as pool:
        return list(
            pool.map(lambda one: attempt(one["address"], one["port"], one["server"], timeout), targets)
        )
