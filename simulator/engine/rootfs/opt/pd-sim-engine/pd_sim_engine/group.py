"""How the nodes of one instance find each other: torch's TCPStore on the master, and what follows through it.

The head listens on --master-port; the others connect, say who they are, and keep the connection. Barriers
stand for collective operations: who does not arrive within HCCL_CONNECT_TIMEOUT makes the others fail with
EI0006.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import network
from .log import Log, StartupFailure

PARALLEL_STATE = "/vllm-workspace/vllm/vllm/distributed/parallel_state.py"
DEFAULT_CONNECT_TIMEOUT = 120.0
RETRY_SECONDS = 1.0
WARN_EVERY_SECONDS = 10.0
MESSAGE_BYTES = 64 * 1024 * 1024
"""A message may hold a prompt."""


def connect_timeout(scale: float) -> float:
    """Seconds that HCCL waits for the other side, in the simulator's time."""
    try:
        given = float(os.environ.get("HCCL_CONNECT_TIMEOUT", DEFAULT_CONNECT_TIMEOUT))
    except ValueError:
        given = DEFAULT_CONNECT_TIMEOUT
    return max(given * scale, 1.0)


def timed_out(missing: list[tuple[int, str]], here: str, seconds: float, rank: int) -> StartupFailure:
    """EI0006 with the table of links that did not come up. `missing`: (global rank, address or ?)."""
    rows = "\n".join(
        f"   |  {address}({other})  |   60000   |  {here}({rank})   |   0   |  server  | time out |"
        for other, address in missing
    )
    ranks = ", ".join(str(other) for other, _ in missing)
    return StartupFailure(
        "RuntimeError",
        "create_config:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:103 HCCL function error: "
        "HcclCommInitRootInfoConfig, error code is 4\n"
        f"[ERROR] (PID:{os.getpid()}, Device:0, RankID:{rank}) ERR02200 DIST call hccl api failed.\n"
        f"EI0006: Getting socket times out. Reason: rank {ranks} did not connect in {seconds:.0f} s.\n"
        "        Possible Cause: 1. The remote rank did not start, or stopped. 2. "
        "HCCL_CONNECT_TIMEOUT is shorter than "
        "the difference between the start-ups. 3. The TLS switches of the chips differ, or a link is down.\n"
        "[LINK_ERROR_INFO]\n"
        "   |  dest_ip(user_rank)  |  dest_port  |  src_ip(user_rank)  |  src_port  |  MyRole  |  Status  |\n"
        f"{rows}",
        frame=(PARALLEL_STATE, 1225, "init_distributed_environment"),
        stage="worker",
    )


class Head:
    """Node 0: the store's server."""

    def __init__(self, address: str, port: int, expected: dict[int, list[int]], log: Log) -> None:
        self.address, self.port, self.log = address, port, log
        self.expected = expected
        """Member -> its global ranks."""
        self.members: dict[int, dict[str, Any]] = {}
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.lost: set[int] = set()
        self.formed = False
        self.changed = asyncio.Condition()
        self.arrived: defaultdict[str, set[int]] = defaultdict(set)
        self.on_message: Callable[[int, dict[str, Any]], None] = lambda member, message: None
        self.on_lost: Callable[[int], None] = lambda member: None

    async def start(self) -> None:
        await network.serve(self.listen(), self._connection, MESSAGE_BYTES)

    def listen(self) -> socket.socket:
        try:
            return network.listen("0.0.0.0", self.port)
        except OSError:
            raise StartupFailure(
                "torch.distributed.DistNetworkError",
                "The server socket has failed to listen on any local network address. port: "
                f"{self.port}, useIpv6: "
                "false, code: -98, name: EADDRINUSE, message: address already in use",
                frame=(PARALLEL_STATE, 1225, "init_distributed_environment"),
                stage="worker",
            ) from None

    def admits(self, member: int, hello: dict[str, Any]) -> bool:
        """Not another world size, nor a member of an earlier start: those wait, and so does the group."""
        return hello["shape"] == self.shape() and member in self.expected and not self.formed

    def arrives(self, member: int, name: str) -> None:
        """A member has come to a barrier."""
        self.arrived[name].add(member)

    def incomplete(self, present: set[int], seconds: float) -> StartupFailure:
        """What the group fails with when not all have come."""
        return timed_out(self.missing(present), network.get_ip(), seconds, 0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member = -1
        with suppress(ConnectionError, ValueError, KeyError, asyncio.IncompleteReadError):
            hello = json.loads(await reader.readline())
            member = int(hello["member"])
            if not self.admits(member, hello):
                await reader.read()
                return
            self.members[member], self.writers[member] = hello, writer
            self.welcome(member)
            await self._notify()
            while line := await reader.readline():
                message = json.loads(line)
                if "at" in message:
                    self.arrives(member, message["at"])
                    await self._notify()
                else:
                    self.on_message(member, message)
        if self.writers.get(member) is writer:
            del self.writers[member]
            if self.formed:
                self.lost.add(member)
                self.broadcast({"lost": member})
                self.on_lost(member)
            else:
                del self.members[member]
        with suppress(ConnectionError, RuntimeError):
            writer.close()

    def welcome(self, member: int) -> None:
        """Called when a member has been admitted."""

    def shape(self) -> list[Any]:
        return [self.address, sorted(self.expected)]

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def missing(self, present: set[int]) -> list[tuple[int, str]]:
        return [
            (rank, self.members.get(member, {}).get("host", "?"))
            for member, ranks in sorted(self.expected.items())
            if member not in present
            for rank in ranks[:1]
        ]

    async def form(self, seconds: float) -> None:
        """Wait for every member."""
        wanted = set(self.expected)
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: wanted <= set(self.members))
        except TimeoutError:
            raise self.incomplete(set(self.members), seconds) from None
        self.formed = True
        self.broadcast({"formed": True})

    async def barrier(self, name: str, seconds: float) -> None:
        wanted = set(self.expected)
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: wanted <= self.arrived[name])
        except TimeoutError:
            raise timed_out(self.missing(self.arrived[name]), network.get_ip(), seconds, 0) from None
        self.broadcast({"go": name})

    async def gather(self, name: str, seconds: float) -> bool:
        """Whether every member has said so in time. For what happens once: the name is forgotten."""
        wanted = set(self.expected)
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: wanted <= self.arrived[name])
        except TimeoutError:
            return False
        finally:
            self.arrived.pop(name, None)
        return True

    def broadcast(self, message: dict[str, Any]) -> None:
        for member in list(self.writers):
            self.send(member, message)

    def send(self, member: int, message: dict[str, Any]) -> None:
        """To one member; to one that is lost it goes nowhere."""
        writer = self.writers.get(member)
        if writer is not None:
            with suppress(ConnectionError, RuntimeError):
                writer.write(json.dumps(message).encode() + b"\n")


