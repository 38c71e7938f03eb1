# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads containers from the Docker Engine's socket with the standard library alone.

C(community.docker) declares its own client private to itself from 5.0 on, and its import costs more than
a whole poll here: so this is a client for the few calls that watching engines needs.
"""

from __future__ import annotations

import calendar
import http.client
import json
import socket
import struct
import time
from urllib.parse import quote, urlencode

DEFAULT_SOCKET = "/var/run/docker.sock"
# A container that was never started or has not ended carries this instead of a time.
NO_TIME = "0001-01-01T00:00:00Z"


class DockerError(Exception):
    """The engine does not answer, or answers with an error."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerApi:
    """The Docker Engine behind C(path), a UNIX socket; C(timeout) in seconds holds for each call.

    It is long, as C(community.docker)'s is: an engine that starts containers on a busy server answers late.
    """

    def __init__(self, path=DEFAULT_SOCKET, timeout=60):
        self._path = path
        self._timeout = timeout

    def _get(self, path, **query):
        return self._ask("GET", path + ("?" + urlencode(query) if query else ""))

    def _ask(self, method, path):
        connection = UnixConnection(self._path, self._timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"no answer from the Docker Engine at {self._path}: {error}") from error
        finally:
            connection.close()
        if response.status == 404:
            return None
        if response.status >= 400:
            raise DockerError(f"the Docker Engine answers {response.status} to {path}: {body[:200]!r}")
        return body

    def inspect(self, name):
        """What C(docker inspect) shows of a container, or None when there is none."""
        body = self._get(f"/containers/{quote(name)}/json")
        return None if body is None else json.loads(body)

    def stop(self, name):
        """Stop a container as C(docker stop) does: it is not started again, whatever its restart policy.

        Whether there is one.
        """
        return self._ask("POST", f"/containers/{quote(name)}/stop") is not None

    def containers(self, labels):
        """Every container, running or not, that carries all C(labels) (a mapping)."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        return json.loads(self._get("/containers/json", all=1, filters=json.dumps(filters)) or b"[]")

    def image_id(self, reference):
        """The identity that an image reference has on this server now, or None."""
        body = self._get(f"/images/{quote(reference)}/json")
        return None if body is None else json.loads(body)["Id"]

    def logs(self, name, tail, since=None, until=None, early=0):
        """The last C(tail) lines of both streams, optionally between two of the engine's own times.

        What was said in the C(early) seconds before C(since) counts too.
        """
        query = {"stdout": 1, "stderr": 1, "tail": tail}
        for key, when, before in (("since", since, early), ("until", until, 0)):
            if when and when != NO_TIME:
                query[key] = unix_time(when, before)
        return demultiplex(self._get(f"/containers/{quote(name)}/logs", **query) or b"")


def unix_time(when, before=0):
    """C(2026-01-02T03:04:05.678901234Z) as the engine's queries take it: C(1767323045.678901234).

    C(before): whole seconds earlier.
    """
    date, _dot, fraction = when.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(date[:19], "%Y-%m-%dT%H:%M:%S")) - before
    return f"{seconds}.{(fraction or '0')[:9].ljust(9, '0')}"


def demultiplex(stream):
    """The text of a log stream whose frames carry 8 bytes of head: stream, 3 × 0, length."""
    parts, at = [], 0
    while at + 8 <= len(stream):
        (length,) = struct.unpack(">I", stream[at + 4 : at + 8])
        parts.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts).decode("utf-8", errors="replace")
