"""An engine that answers at once, and costs hardly any CPU: engine.py PORT MILLISECONDS-BETWEEN-TOKENS.

It knows only what routers ask of it while they serve. An answer has the form of vLLM's, a stream has an event
for each token. It runs on a simulated server, with the Python that is there.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

TOKENS = 500
KV = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [1],
    "remote_engine_id": "bench",
    "remote_host": "127.0.0.1",
    "remote_port": 30000,
    "remote_pcp_size": 1,
    "remote_dcp_size": 1,
    "last_token_id": 1,
}


def choice(text: str, finish: str | None) -> list[dict[str, object]]:
    return [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]


ANSWER = json.dumps(
    {
        "id": "cmpl-bench",
        "object": "text_completion",
        "created": 1,
        "model": "deepseek_v3",
        "choices": choice(" a short answer", "length"),
        "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
        "kv_transfer_params": KV,
    }
).encode()
PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
HEALTH = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


EVENT = chunk(
    b"data: "
    + json.dumps(
        {
            "id": "cmpl-bench",
            "object": "text_completion",
            "created": 1,
            "model": "deepseek_v3",
            "choices": choice(" word", None),
        }
    ).encode()
    + b"\n\n"
)
END = chunk(b"data: [DONE]\n\n") + chunk(b"")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Engine(asyncio.Protocol):
    """One connection; `streams` are those to which a token is due at each tick."""

    streams: dict[Engine, int]

    def __init__(self, streams: dict[Engine, int]) -> None:
        self.streams = streams
        self.received = b""
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.streams.pop(self, None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end]
            found = LENGTH.search(head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.received) < whole:
                return
            body, self.received = self.received[end + 4 : whole], self.received[whole:]
            if head.startswith(b"GET"):
                self.transport.write(HEALTH)
            elif re.search(rb'"stream": ?true', body):
                self.transport.write(STREAM)
                self.streams[self] = TOKENS
            else:
                self.transport.write(PLAIN)


async def serve(port: int, seconds: float) -> None:
    streams: dict[Engine, int] = {}
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Engine(streams), "0.0.0.0", port, backlog=1024)
    due = loop.time()
    while True:
        due = max(due + seconds, loop.time())
        await asyncio.sleep(due - loop.time())
        for one, left in list(streams.items()):
            if one.paused:
                continue
            one.transport.write(EVENT)
            if left == 1:
                one.transport.write(END)
                del streams[one]
            else:
                streams[one] = left - 1


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
