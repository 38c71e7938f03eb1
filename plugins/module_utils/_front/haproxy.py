# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""HAProxy's sockets: its workers, its servers, its maps and its sessions.

The master answers for each of its workers: the current one, and those of earlier configurations that still
finish requests. ``@!PID`` in front of a command sends it to one of them (HAProxy 2.6, management guide, 9.4).
"""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .files import one_line

# Seconds for one answer.
TIMEOUT = 5.0
# How a worker says that a map lacks an entry.
NOT_FOUND = "not found"


class HaproxyError(Exception):
    """The socket does not answer; the text says why."""


@dataclass(frozen=True)
class Worker:
    """A process of HAProxy that has connections; ``current``: it accepts new ones."""

    pid: int
    current: bool


@dataclass(frozen=True)
class Request:
    """A request that runs through a router: the client's address, and for how long."""

    client: str
    age: str


class Haproxy:
    """The front's HAProxy, by the socket of its master process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """Return the answer to one command. Raises HaproxyError."""
        parts: list[bytes] = []
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(TIMEOUT)
                link.connect(self.path)
                link.sendall(f"{command}\n".encode())
                link.shutdown(socket.SHUT_WR)
                while True:
                    part = link.recv(65536)
                    if not part:
                        break
                    parts.append(part)
        except OSError as error:
            raise HaproxyError(f"{self.path}: {error.strerror or error}") from error
        return b"".join(parts).decode("utf-8", errors="replace").strip()

    def workers(self) -> list[Worker]:
        """Return the workers, the current one first."""
        found: list[Worker] = []
        current = True
        for line in self.ask("show proc").splitlines():
            if line.startswith("#"):
                current = "old" not in line
            words = line.split()
            if len(words) > 1 and words[1] == "worker":
                found.append(Worker(int(words[0]), current))
        return found

    def tell(self, worker: Worker, command: str) -> str:
        """Return a worker's answer to one command. Raises HaproxyError."""
        return self.ask(f"@!{worker.pid} {command}")

    def rows(self, worker: Worker) -> list[dict[str, str]]:
        """Return the rows of HAProxy's statistics: servers and backends with their state and sessions."""
        text = self.tell(worker, "show stat").lstrip("# ")
        return list(csv.DictReader(text.splitlines()))

    def sees(self, colour: str) -> bool:
        """Return whether the current worker's check finds the router of this colour up."""
        for worker in self.workers():
            if worker.current:
                return any(
                    row["svname"] == colour and row["pxname"] == backend(colour) and row["status"] == "UP"
                    for row in self.rows(worker)
                )
        return False

    def running(self, colour: str) -> int:
        """Return how many requests run through the router of this colour, or are on their way to it."""
        own = [(backend(colour), "BACKEND"), (backend(_other(colour)), colour)]
        return sum(
            int(row["scur"] or 0) + int(row["qcur"] or 0)
            for worker in self.workers()
            for row in self.rows(worker)
            if (row["pxname"], row["svname"]) in own
        )

    def requests(self, colour: str) -> Iterator[Request]:
        """Yield the requests that run through the router of this colour."""
        for worker in self.workers():
            for line in self.tell(worker, "show sess").splitlines():
                words: dict[str, Any] = dict(re.findall(r"\b(src|be|srv|age)=(\S+)", line))
                if words.get("srv") == colour:
                    yield Request(str(words.get("src")).rpartition(":")[0], str(words.get("age")))

    def set_map(self, path: str, key: str, value: str) -> None:
        """Set an entry of a map in all workers: those before the last reload may still get a request."""
        for worker in self.workers():
            self._obeyed(worker, f"set map {path} {key} {value}")

    def trust(self, colour: str) -> None:
        """Have the router of this colour count as up, whose health somebody has just seen; the next check
        says whether it still is."""
        for worker in self.workers():
            for name in (backend(colour), backend(_other(colour))):
                self._obeyed(worker, f"set server {name}/{colour} health up")

    def put_map(self, path: str, key: str, value: str) -> None:
        """Set an entry of a map in all workers, also one that it lacks; the value may be a sentence."""
        word = re.sub(r"([\\ ;])", r"\\\1", one_line(value))
        for worker in self.workers():
            self._obeyed(worker, f"set map {path} {key} {word}", f"add map {path} {key} {word}")

    def drop_map(self, path: str, key: str) -> None:
        """Remove an entry of a map in all workers, if it is there."""
        for worker in self.workers():
            self._obeyed(worker, f"del map {path} {key}", "")

    def _obeyed(self, worker: Worker, command: str, without: str | None = None) -> None:
        """Give a command that has no answer if it is carried out.

        without: the command that is given instead if the map lacks the entry; empty: none.
        A worker of an earlier configuration may lack what it is about. Raises HaproxyError."""
        said = self.tell(worker, command)
        if without is not None and NOT_FOUND in said:
            if without:
                self._obeyed(worker, without)
        elif said and worker.current:
            raise HaproxyError(f"{command.split()[0]} {command.split()[1]}: {said}")

    def replace_map(self, path: str, entries: dict[str, str]) -> None:
        """Replace a map as a whole, at once, in all workers."""
        for worker in self.workers():
            version = re.search(r"[0-9]+", self.tell(worker, f"prepare map {path}"))
            if version is None and worker.current:
                raise HaproxyError(f"{path} is no map of the running front")
            if version is None:
                continue
            for key, value in entries.items():
                self._obeyed(worker, f"add map @{version[0]} {path} {key} {value}")
            self._obeyed(worker, f"commit map @{version[0]} {path}")


def backend(colour: str) -> str:
    """Return the name of the backend in which the router of this colour comes first."""
    return f"router_{colour}"


def _other(colour: str) -> str:
    return "green" if colour == "blue" else "blue"
