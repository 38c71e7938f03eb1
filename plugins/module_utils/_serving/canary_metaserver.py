# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The small server that layerwise decoders tell where their blocks are, in the place of upstream's proxy.

A@v0.13.0:examples/disaggregated_prefill_v1/load_balance_proxy_layerwise_server_example.py:543-579.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/v1/metaserver"
# A call lists the blocks of one short prompt.
LARGEST_BYTES = 1 << 20
# Seconds for a decoder to send its call.
CALL_SECONDS = 30.0
# Seconds until it has stopped to listen.
CLOSE_SECONDS = 0.05


class Call:
    """A call that is awaited: ``prefill`` does what it asks for, once; ``came`` is whether it has come."""

    def __init__(self, prefill: Callable[[Mapping[str, Any]], None]) -> None:
        self.prefill, self.came = prefill, False


class Metaserver:
    """Listens until it is closed, and takes calls about awaited requests only.

    host, port: where it listens; port 0 is any free one. Raises OSError.
    """

    def __init__(self, host: str, port: int) -> None:
        self._awaited: dict[str, Call] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}{PATH}"
        threading.Thread(target=self._server.serve_forever, args=(CLOSE_SECONDS,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def awaiting(self, request_id: str, call: Call) -> Iterator[None]:
        """Take the call about a request in the meantime."""
        with self._lock:
            self._awaited[request_id] = call
        try:
            yield
        finally:
            with self._lock:
                del self._awaited[request_id]

    def take(self, body: bytes) -> bool:
        """Do what a call asks for; return whether it is about an awaited request, for the first time."""
        try:
            told = json.loads(body)
            name = str(told["request_id"])
        except (ValueError, KeyError, TypeError):
            return False
        with self._lock:
            # The engine adds to the id: cmpl- in front, an index and later releases more behind.
            call = next((call for known, call in self._awaited.items() if known in name), None)
            if call is None or call.came:
                return False
            call.came = True
        call.prefill(told)
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            timeout = CALL_SECONDS

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length") or ""
                known = length.isdigit() and int(length) <= LARGEST_BYTES and self.path == PATH
                # Answered after the prefiller has answered, as the proxy does it.
                status = 200 if known and take(self.rfile.read(int(length))) else 404
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "4")
                    self.end_headers()
                    self.wfile.write(b"null")

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: what is written is the module's result."""

        return Handler
