# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""From outside, requests with a key to the paths that are served reach the routers, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
import ssl

import pytest
from conftest import ALICE
from load import ANSWER_TIMEOUT, Connection

BODY = json.dumps({"model": "deepseek_v3", "prompt": "a b c", "max_tokens": 2})
KEY = f"Authorization: Bearer {ALICE}\r\n"
MODELS = "GET /v1/models HTTP/1.1\r\nHost: models.example\r\n"
COMPLETION = "POST /v1/completions HTTP/1.1\r\nHost: models.example\r\nContent-Type: application/json\r\n"
# What somebody without a key would like to have done.
SMUGGLED = f"{COMPLETION}Content-Length: {len(BODY)}\r\n\r\n{BODY}"
LAST = "GET /health HTTP/1.1\r\nHost: models.example\r\nConnection: close\r\n\r\n"


def connect(front, address=None):
    """A connection to a front, by TLS."""
    link = socket.create_connection((address or front.addresses[0], front.port), timeout=ANSWER_TIMEOUT)
    return front.context().wrap_socket(link, server_hostname=front.name)


def told(link) -> bytes:
    """Everything that comes until the front closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while part := link.recv(65536):
            parts.append(part)
    return b"".join(parts)


def statuses(said: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)]


def exchange(front, text: str) -> list[int]:
    """The statuses of all answers to what is sent on one connection."""
    with connect(front) as link:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            link.sendall(text.encode("latin-1"))
        return statuses(told(link))


@pytest.fixture
def routed(server):
    """How many requests the router of the first server has had, by its own count; and its engines."""

    def count() -> tuple[int, list[str]]:
        urls = "http://127.0.0.1:8055/metrics http://127.0.0.1:8005/workers http://127.0.0.1:8006/workers"
        # One of the two has no router now.
        told = server("server1").run(f"curl -sS --noproxy '*' {urls}").stdout
        requests = re.findall(r"^vllm_router_pd_requests_total\{.*\} (\d+)", told, re.MULTILINE)
        assert requests, told
        return sum(map(int, requests)), sorted(re.findall(r'"url":"([^"]+)"', told))

    return count


TARGETS = [
    "/",
    "/instances/add",
    "/instances/remove",
    "/workers",
    "/add_worker?url=http://192.0.2.1",
    "/remove_worker?url=http://192.0.2.1",
    "/metrics",
    "/reset_prefix_cache",
    "/v1",
    "/v1/completions/",
    "/v1/../workers",
    "/v1/completions/../../workers",
    "/v1/completions/..%2f..%2fworkers",
    "/v1/completions%2f..%2f..%2fworkers",
    "/v1/completions;/../../workers",
    "//workers",
    "//v1/completions",
    "/v1//completions",
    "/./v1/completions",
    "/%2e/workers",
    "/%77orkers",
    "/v1/completions%00",
    "/V1/completions",
    "http://models.example/workers",
    "http://127.0.0.1:8005/workers",
    "https://127.0.0.1:8005/instances/add",
    "*",
    "workers",
    "/workers#/v1/completions",
]


def test_no_other_path_leads_to_a_router(front, routed):
    before = routed()
    opened = {}
    for target in TARGETS:
        for method in ("GET", "POST"):
            head = f"{method} {target} HTTP/1.1\r\nHost: models.example\r\n{KEY}Content-Length: 0\r\n"
            said = exchange(front, f"{head}Connection: close\r\n\r\n")
            if len(said) != 1 or said[0] not in (400, 404):
                opened[f"{method} {target}"] = said
    assert opened == {}
    assert routed() == before


# What is sent, and how many requests with a key are in it: more must not reach the router.
SMUGGLING = {
    "two lengths": (
        f"{COMPLETION}{KEY}Content-Length: 2\r\nContent-Length: {2 + len(SMUGGLED)}\r\n\r\n{{}}{SMUGGLED}"
    ),
    "a list of lengths": f"{COMPLETION}{KEY}Content-Length: 2, {2 + len(SMUGGLED)}\r\n\r\n{{}}{SMUGGLED}",
    "a length with a sign": f"{COMPLETION}{KEY}Content-Length: +2\r\n\r\n{{}}{SMUGGLED}",
    "chunked with a length that covers more": (
        f"{COMPLETION}{KEY}Content-Length: {5 + len(SMUGGLED)}\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"0\r\n\r\n{SMUGGLED}"
    ),
    "chunked with a length that covers less": (
        f"{COMPLETION}{KEY}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n{SMUGGLED}"
    ),
    **{
        f"obfuscated: {shown!r}": (
            f"{COMPLETION}{KEY}Content-Length: {5 + len(SMUGGLED)}\r\n{shown}\r\n\r\n0\r\n\r\n{SMUGGLED}"
        )
        for shown in (
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\x0bchunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer_Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            'Transfer-Encoding: "chunked"',
        )
    },
    "a chunk's size in another form": (
        f"{COMPLETION}{KEY}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{SMUGGLED}"
    ),
    "a chunk's size with an extension": (
        f"{COMPLETION}{KEY}Transfer-Encoding: chunked\r\n\r\n0;a=\nb\r\n\r\n{SMUGGLED}"
    ),
    "a chunk's size that is too large": (
        f"{COMPLETION}{KEY}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n\r\n{SMUGGLED}"
    ),
    "behind a request without a body": f"{MODELS}{KEY}\r\n{SMUGGLED}",
    "in the body of a GET": (f"{MODELS}{KEY}Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}"),
    "in a header": f"{COMPLETION}{KEY}X: y\n\n{SMUGGLED}\r\n\r\n",
    "behind one with a key": f"{COMPLETION}{KEY}Content-Length: {len(BODY)}\r\n\r\n{BODY}{SMUGGLED}",
    "an upgrade": (
        f"{COMPLETION}{KEY}Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        f"Content-Length: 0\r\n\r\n{SMUGGLED}"
    ),
    "HTTP/2 without having agreed on it": f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}",
    "HTTP/0.9": "GET /v1/models\r\n",
}


def test_no_request_is_smuggled_behind_another(front, routed):
    """At most the one with the key is answered; the other one is a part of it, or is refused."""
    requests, workers = routed()
    through = {}
    for name, text in SMUGGLING.items():
        said = exchange(front, text + LAST)
        now, same = routed()
        last = 1 if said[-1:] == [200] else 0
        if now - requests > 1 or said.count(200) - last > 1 or same != workers:
            through[name] = (said, now - requests, same)
        requests = now
    assert through == {}


def test_headers_of_the_front_cannot_be_forged(front, routed, server):
    """A key must be one, and a client's own request id is kept to a form."""
    requests, _ = routed()
    for header in (
        "Authorization: Bearer \r\n",
        "Authorization: Basic c2s6c2s=\r\n",
        f"Authorization: {ALICE}\r\n",
        f"X-Api-Key: {ALICE}\r\n",
        f"Authorization: Bearer {ALICE}x\r\n",
        "Authorization: Bearer wrong\r\n" + KEY,
    ):
        said = exchange(
            front, f"{COMPLETION}{header}Connection: close\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
        )
        assert said == [401], header
    assert routed()[0] == requests
    for forged in (
        'X-Request-Id: x key=root status=200" y\r\n',
        # A comma separates the values of a list: none of them is taken alone.
        "X-Request-Id: good, evil key=root\r\n",
        "X-Request-Id: good\r\nX-Request-Id: evil key=root\r\n",
        "X-Request-Id: evil key=root\r\nX-Request-Id: good\r\n",
    ):
        request = f"GET /v1/models HTTP/1.1\r\nHost: a\r\n{KEY}{forged}Connection: close\r\n\r\n"
        assert exchange(front, request) == [200], forged
    log = server("server1").check_output("journalctl -u pd-front --no-pager -o cat")
    assert "key=root" not in log
    assert "id=good" not in log


