# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""An archive that servers hand on to each other."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import peers
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import store as image_store
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.peers import (
    NoSource,
    Peer,
    PeerServer,
    Untrusted,
    fetch_from_peers,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.store import (
    DiskFull,
    Store,
    chunk_hashes,
    open_nameless,
    open_partial,
)

CHUNK = 1000
CONTENT = bytes(os.urandom(10 * CHUNK + 123))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(image_store, "CHUNK", CHUNK)
    monkeypatch.setattr(image_store, "GIVEN_BACK", 2 * CHUNK)
    monkeypatch.setattr(peers, "HOLD", 0.05)
    monkeypatch.setattr(peers, "REST", 0.05)


def fill(store: Store, content: bytes = CONTENT, finish: bool = True) -> Store:
    for at in range(store.size, len(content), CHUNK):
        store.append(content[at : at + CHUNK])
    if finish:
        store.finish()
    return store


def part(path: Path, content: bytes = b"") -> Store:
    """A store as a job opens it, on what lies there."""
    path.write_bytes(content)
    handle = open_partial(path)
    return Store(handle, [digest for digest, length in chunk_hashes(handle) if length == CHUNK])


@pytest.fixture
def serve():
    servers = []

    def start(store: Store, token: str = "secret") -> tuple[PeerServer, tuple[str, int]]:
        server = PeerServer("127.0.0.1", store, token)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server, server.server_address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_store_gives_back_what_it_got(tmp_path):
    store = fill(Store(open_nameless(tmp_path)))
    assert b"".join(store.content()) == CONTENT
    assert store.hashes[3] == hashlib.sha256(CONTENT[3 * CHUNK : 4 * CHUNK]).hexdigest()
    assert store.total == len(CONTENT)
    assert list(tmp_path.iterdir()) == [], "a nameless file leaves nothing behind"


def test_all_of_it_comes_and_the_source_counts_it(tmp_path, serve):
    server, (address, port) = serve(fill(part(tmp_path / "a")))
    store = part(tmp_path / "b")
    fetch_from_peers(store, "secret", lambda: [("one", address, port)], lambda name: None, 5)
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert len(CONTENT) < server.served < len(CONTENT) + 2000


def test_no_name_server_is_asked(tmp_path, serve, monkeypatch):
    """Where there is none that answers, that takes half a minute for each server."""
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("a name server was asked"))
    server, (_address, port) = serve(fill(part(tmp_path / "a")))
    assert (server.server_name, server.server_port) == ("127.0.0.1", port)


@pytest.mark.parametrize("kept", [0, 1, 6, 10], ids=lambda kept: f"{kept} chunks")
def test_what_is_there_is_not_taken_again(tmp_path, serve, kept):
    server, (address, port) = serve(fill(part(tmp_path / "a")))
    store = part(tmp_path / "b", CONTENT[: kept * CHUNK + kept])
    fetch_from_peers(store, "secret", lambda: [("one", address, port)], lambda name: None, 5)
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert store.adopted == kept * CHUNK
    assert server.served < len(CONTENT) - kept * CHUNK + 2000


def test_a_hash_shows_when_its_chunk_can_be_read(tmp_path):
    """Others ask for a chunk as soon as they see its hash."""
    readable = []

    class Hashes(list):
        def append(self, digest: str) -> None:
            readable.append(hashlib.sha256(store.read(len(self))).hexdigest() == digest)
            super().append(digest)

    store = part(tmp_path / "a")
    store.hashes = Hashes()
    fill(store)
    assert readable == [True] * 11


def test_what_is_there_of_something_else_is_taken_anew(tmp_path, serve):
    _server, (address, port) = serve(fill(part(tmp_path / "a")))
    other = CONTENT[: 2 * CHUNK] + bytes(9 * CHUNK)
    store = part(tmp_path / "b", other)
    fetch_from_peers(store, "secret", lambda: [("one", address, port)], lambda name: None, 5)
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert store.adopted == 2 * CHUNK


