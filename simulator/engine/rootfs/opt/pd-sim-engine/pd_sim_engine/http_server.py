"""HTTP/1.1 over asyncio streams: enough for an OpenAI server, its clients and its probes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MAX_HEADER = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
LOOK_SECONDS = 0.1
"""How often it is looked whether a client still waits."""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Response:
    """A whole body, or a stream of pieces sent as they come."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    stream: AsyncGenerator[bytes, None] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves a bound socket until it is told to close."""

    def __init__(self, handler: Handler, access: Callable[[str], None]) -> None:
        self.handler = handler
        self.access = access
        self.server: asyncio.Server | None = None
        self.closing = False
        self.connections: dict[asyncio.StreamWriter, bool] = {}
        """Whether each is being answered."""

    async def start(self, sock: socket.socket) -> None:
        self.server = await asyncio.start_server(self._connection, sock=sock, limit=MAX_HEADER)

    def close(self) -> None:
        """As uvicorn: no new connections, those without a request end, the others when they are answered."""
        self.closing = True
        if self.server is not None:
            self.server.close()
        for writer, busy in list(self.connections.items()):
            if not busy:
                writer.close()

    async def empty(self) -> None:
        """Until the last connection has ended, without a limit."""
        while self.connections:
            await asyncio.sleep(LOOK_SECONDS / 2)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter, *, keep: bool) -> None:
        response = await self.handler(request)
        phrase = HTTPStatus(response.status).phrase
        self.access(
            f'{request.client} - "{request.method} {request.path} HTTP/1.1" {response.status} {phrase}'
        )
        await _write_response(writer, response, keep=keep)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections[writer] = False
        try:
            await self._requests(reader, writer)
        finally:
            del self.connections[writer]
        with suppress(ConnectionError, RuntimeError):
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One after the other, as long as the client asks."""
        peer = writer.get_extra_info("peername") or ("", 0)
        client = f"{peer[0]}:{peer[1]}"
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            while not self.closing:
                self.connections[writer] = False
                request = await _read_request(reader, client)
                if request is None:
                    break
                self.connections[writer] = True
                keep = request.headers.get("connection", "").lower() != "close"
                answer = asyncio.ensure_future(self._answer(request, writer, keep=keep))
                gone = asyncio.ensure_future(_end(reader))
                try:
                    await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    gone.cancel()
                    if not answer.done():
                        answer.cancel()
                if not answer.done():
                    # The client has left: what it asked for is of no use, as with vLLM.
                    break
                answer.result()
                if not keep:
                    break


async def _end(reader: asyncio.StreamReader) -> None:
    """Until the client has closed its side."""
    while not reader.at_eof():
        await asyncio.sleep(LOOK_SECONDS)


async def _read_request(reader: asyncio.StreamReader, client: str) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif length := int(headers.get("content-length", "0") or 0):
        if length > MAX_BODY:
            return None
        body = await reader.readexactly(length)
    return Request(words[0], words[1].split("?")[0], headers, body, client)


async def _write_response(writer: asyncio.StreamWriter, response: Response, *, keep: bool) -> None:
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        "server: uvicorn",
        f"content-type: {response.content_type}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    if not keep:
        lines.append("connection: close")
    if response.stream is None:
        lines.append(f"content-length: {len(response.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + response.body)
        await writer.drain()
        return
    lines.append("transfer-encoding: chunked")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    # Closed also when the client is gone: else what works for it would go on until Python collects it.
    async with aclosing(response.stream) as stream:
        async for piece in stream:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
