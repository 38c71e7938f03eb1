# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The temporary listener: it answers who knows the token and nobody else, and goes away."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _process
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import listener as h

HERE = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HERE, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@pytest.fixture
def listener() -> Iterator[h.Listener]:
    running, refused = h.start(HERE, free_ports(3), "prefill1", 30)
    assert running is not None
    assert refused == {}
    yield running
    h.stop(running.pid, running.started)
    os.waitpid(running.pid, 0)


def target(port: int, server: str = "prefill1") -> h.Target:
    return h.Target(server, HERE, port)


def test_it_greets_and_tells_the_time(listener: h.Listener) -> None:
    # More than one round: who has been greeted does not block the next.
    for _ in range(2):
        for trial in h.attempt_all(list(map(target, listener.ports)), 5):
            assert trial.problem is None
            assert trial.clock is not None
            difference, uncertainty = trial.clock
            assert abs(difference) <= uncertainty + 0.1


def test_a_guest_that_stays_disturbs_nobody(listener: h.Listener) -> None:
    with socket.create_connection((HERE, listener.ports[0])):
        assert h.attempt(target(listener.ports[0]), 5).problem is None


def test_another_server(listener: h.Listener) -> None:
    trial = h.attempt(target(listener.ports[0], "decode1"), 5)
    assert (trial.problem, trial.seen) == ("other", "prefill1 answers")


def test_it_ends_and_its_ports_are_free_at_once(listener: h.Listener) -> None:
    assert h.attempt(target(listener.ports[0]), 5).problem is None
    assert h.stop(listener.pid, listener.started)
    assert not h.stop(listener.pid, listener.started)
    assert h.attempt(target(listener.ports[0]), 5).problem == "refused"
    with socket.socket() as sock:
        # Without SO_REUSEADDR: nothing may linger.
        sock.bind((HERE, listener.ports[0]))


def test_nobody_else_is_ended() -> None:
    assert not h.stop(os.getpid(), (_process.start_time(os.getpid()) or 0) + 1)
    assert not h.stop(1, _process.start_time(1) or 0)


def test_it_ends_by_itself() -> None:
    running, _refused = h.start(HERE, free_ports(1), "prefill1", 0.1)
    assert running is not None
    os.waitpid(running.pid, 0)
    assert _process.start_time(running.pid) is None


def listening_for(*clients: str) -> h.Listener:
    running, _refused = h.start(HERE, free_ports(2), "prefill1", 30, clients)
    assert running is not None
    return running


def test_it_ends_when_all_have_signed_off() -> None:
    running = listening_for("prefill2", "decode1")
    assert h.sign_off(target(running.ports[0]), "prefill2", 5)
    # Who comes late is still greeted, and a stranger who signs off does not count.
    assert h.sign_off(target(running.ports[0]), "decode7", 5)
    assert h.attempt(target(running.ports[1]), 5).problem is None
    assert not _process.gone_within(running.pid, running.started, 0.05)
    assert h.sign_off(target(running.ports[1]), "decode1", 5)
    os.waitpid(running.pid, 0)
    for port in running.ports:
        with socket.socket() as sock:
            # Without SO_REUSEADDR: nothing may linger.
            sock.bind((HERE, port))


def test_signing_off_from_a_listener_that_is_gone_fails() -> None:
    running = listening_for("decode1")
    h.stop(running.pid, running.started)
    os.waitpid(running.pid, 0)
    assert not h.sign_off(target(running.ports[0]), "decode1", 1)
    assert _process.gone_within(running.pid, running.started, 0)


def test_taken_ports_are_reported() -> None:
    with socket.create_server((HERE, 0)) as other:
        port = other.getsockname()[1]
        running, refused = h.start(HERE, [port], "prefill1", 1)
    assert running is None
    assert list(refused) == [port]


def test_something_else_answers() -> None:
    with socket.create_server((HERE, 0)) as other:
        port = other.getsockname()[1]
        begin = time.monotonic()
        assert h.attempt(target(port), 0.3).problem == "timeout"
        assert time.monotonic() - begin < 20


def test_no_way() -> None:
    assert h.attempt(h.Target("x", "255.255.255.255", 1), 0.3).problem == "error"
    assert h.attempt_all([], 1) == []


TOKEN = "of this run"


@pytest.fixture
def secret() -> Iterator[h.Listener]:
    """A listener that waits for decode1 alone."""
    running, _refused = h.start(HERE, free_ports(2), "prefill1", 30, ["decode1"], TOKEN)
    assert running is not None
    yield running
    h.stop(running.pid, running.started)
    os.waitpid(running.pid, 0)