def test_a_chain_hands_on_while_it_comes_in(tmp_path, serve):
    first, second, third = (part(tmp_path / name) for name in "abc")
    source = serve(first)[1]
    middle = serve(second)[1]
    runs = [
        threading.Thread(
            target=fetch_from_peers,
            args=(second, "secret", lambda: [("first", *source)], lambda name: None, 10),
        ),
        threading.Thread(
            target=fetch_from_peers,
            args=(third, "secret", lambda: [("second", *middle)], lambda name: None, 10),
        ),
    ]
    for run in runs:
        run.start()
    fill(first, CONTENT[: 4 * CHUNK], finish=False)
    third.news(3, 60)
    assert len(third.hashes) == 4
    assert not third.complete
    fill(first)
    for run in runs:
        run.join(60)
    assert (tmp_path / "c").read_bytes() == CONTENT


def test_when_a_source_has_gone_another_is_asked(tmp_path, serve):
    _server, there = serve(fill(part(tmp_path / "a")))
    came_from = []
    fetch_from_peers(
        part(tmp_path / "b"),
        "secret",
        lambda: [("gone", "127.0.0.1", 1), ("there", *there)],
        lambda name: came_from.append(name),
        5,
    )
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert set(came_from) == {"", "there"}


def test_when_nobody_has_more_the_reasons_are_told(tmp_path, serve):
    half = fill(part(tmp_path / "a"), CONTENT[: 5 * CHUNK], finish=False)
    _server, (address, port) = serve(half)
    store = part(tmp_path / "b")
    with pytest.raises(NoSource) as raised:
        fetch_from_peers(
            store,
            "secret",
            lambda: [("half", address, port), ("gone", "127.0.0.1", 1)],
            lambda name: None,
            0.3,
        )
    assert "refused" in raised.value.reasons["gone"]
    assert store.size == 5 * CHUNK, "what has come stays"


def test_time_without_a_source_is_not_time_without_news(tmp_path, serve):
    """The first server may hash what an earlier run left for longer, before it can be asked."""
    _server, (address, port) = serve(fill(part(tmp_path / "a")))
    known_from = time.monotonic() + 0.8
    fetch_from_peers(
        part(tmp_path / "b"),
        "secret",
        lambda: [("late", address, port)] if time.monotonic() > known_from else [],
        lambda name: None,
        0.1,
    )
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_without_the_token_nothing_is_given(tmp_path, serve):
    server, (address, port) = serve(fill(part(tmp_path / "a")))
    with pytest.raises(Untrusted, match="403"):
        Peer(address, port, "guess").ask("/chunk/0")
    assert server.served == 0


def test_an_answer_of_somebody_without_the_token_is_not_taken(tmp_path, serve, monkeypatch):
    server, (address, port) = serve(fill(part(tmp_path / "a")))
    monkeypatch.setattr(peers.PeerHandler, "do_GET", lambda self: self._reply(200, b"{}"))
    server.token = "another"
    with pytest.raises(Untrusted, match="not sealed"):
        Peer(address, port, "secret").ask("/have?from=0")


def test_a_source_that_began_anew_is_followed(tmp_path, serve):
    wrong = part(tmp_path / "a")
    fill(wrong, bytes(4 * CHUNK), finish=False)
    _server, (address, port) = serve(wrong)
    store = part(tmp_path / "b")
    run = threading.Thread(
        target=fetch_from_peers,
        args=(store, "secret", lambda: [("one", address, port)], lambda name: None, 10),
    )
    run.start()
    store.news(3, 60)
    assert store.size == 4 * CHUNK
    wrong.begin_anew(1, trust=False)
    fill(wrong)
    run.join(60)
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_a_full_disk_keeps_what_came_and_gets_some_room_back(tmp_path, monkeypatch):
    store = fill(part(tmp_path / "a"), CONTENT[: 6 * CHUNK], finish=False)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_store.os, "pwrite", full)
    with pytest.raises(DiskFull):
        store.append(CONTENT[6 * CHUNK : 7 * CHUNK])
    assert (tmp_path / "a").read_bytes() == CONTENT[: 4 * CHUNK]
