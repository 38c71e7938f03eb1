# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Servers hand an archive on to each other while it still comes in.

A server prefers the one before it in a chain, and falls back on any other that has what it needs: so one
uplink and n servers take about as long as one. Requests and answers carry an HMAC with the run's token, which
itself never travels: nobody else can read, and nothing can be slipped in.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import http.client
import json
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .store import Store

ASK = "X-Rollout-Ask"
SEAL = "X-Rollout-Seal"
# Seconds: that a question for news is held; of a silent connection; before a failed source is tried again.
HOLD = 2.0
SILENT = 20.0
REST = 2.0


class NoSource(Exception):
    """Nobody has had anything new for a while. The reason by source is in `reasons`."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons


class Untrusted(Exception):
    """An answer that the token does not cover, or other bytes than their hash says."""


def seal(token: str, *texts: str) -> str:
    """What proves that somebody with the token said this."""
    return hmac.new(token.encode(), "\n".join(texts).encode(), hashlib.sha256).hexdigest()


class PeerServer(ThreadingHTTPServer):
    """Serves a store's chunks to who has the token."""

    daemon_threads = True

    def __init__(self, address: str, store: Store, token: str) -> None:
        super().__init__((address, 0), PeerHandler)
        self.store, self.token = store, token
        self.served = 0
        self.asked_at = time.monotonic()
        self._counting = threading.Lock()

    def server_bind(self) -> None:
        """As HTTPServer does, but ask no name server for a name that nobody needs: it may be far, or dead."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def count(self, size: int) -> None:
        """Note bytes that went out, and that somebody needs this server."""
        with self._counting:
            self.served += size
            self.asked_at = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is its own affair."""


class PeerHandler(BaseHTTPRequestHandler):
    server: PeerServer
    protocol_version = "HTTP/1.1"
    timeout = SILENT

    def do_GET(self) -> None:
        if not hmac.compare_digest(self.headers.get(ASK, ""), seal(self.server.token, self.path)):
            self._reply(403, b"")
            return
        store, url = self.server.store, urlsplit(self.path)
        if url.path == "/have":
            known = int(parse_qs(url.query)["from"][0])
            store.news(known, HOLD)
            answer = {
                # In this order: complete tells that the hashes read after it are all.
                "complete": store.complete,
                "hashes": store.hashes[known:],
                "epoch": store.epoch,
                "total": store.total,
                "unpacked": store.unpacked,
                "digest": store.digest,
            }
            self._reply(200, json.dumps(answer).encode())
            return
        number = int(url.path.rpartition("/")[2])
        if url.path.startswith("/chunk/") and number < len(store.hashes):
            self._reply(200, store.read(number))
        else:
            self._reply(404, b"")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 200:
            self.send_header(SEAL, seal(self.server.token, self.path, hashlib.sha256(body).hexdigest()))
        self.end_headers()
        self.wfile.write(body)
        if status == 200:
            self.server.count(len(body))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: nobody would read it."""


class Peer:
    """The other side: one connection to one server."""

    def __init__(self, address: str, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection(address, port, timeout=SILENT)
        self._token = token

    def ask(self, path: str) -> bytes:
        """The answer's body; raises OSError, HTTPException or Untrusted."""
        try:
            self._connection.request("GET", path, headers={ASK: seal(self._token, path)})
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if answer.status != 200:
            raise Untrusted(f"it answers {answer.status}")
        given = answer.headers.get(SEAL, "")
        if not hmac.compare_digest(given, seal(self._token, path, hashlib.sha256(body).hexdigest())):
            raise Untrusted("its answer is not sealed with this rollout's token")
        return body

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()


def fetch_from_peers(
    store: Store,
    token: str,
    sources: Callable[[], Sequence[tuple[str, str, int]]],
    note: Callable[[str], None],
    stall_timeout: float,
) -> None:
    """Fill a store from (name, address, port), the first that has something new. Raises NoSource, DiskFull.

    `note` hears where bytes come from, before the first of them too; what it raises ends the transfer.
    `stall_timeout`: seconds without news, while there is a source.
    """
    peers: dict[tuple[str, int], Peer] = {}
    rest: dict[str, float] = {}
    reasons: dict[str, str] = {}
    last = time.monotonic()
    try:
        while not store.complete:
            gained = False
            known = sources()
            if not known:
                # The first of them may still look through what an earlier run left there.
                last = time.monotonic()
            for name, address, port in known:
                note("")
                if rest.get(name, 0.0) > time.monotonic():
                    continue
                peer = peers.setdefault((address, port), Peer(address, port, token))
                before = len(store.hashes)
                try:
                    _fetch_news(store, peer, functools.partial(note, name))
                except (OSError, http.client.HTTPException, Untrusted, ValueError, KeyError) as error:
                    reasons[name] = str(error) or type(error).__name__
                    rest[name] = time.monotonic() + REST
                else:
                    reasons[name] = f"has no more than {before} chunks itself"
                if len(store.hashes) > before or store.complete:
                    gained, last = True, time.monotonic()
                    break
            if not gained:
                if time.monotonic() - last > stall_timeout:
                    raise NoSource(reasons)
                note("")
                time.sleep(0.2)
    finally:
        for peer in peers.values():
            peer.close()


def _fetch_news(store: Store, peer: Peer, note: Callable[[], None]) -> None:
    """Fetch all chunks that a peer has and the store has not."""
    known = len(store.hashes)
    answer = json.loads(peer.ask(f"/have?from={known}"))
    if answer["epoch"] < store.epoch:
        return
    if answer["epoch"] > store.epoch:
        store.begin_anew(answer["epoch"], trust=True)
        return
    store.total = answer["total"] or store.total
    store.unpacked = answer["unpacked"] or store.unpacked
    store.digest = answer["digest"] or store.digest
    note()
    for number, expected in enumerate(answer["hashes"], known):
        if not store.adopt(expected):
            data = peer.ask(f"/chunk/{number}")
            if hashlib.sha256(data).hexdigest() != expected:
                raise Untrusted(f"chunk {number} is not what it told")
            store.append(data)
        note()
    if answer["complete"] and len(store.hashes) == known + len(answer["hashes"]):
        store.finish()