class Member:
    """Another node: the store's client."""

    def __init__(
        self, member: int, hello: dict[str, Any], address: str, port: int, log: Log, rank: int
    ) -> None:
        self.hello = {"member": member, "host": network.get_ip(), **hello}
        self.address, self.port, self.log, self.rank = address, port, log, rank
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.gone = asyncio.Event()
        self.others_lost = False
        """Whether another member of the formed group is gone."""
        self.on_message: Callable[[dict[str, Any]], None] = lambda message: None

    def _warn(self, reason: str) -> None:
        stamp = time.strftime("%m%d %H:%M:%S")
        self.log.raw(
            f"[W{stamp}.000000000 socket.cpp:767] [c10d] The client socket has failed to connect to "
            f"[{self.address}]:{self.port} ({reason})."
        )

    async def form(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        warned = 0.0
        while self.streams is None:
            try:
                async with asyncio.timeout(RETRY_SECONDS * 3):
                    self.streams = await network.connect(self.address, self.port, MESSAGE_BYTES)
            except (OSError, TimeoutError) as error:
                if time.monotonic() - warned > WARN_EVERY_SECONDS:
                    warned = time.monotonic()
                    number = getattr(error, "errno", None) or 110
                    self._warn(f"errno: {number} - {os.strerror(number)}")
                if time.monotonic() > deadline:
                    raise StartupFailure(
                        "torch.distributed.DistNetworkError",
                        f"The client socket has timed out after {seconds * 1000:.0f}ms while trying "
                        "to connect to "
                        f"({self.address}, {self.port}).",
                        frame=(PARALLEL_STATE, 1225, "init_distributed_environment"),
                        stage="worker",
                    ) from None
                await asyncio.sleep(min(RETRY_SECONDS, seconds / 10))
        self.send(self.hello)
        self.task = asyncio.create_task(self._listen())
        await self._gate("formed", max(1.0, deadline - time.monotonic()))

    async def _listen(self) -> None:
        assert self.streams is not None
        with suppress(ConnectionError, ValueError):
            while line := await self.streams[0].readline():
                message = json.loads(line)
                if "formed" in message:
                    self.gates["formed"].set()
                elif "go" in message:
                    self.gates[message["go"]].set()
                elif "lost" in message:
                    self.others_lost = True
                else:
                    self.on_message(message)
        self.gone.set()

    async def _gate(self, name: str, seconds: float) -> None:
        waits = [asyncio.ensure_future(self.gates[name].wait()), asyncio.ensure_future(self.gone.wait())]
        done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        if self.gates[name].is_set():
            return
        if self.gone.is_set() and done:
            raise StartupFailure(
                "torch.distributed.DistNetworkError",
                "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server "
                "shutdown or crash?",
                frame=(PARALLEL_STATE, 1225, "init_distributed_environment"),
                stage="worker",
            )
        raise timed_out([(0, self.address)], network.get_ip(), seconds, self.rank)

    async def barrier(self, name: str, seconds: float) -> None:
        self.send({"at": name})
        await self._gate(name, seconds)

    def send(self, message: dict[str, Any]) -> None:
        assert self.streams is not None
        with suppress(ConnectionError, RuntimeError):
            self.streams[1].write(json.dumps(message).encode() + b"\n")
