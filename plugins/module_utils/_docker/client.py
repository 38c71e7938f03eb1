# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The Docker Engine's API over its socket, with the standard library alone.

``community.docker`` needs python3-requests, which a fresh server does not have, makes its own client private
from 5.0 on, and takes longer to import than a complete poll takes here. This client therefore covers the few
calls that checks, transfers and the watching of engines need.
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
# Seconds without an answer, as in ``community.docker``: an engine that starts containers on a busy server
# answers late.
TIMEOUT = 60.0
# Placeholder for the time of a start or an end that has not happened.
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
    """HTTP over a UNIX socket at a path; the timeout is in seconds."""

    def __init__(self, path: str, timeout: float | None) -> None:
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
    timeout: float | None = TIMEOUT,
    body: Iterable[bytes] | Mapping[str, Any] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request to the Docker Engine; the context yields its answer.

    method: HTTP method of the request.
    path: path of the request, with its query.
    socket_path: the engine's socket.
    timeout: seconds without a byte; None: for ever.
    body: the chunks of an archive to send, or what is sent as JSON.

    Raises DockerError if there is no answer, or if its status is an error.
    """
    connection = UnixConnection(socket_path, timeout)
    sent: Iterable[bytes] | bytes | None
    if isinstance(body, Mapping):
        sent, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    else:
        sent, headers = body, {} if body is None else {"Content-Type": "application/x-tar"}
    chunked = sent is not None and not isinstance(sent, bytes)
    try:
        connection.request(method, path, body=sent, headers=headers, encode_chunked=chunked)
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
    """Return the text of an error answer, with the engine's own message if there is one."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace").strip()[:300]
    return f"the Docker Engine answers {status} to {path}: {message}"


def get(path: str, socket_path: str = DEFAULT_SOCKET, timeout: float = TIMEOUT) -> bytes:
    """Return the body of the answer to a GET request. Raises DockerError."""
    with answering("GET", path, socket_path=socket_path, timeout=timeout) as answer:
        return answer.read()


class DockerApi:
    """Containers of the Docker Engine at a UNIX socket; the timeout of each call is in seconds."""

    def __init__(self, path: str = DEFAULT_SOCKET, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout

    def _get(self, path: str, **query: object) -> bytes | None:
        return self._ask("GET", path + ("?" + urlencode(query) if query else ""))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes | None:
        """Return the body of the answer, or None if the object does not exist. Raises DockerError."""
        try:
            with answering(method, path, socket_path=self._path, timeout=self._timeout, body=body) as answer:
                return answer.read()
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return the data of ``docker inspect`` for a container, or None if there is no such container."""
        body = self._get(f"/containers/{quote(name)}/json")
        return None if body is None else json.loads(body)

    def stop(self, name: str, seconds: int | None = None) -> bool:
        """Stop a container as ``docker stop`` does; no restart policy starts it again.

        seconds: after which it is killed; without them the container's own.

        Returns whether the container exists.
        """
        limit = "" if seconds is None else f"?t={seconds}"
        return self._ask("POST", f"/containers/{quote(name)}/stop{limit}") is not None

    def start(self, name: str) -> bool:
        """Start a container unless it runs; return whether it exists."""
        return self._ask("POST", f"/containers/{quote(name)}/start") is not None

    def create(self, name: str, content: Mapping[str, Any]) -> None:
        """Create a container. Raises DockerError, also if there is one of that name, or no such image."""
        if self._ask("POST", f"/containers/create?name={quote(name)}", content) is None:
            raise DockerError(f"there is no image {content.get('Image')}")

    def remove(self, name: str) -> bool:
        """Remove a container, also one that runs; return whether it existed."""
        return self._ask("DELETE", f"/containers/{quote(name)}?force=true") is not None

    def events(self, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield what happens to containers that have all the labels, until the engine ends.

        Raises DockerError.
        """
        filters = {
            "type": ["container"],
            "label": [f"{key}={value}" for key, value in labels.items()],
        }
        path = "/events?" + urlencode({"filters": json.dumps(filters)})
        # Nothing may happen for long.
        with answering("GET", path, socket_path=self._path, timeout=None) as answer:
            for line in answer:
                yield json.loads(line)

    def containers(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return all containers, running or not, that have all the labels."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        listed: list[dict[str, Any]] = json.loads(
            self._get("/containers/json", all=1, filters=json.dumps(filters)) or b"[]"
        )
        return listed

    def image_id(self, reference: str) -> str | None:
        """Return the ID of the image with this name on this server, or None."""
        body = self._get(f"/images/{quote(reference)}/json")
        return None if body is None else json.loads(body)["Id"]

    def logs(
        self, name: str, tail: int, since: str | None = None, until: str | None = None, early: int = 0
    ) -> str:
        """Return the last log lines of a container, from both of its streams.

        name: name of the container.
        tail: maximum number of lines.
        since, until: only lines that were written between these times, in the engine's format.
        early: seconds by which ``since`` is moved back.
        """
        query: dict[str, object] = {"stdout": 1, "stderr": 1, "tail": tail}
        for key, when, before in (("since", since, early), ("until", until, 0)):
            if when and when != NO_TIME:
                query[key] = unix_time(when, before)
        return demultiplex(self._get(f"/containers/{quote(name)}/logs", **query) or b"")


def unix_time(when: str, before: int = 0) -> str:
    """Convert a time like ``2026-01-02T03:04:05.678901234Z`` for a query: ``1767323045.678901234``.

    when: the time, in the engine's format.
    before: whole seconds to subtract.
    """
    date, _dot, fraction = when.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(date[:19], "%Y-%m-%dT%H:%M:%S")) - before
    return f"{seconds}.{(fraction or '0')[:9].ljust(9, '0')}"


def demultiplex(stream: bytes) -> str:
    """Return the text of a log stream. Each frame has a header of 8 bytes: stream, 3 × 0, length."""
    payloads: list[bytes] = []
    at = 0
    while at + 8 <= len(stream):
        (length,) = struct.unpack(">I", stream[at + 4 : at + 8])
        payloads.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(payloads).decode("utf-8", errors="replace")