def test_a_slow_client_is_ended_and_disturbs_nobody(front, under_load):
    """Its headers come byte by byte; or its chunks do."""

    async def slow(beginning: str) -> int:
        reader, writer = await asyncio.open_connection(
            front.addresses[0], front.port, ssl=front.context(), server_hostname=front.name
        )
        writer.write(beginning.encode())
        rest = asyncio.ensure_future(reader.read())
        while not rest.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"1")
                await writer.drain()
            await asyncio.wait([rest], timeout=0.2)
        writer.close()
        return statuses(rest.result())[0]

    async def all_of_them() -> list[int]:
        beginnings = [f"{COMPLETION}X-Slow: ", f"{COMPLETION}{KEY}Transfer-Encoding: chunked\r\n\r\n1"]
        return await asyncio.wait_for(
            asyncio.gather(*(slow(beginning) for beginning in beginnings * 10)), ANSWER_TIMEOUT
        )

    with under_load():
        said = asyncio.run(all_of_them())
    assert said[::2] == [408] * 10
    assert set(said[1::2]) <= {400, 408}


def test_a_body_of_a_gigabyte_is_refused_at_once(front, routed, under_load):
    requests, _ = routed()
    size = 1 << 30
    with connect(front) as link:
        link.sendall(f"{COMPLETION}{KEY}Content-Length: {size}\r\n\r\n".encode())
        assert statuses(told(link)) == [413]
    sent = 0
    with connect(front) as link:
        link.sendall(f"{COMPLETION}{KEY}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        with contextlib.suppress(OSError):
            while sent < size:
                link.sendall(chunk)
                sent += 65536
        assert statuses(told(link)) in ([413], [])
    assert sent < size // 8
    assert routed()[0] == requests


def test_a_thousand_idle_connections_disturb_nobody(front, under_load):
    """A half of them has not even begun with TLS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(1000):
            if number % 2:
                held.enter_context(connect(front))
            else:
                held.enter_context(socket.create_connection((front.addresses[0], front.port)))
        with under_load() as load:
            load.answered(100)


def test_a_body_just_below_the_limit_is_answered(front):
    """With its length a megabyte; in chunks, 192 KiB."""

    async def ask() -> list[int]:
        connection = Connection(front)
        prompt = "a " * 1500
        body = {
            "model": front.model,
            "prompt": prompt,
            "max_tokens": 1,
            "user": "x" * (1_000_000 - len(prompt)),
        }
        found = [(await connection.ask("/v1/completions", body)).status]
        connection.close()
        return found

    assert asyncio.run(ask()) == [200]
    body = json.dumps({"model": front.model, "prompt": "a", "max_tokens": 1, "user": "x" * 190_000})
    text = f"{COMPLETION}{KEY}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert exchange(front, f"{text}{len(body):x}\r\n{body}\r\n0\r\n\r\n") == [200]
