"""Clients of the front under load: every answer is read to its end and compared.

A client keeps its connection, as client libraries do. It goes to the next front if one does not accept it,
as a client with several addresses does; a request that was sent is never sent again.
"""

from __future__ import annotations

import asyncio
import collections
import json
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Seconds for one answer; a lost one is counted, not waited for.
ANSWER_TIMEOUT = 60.0


@dataclass
class Front:
    """How clients reach the fronts."""

    addresses: Sequence[str]
    port: int
    name: str
    ca: str
    key: str
    model: str

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Broken(Exception):
    """The answer ended before its end."""


class Connection:
    """One kept connection of HTTP/1.1."""

    def __init__(self, front: Front, first: int = 0) -> None:
        """``first``: which of the addresses it tries first."""
        self.front, self.ssl = front, front.context()
        turn = first % len(front.addresses)
        self.addresses = [*front.addresses[turn:], *front.addresses[:turn]]
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connect to the first front that accepts a connection."""
        error: OSError | None = None
        for address in self.addresses:
            try:
                self.reader, self.writer = await asyncio.open_connection(
                    address, self.front.port, ssl=self.ssl, server_hostname=self.front.name
                )
                return
            except OSError as failed:
                error = failed
        raise error or OSError("no address")

    def turn(self) -> None:
        """Go to the next front from now on."""
        self.close()
        self.addresses = [*self.addresses[1:], self.addresses[0]]

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def ask(self, path: str, body: dict[str, Any], key: str | None = None) -> Answer:
        if self.writer is None or self.reader is None or self.reader.at_eof():
            self.close()
            await self.open()
        reader, writer = self.reader, self.writer
        assert reader is not None
        assert writer is not None
        data = json.dumps(body).encode()
        writer.write(
            (
                f"POST {path} HTTP/1.1\r\nHost: {self.front.name}\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {key or self.front.key}\r\nContent-Length: {len(data)}\r\n\r\n"
            ).encode()
            + data
        )
        await writer.drain()
        answer = await read(reader)
        if answer.headers.get("connection") == "close":
            self.close()
        return answer


async def read(reader: asyncio.StreamReader) -> Answer:
    """Read one answer to its end; raises Broken if it has none."""
    where = "before its first byte"
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        where = f"within an answer with status {head[0].split()[1]}"
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(await reader.readuntil(b"\r\n"), 16)
                body += (await reader.readexactly(size + 2))[:-2]
                if not size:
                    break
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise Broken(f"{where}: {error!r}") from error
    return Answer(int(head[0].split()[1]), headers, body)


@dataclass
class Result:
    """What became of the requests: right answers, and what each of the others was."""

    right: int = 0
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    # When each of the others was sent (time.time()).
    sent: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(self.wrong.values())


class Load:
    """Clients that send one request after the other, streamed and not, until they are told to stop.

    ``elsewhere``: when a front says 503, that it has sent the request to nobody, they ask the next front.
    ``pause``: seconds that each client waits before its next request.
    """

    def __init__(
        self,
        front: Front,
        clients: int = 8,
        tokens: int = 24,
        elsewhere: bool = False,
        pause: float = 0.0,
    ) -> None:
        self.front, self.clients, self.tokens, self.elsewhere = front, clients, tokens, elsewhere
        self.pause = pause
        self.result = Result()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def answered(self, more: int) -> None:
        """Wait until so many more requests have been answered rightly, or ANSWER_TIMEOUT is over."""
        wanted, deadline = self.result.right + more, time.monotonic() + ANSWER_TIMEOUT
        while self.result.right < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.result.right < wanted:
            raise AssertionError(f"no more answers: {self.result}")

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        # By twos, so that each front has both kinds.
        connection = Connection(self.front, number // 2)
        stream = number % 2 == 0
        expected = ""
        while not self._stop.is_set():
            begin, right = time.time(), False
            try:
                text = await asyncio.wait_for(self._text(connection, number, stream), ANSWER_TIMEOUT)
                expected = expected or text
                if text != expected:
                    self.result.wrong[f"another text: {text[:60]!r} instead of {expected[:60]!r}"] += 1
                else:
                    self.result.right += 1
                    right = True
            except (TimeoutError, Broken, OSError, ValueError) as error:
                self.result.wrong[f"{type(error).__name__}: {error}"[:200]] += 1
                connection.close()
            if not right:
                self.result.sent.append(begin)
            # A client also waits, with an open connection.
            await asyncio.sleep(self.pause + 0.01 * (number % 3))

    async def _text(self, connection: Connection, number: int, stream: bool) -> str:
        """Return the text of one answer; raises ValueError unless it is complete and right in form."""
        body = {
            "model": self.front.model,
            "prompt": f"Client {number} asks the same again:",
            "max_tokens": self.tokens,
            "temperature": 0,
            "stream": stream,
        }
        answer = await connection.ask("/v1/completions", body)
        if answer.status == 503 and self.elsewhere:
            connection.turn()
            answer = await connection.ask("/v1/completions", body)
        if answer.status != 200:
            raise ValueError(f"{answer.status} {answer.body[:120]!r}")
        if not stream:
            text = str(answer.json()["choices"][0]["text"])
        else:
            events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
            if not events or events[-1] != "[DONE]":
                raise ValueError(f"a stream without its end: {answer.body[-80:]!r}")
            told = [json.loads(event) for event in events[:-1]]
            if any("error" in event for event in told):
                raise ValueError(f"a stream with an error: {events[-2]}")
            text = "".join(event["choices"][0]["text"] for event in told)
        if not text:
            raise ValueError("an empty answer")
        return text
