# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The Docker Engine's API over its socket, with the standard library alone.

C(community.docker) needs python3-requests, which a fresh server does not have yet, declares its own client
private to itself from 5.0 on, and its import costs more than a whole poll here. So this is a client for the
few calls that checks, transfers and watching engines need.
"""

from __future__ import annotations

import calendar
import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from .._findings import RolloutError
from .catalogue import DOCKER_CHECKS

DEFAULT_SOCKET = "/var/run/docker.sock"
# Seconds without an answer, as long as C(community.docker)'s: an engine that starts containers on a busy
# server answers late.
TIMEOUT = 60.0
# A container that was never started or has not ended carries this instead of a time.
NO_TIME = "0001-01-01T00:00:00Z"


class DockerError(RolloutError):
    """The Docker Engine does not answer, or answers with an error."""

    def __init__(self, text: str, status: int = 0, code: str = "") -> None:
        """Initialize the error with one finding.

        text: what was seen.
        status: HTTP status of the answer; 0 if there was none.
        code: code of the finding; by default that of a refused request or of a silent engine.
        """
        found = DOCKER_CHECKS.finding(code or ("docker-refused" if status else "docker-silent"), seen=text)
        super().__init__(found, text)
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the UNIX socket at C(path); C(timeout) in seconds."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextlib.contextmanager
def answering(
    method: str,
    path: str,
    *,
    socket_path: str = DEFAULT_SOCKET,
    timeout: float = TIMEOUT,
    body: Iterable[bytes] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The Docker Engine's answer to a request, to be read within the context.

    method, path: of the request; the path with its query.
    socket_path: the engine's socket.
    timeout: seconds without a byte.
    body: the pieces of an archive that is sent.

    Raises DockerError where none comes, or one with an error's status.
    """
    connection = UnixConnection(socket_path, timeout)
    headers = {} if body is None else {"Content-Type": "application/x-tar"}
    try:
        connection.request(method, path, body=body, headers=headers, encode_chunked=body is not None)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise DockerError(_reason(path, answer.status, answer.read()), answer.status)
        yield answer
    except FileNotFoundError as error:
        raise DockerError(f"no answer from the Docker Engine: there is no socket {socket_path}") from error
    except PermissionError as error:
        raise DockerError(
            f"no answer from the Docker Engine: only root can access {socket_path}; use become"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise DockerError(f"no answer from the Docker Engine at {socket_path}: {why}") from error
    finally:
        connection.close()


def _reason(path: str, status: int, body: bytes) -> str:
    """What an error's answer says: the engine's own message, if it gives one."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace").strip()[:300]
    return f"the Docker Engine answers {status} to {path}: {message}"


def get(path: str, socket_path: str = DEFAULT_SOCKET, timeout: float = TIMEOUT) -> bytes:
    """The body of the answer to a GET request. Raises DockerError."""
    with answering("GET", path, socket_path=socket_path, timeout=timeout) as answer:
        return answer.read()


class DockerApi:
    """Containers of the Docker Engine behind C(path), a UNIX socket; C(timeout) in seconds for each call."""

    def __init__(self, path: str = DEFAULT_SOCKET, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout

    def _get(self, path: str, **query: object) -> bytes | None:
        return self._ask("GET", path + ("?" + urlencode(query) if query else ""))

    def _ask(self, method: str, path: str) -> bytes | None:
        """The answer's body; None where what was asked for does not exist."""
        try:
            with answering(method, path, socket_path=self._path, timeout=self._timeout) as answer:
                return answer.read()
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def inspect(self, name: str) -> dict[str, Any] | None:
        """What C(docker inspect) shows of a container, or None when there is none."""
        body = self._get(f"/containers/{quote(name)}/json")
        return None if body is None else json.loads(body)

    def stop(self, name: str) -> bool:
        """Stop a container as C(docker stop) does: it is not started again, whatever its restart policy.

        Whether there is one.
        """
        return self._ask("POST", f"/containers/{quote(name)}/stop") is not None

    def containers(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Every container, running or not, that carries all C(labels)."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        listed: list[dict[str, Any]] = json.loads(
            self._get("/containers/json", all=1, filters=json.dumps(filters)) or b"[]"
        )
        return listed

    def image_id(self, reference: str) -> str | None:
        """The identity that an image reference has on this server now, or None."""
        body = self._get(f"/images/{quote(reference)}/json")
        return None if body is None else json.loads(body)["Id"]

    def logs(
        self, name: str, tail: int, since: str | None = None, until: str | None = None, early: int = 0
    ) -> str:
        """The last lines of both streams of a container.

        name: the container.
        tail: how many lines at the most.
        since, until: the engine's own times, between which the lines were written.
        early: seconds before C(since) that count too.
        """
        query: dict[str, object] = {"stdout": 1, "stderr": 1, "tail": tail}
        for key, when, before in (("since", since, early), ("until", until, 0)):
            if when and when != NO_TIME:
                query[key] = unix_time(when, before)
        return demultiplex(self._get(f"/containers/{quote(name)}/logs", **query) or b"")


def unix_time(when: str, before: int = 0) -> str:
    """C(2026-01-02T03:04:05.678901234Z) as the engine's queries take it: C(1767323045.678901234).

    C(before): whole seconds earlier.
    """
    date, _dot, fraction = when.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(date[:19], "%Y-%m-%dT%H:%M:%S")) - before
    return f"{seconds}.{(fraction or '0')[:9].ljust(9, '0')}"


def demultiplex(stream: bytes) -> str:
    """The text of a log stream whose frames carry 8 bytes of head: stream, 3 × 0, length."""
    parts: list[bytes] = []
    at = 0
    while at + 8 <= len(stream):
        (length,) = struct.unpack(">I", stream[at + 4 : at + 8])
        parts.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts).decode("utf-8", errors="replace")
