# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Messages with an HMAC, over real pairs of sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import frames
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.frames import Frames, WrongSecret

Found = TypeVar("Found")
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for link in (ours, theirs):
            link.settimeout(60)
        yield ours, theirs


def beside(work: Callable[[], Found]) -> Future[Found]:
    """Do something in a thread; its result raises what it has raised."""
    found: Future[Found] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found


def greeted(pair: Pair, secret: bytes = b"one", other: bytes = b"one") -> tuple[Frames, Frames]:
    ours, theirs = pair
    server = beside(lambda: Frames(ours, secret, "server", "server1"))
    client = Frames(theirs, other, "client", "server2")
    return server.result(), client


class Stranger:
    """The client's side, byte by byte."""

    def __init__(self, link: socket.socket) -> None:
        self.link, self.reader = link, link.makefile("rb")

    def greet(self, nonce: str = "0" * 32) -> None:
        self.reader.readline()
        self.send(f"{nonce}\n".encode())

    def send(self, line: bytes) -> None:
        self.link.sendall(line)


def test_both_sides_know_each_other_and_hear_what_is_said(pair: Pair) -> None:
    server, client = greeted(pair)
    assert (server.other, client.other) == ("server2", "server1")
    for number in range(3):
        server.send({"number": number, "text": "→"})
        client.send({})
        assert client.receive() == {"number": number, "text": "→"}
        assert server.receive() == {}


def test_another_secret_is_refused_by_both_sides(pair: Pair) -> None:
    ours, theirs = pair
    server = beside(lambda: Frames(ours, b"one", "server", "server1"))
    with pytest.raises(WrongSecret, match="another secret"):
        Frames(theirs, b"two", "client", "server2")
    with pytest.raises(WrongSecret, match="another secret"):
        server.result()


def test_the_end_is_an_error(pair: Pair) -> None:
    server, _client = greeted(pair)
    pair[1].shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        server.receive()


def test_silence_is_an_error(pair: Pair) -> None:
    server, _client = greeted(pair)
    pair[0].settimeout(0.01)
    with pytest.raises(OSError, match="timed out"):
        server.receive()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line + line,
        lambda line: line.replace(b"restart", b"restarT") + line,
        lambda line: line[1:],
        lambda line: b"\xff\xfe\n" + line,
        lambda line: "ü {}\n".encode(),
        lambda line: b"\n",
        lambda line: b"x" * (frames.LIMIT + 10) + b"\n",
    ],
    ids=["replayed", "tampered", "cut", "no text", "no ASCII", "empty", "too long"],
)
def test_a_line_that_the_other_side_has_not_sent_now_is_refused(
    pair: Pair, change: Callable[[bytes], bytes]
) -> None:
    server, client = greeted(pair)
    ours, theirs = socket.socketpair()
    # What the client would send goes through somebody's hands.
    client._link = ours
    client.send({"ask": "restart"})
    with ours, theirs:
        line = theirs.makefile("rb").readline()

    def receive() -> None:
        for _ in range(2):
            assert server.receive() == {"ask": "restart"}

    received = beside(receive)
    pair[1].sendall(change(line))
    with pytest.raises(OSError):
        received.result()


def test_a_line_of_another_connection_is_refused(pair: Pair) -> None:
    recorded = []
    for at in range(2):
        ours, theirs = socket.socketpair() if at else pair
        server = beside(lambda link=ours: Frames(link, b"one", "server", "server1"))
        if not at:
            client = Frames(theirs, b"one", "client", "server2")
            recorded = [client._mac("client", 0, json.dumps({"name": "server2"}))]
            server.result()
            continue
        stranger = Stranger(theirs)
        stranger.greet()
        stranger.send(f'{recorded[0]} {{"name": "server2"}}\n'.encode())
        with ours, theirs, pytest.raises(WrongSecret):
            server.result()


def test_a_server_takes_no_words_of_its_own(pair: Pair) -> None:
    """Whoever sends back what the server has sent has no secret."""
    server = beside(lambda: Frames(pair[0], b"one", "server", "server1"))
    stranger = Stranger(pair[1])
    nonce = stranger.reader.readline()
    stranger.send(nonce)
    stranger.send(stranger.reader.readline())
    with pytest.raises(WrongSecret):
        server.result()


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\n", b"\xff" * 63 + b"\n", b""])
def test_what_is_no_guard_is_told_from_one(pair: Pair, line: bytes) -> None:
    server = beside(lambda: Frames(pair[0], b"one", "server", "server1"))
    pair[1].sendall(line)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(WrongSecret, match="no guard"):
        server.result()


def test_a_message_is_a_mapping(pair: Pair) -> None:
    server, client = greeted(pair)
    client.send([1])  # type: ignore[arg-type]
    with pytest.raises(WrongSecret, match="no mapping"):
        server.receive()