def received(connection: socket.socket) -> bytes:
    """What a listener sends until it closes."""
    data = b""
    try:
        while chunk := connection.recv(512):
            data += chunk
    except ConnectionResetError:
        pass
    return data


STRANGE = [
    b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"ascend.pd_rollout hello\n",
    b"ascend.pd_rollout hello 00 00\n",
    b"ascend.pd_rollout done decode1\n",
    b"ascend.pd_rollout done decode1 00\n",
    f"ascend.pd_rollout hello 00 {h.proof('', 'hello', '00')}\n".encode(),
    "ascend.pd_rollout hello 00 \u00e9\n".encode(),
    b"\xff\xfe\xfd\n",
    b"x" * 4096,
]


@pytest.mark.parametrize("message", STRANGE)
def test_strangers_hear_nothing_and_end_nothing(secret: h.Listener, message: bytes) -> None:
    with socket.create_connection((HERE, secret.ports[0]), 10) as connection:
        connection.sendall(message)
        assert received(connection) == b""
    assert h.attempt(target(secret.ports[0]), 10, TOKEN).problem is None
    assert _process.start_time(secret.pid) == secret.started


def test_a_stranger_who_waits_hears_nothing(secret: h.Listener) -> None:
    with socket.create_connection((HERE, secret.ports[0]), 10) as connection:
        # The listener has seen the client: one that came after it has been answered.
        assert h.attempt(target(secret.ports[1]), 10, TOKEN).problem is None
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)


@pytest.mark.parametrize("token", ["", "of another run"])
def test_who_has_another_token_is_not_answered(secret: h.Listener, token: str) -> None:
    trial = h.attempt(target(secret.ports[0]), 10, token)
    assert (trial.problem, trial.clock) == ("other", None)
    assert not h.sign_off(target(secret.ports[0]), "decode1", 10, token)
    assert _process.start_time(secret.pid) == secret.started
    assert h.sign_off(target(secret.ports[0]), "decode1", 10, TOKEN)
    assert _process.gone_within(secret.pid, secret.started, 60)


def test_what_was_heard_on_the_way_is_worth_nothing(secret: h.Listener) -> None:
    hello = f"ascend.pd_rollout hello 77 {h.proof(TOKEN, 'hello', '77')}\n".encode()
    with socket.create_connection((HERE, secret.ports[0]), 10) as connection:
        connection.sendall(hello)
        words = connection.recv(512).decode().split()
        assert words[1] == "prefill1"
        farewell = f"ascend.pd_rollout done decode1 {h.proof(TOKEN, 'done', words[3], 'decode1')}\n".encode()
    for message in (hello, hello + farewell, farewell):
        with socket.create_connection((HERE, secret.ports[0]), 10) as connection:
            connection.sendall(message)
            assert received(connection) == b""
    assert _process.start_time(secret.pid) == secret.started


def test_who_plays_the_listener_is_seen_through() -> None:
    with socket.create_server((HERE, 0)) as other:

        def play() -> None:
            guest, _address = other.accept()
            with guest:
                guest.recv(512)
                guest.sendall(f"ascend.pd_rollout prefill1 {time.time()} 00 {'0' * 64}\n".encode())

        player = threading.Thread(target=play)
        player.start()
        trial = h.attempt(target(other.getsockname()[1]), 10, TOKEN)
        player.join()
    assert trial.problem == "other"


def test_words_in_pieces_are_put_together(secret: h.Listener) -> None:
    hello = f"ascend.pd_rollout hello 78 {h.proof(TOKEN, 'hello', '78')}\n".encode()
    with socket.create_connection((HERE, secret.ports[0]), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(hello)):
            connection.sendall(hello[at : at + 1])
        assert connection.recv(512).startswith(b"ascend.pd_rollout prefill1 ")


def test_a_crowd_of_silent_strangers_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h, "_MAX_CONNECTIONS", 4)
    running, _refused = h.start(HERE, free_ports(1), "prefill1", 30, ["decode1"], TOKEN)
    assert running is not None
    crowd = [socket.create_connection((HERE, running.ports[0]), 10) for _ in range(20)]
    assert h.attempt(target(running.ports[0]), 10, TOKEN).problem is None
    assert h.sign_off(target(running.ports[0]), "decode1", 10, TOKEN)
    os.waitpid(running.pid, 0)
    for connection in crowd:
        connection.close()


def test_a_time_out_is_one_on_every_python() -> None:
    # Until Python 3.9 socket.timeout is no TimeoutError.
    assert socket.timeout in h.TIMED_OUT
    assert TimeoutError in h.TIMED_OUT
