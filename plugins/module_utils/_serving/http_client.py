# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of smoke test and canary: verifies TLS and sends a key, as client libraries do; uses no
proxy."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from .engine_answers import Client

# A certificate of pd_front_ca may be an intermediate one, or that of the server itself. Newer Pythons have
# this flag of OpenSSL as ssl.VERIFY_X509_PARTIAL_CHAIN, and set it.
PARTIAL_CHAIN = 0x80000


class _Connection(http.client.HTTPSConnection):
    """Connects to the address of the URL, and verifies the certificate for a name."""

    def __init__(self, host: str, tls: ssl.SSLContext, name: str | None, **more: Any) -> None:
        super().__init__(host, **more)
        self._tls, self._name = tls, name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, tls: ssl.SSLContext, name: str | None) -> None:
        super().__init__()
        self._tls, self._name = tls, name

    def https_open(self, req: urllib.request.Request) -> Any:
        def connection(host: str, **more: Any) -> _Connection:
            return _Connection(host, self._tls, self._name, **more)

        return self.do_open(connection, req)


def verifying(ca: str | None = None, name: str | None = None) -> ssl.SSLContext:
    """Return the settings with which a client verifies a server.

    ca: certificates of authorities in PEM; without any, those of the operating system.
    name: the name or address to verify; without one, only the authority.
    """
    tls = ssl.create_default_context(cadata=ca or None)
    tls.verify_flags |= PARTIAL_CHAIN
    tls.check_hostname = bool(name)
    return tls


class Http(Client):
    """HTTP requests to engines, routers and front, never through an HTTP proxy of the environment.

    timeout: seconds of each request.
    key: sent as the API key.
    tls: how https:// is verified; by default as a client does, for the host of the URL.
    name: the name to verify instead.
    """

    def __init__(
        self,
        timeout: float,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if tls is not None:
            handlers.append(_Https(tls, name))
        self._open = urllib.request.build_opener(*handlers).open
        self._timeout = timeout
        self._key = key

    def get(self, url: str) -> str:
        return self._send(urllib.request.Request(url))[0]

    def post(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[str, float, float]:
        """Return (text, seconds until the first byte, seconds in total). Raises OSError, HTTPException.

        headers: sent beside those for the content and the key.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._send(urllib.request.Request(url, json.dumps(body).encode(), sent))

    def _send(self, request: urllib.request.Request) -> tuple[str, float, float]:
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        begin = time.monotonic()
        with self._open(request, timeout=self._timeout) as response:
            head = response.read(1)
            first = time.monotonic() - begin
            text = (head + response.read()).decode("utf-8", errors="replace")
        return text, first, time.monotonic() - begin
