"""How data-parallel ranks on several servers find each other, and how requests reach those without an API.

Rank 0's front end listens at --data-parallel-rpc-port of --data-parallel-address. Every engine core elsewhere
says hello there, also one that has an API server of its own (external data parallel); then the ranks form
their group. Where rank 0's API serves all ranks (internal), it sends requests on to the others' cores.

Sources: V@0.13.0:vllm/v1/engine/utils.py (launch_core_engines, wait_for_engine_startup), core.py
(startup_handshake, _init_data_parallel), core_client.py; the same at 0.18.0 and 0.23.0.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

from . import network
from .config.vllm import EngineConfig
from .core import Core
from .group import MESSAGE_BYTES, RETRY_SECONDS, Head, Member
from .log import Log, StartupFailure
from .request import EngineDead, Outcome, RequestFailed, Work

HANDSHAKE_SECONDS = 300.0
"""HANDSHAKE_TIMEOUT_MINS of core.py: so long an engine core waits for the front end."""
GROUP_SECONDS = 1800.0
"""PyTorch's default for a process group: so long the ranks wait for one another."""
UTILS = "/vllm-workspace/vllm/vllm/v1/engine/utils.py"
CORE = "/vllm-workspace/vllm/vllm/v1/engine/core.py"


def shape(config: EngineConfig) -> dict[str, Any]:
    """What of the configuration must be equal on all ranks (ParallelConfig.compute_hash)."""
    return {
        "tensor": config.tp,
        "pipeline": config.pp,
        "prefill_context": config.pcp,
        "decode_context": config.dcp,
        "expert": bool(config.args.enable_expert_parallel),
    }


class FrontEnd(Head):
    """Rank 0's front end and the store of the ranks' group."""

    def __init__(
        self, config: EngineConfig, log: Log, refuse: Callable[[StartupFailure], None], scale: float
    ) -> None:
        others = {
            rank: [rank * config.world_size] for rank in range(config.dp) if rank not in config.dp_ranks
        }
        super().__init__(config.dp_address, config.dp_rpc_port, others, log)
        self.config, self.refuse, self.scale = config, refuse, scale
        self.known: set[int] = set()
        """Ranks that have said hello; each does so once, also one that is gone since."""

    def listen(self) -> socket.socket:
        """The address itself is bound, before any engine core is started."""
        try:
            return network.listen(self.address, self.port)
        except OSError as error:
            raise StartupFailure(
                "zmq.error.ZMQError",
                f"{os.strerror(error.errno or 99)} (addr='tcp://{self.address}:{self.port}')",
                frame=(UTILS, 878, "launch_core_engines"),
            ) from None

    def admits(self, member: int, hello: dict[str, Any]) -> bool:
        """A rank that comes late waits for an answer in vain; one that should not be ends the start."""
        if self.formed:
            return False
        internal = self.config.dp_mode == "internal"
        if member >= self.config.dp:
            self._refuse(f"Message from engine with unexpected data parallel rank: {member}")
        elif member not in self.expected:
            self._refuse(f"HELLO message from remote engine {member}, expected it to be local")
        elif hello["headless"] and not internal:
            self._refuse(f"Remote engine {member} must not use --headless in external or hybrid dp lb mode")
        elif not hello["headless"] and internal:
            self._refuse(
                f"Remote engine {member} must use --headless unless in external or hybrid dp lb mode"
            )
        elif member in self.known:
            self._refuse(
                f"Unexpected HELLO message for remote engine {member} in CoreEngineState.CONNECTED state."
            )
        else:
            return True
        return False

    def welcome(self, member: int) -> None:
        self.known.add(member)
        self.send(member, {"go": "hello"})

    def arrives(self, member: int, name: str) -> None:
        if name == "ready" and self.members[member]["config"] != shape(self.config):
            self._refuse(
                f"Configuration mismatch detected for engine {member}. All DP workers must have identical "
                "configurations for parameters that affect collective communication (e.g., enable_eplb, "
                "eplb_config.log_balancedness). Please ensure all workers are started with the same "
                "command-line arguments."
            )
        super().arrives(member, name)

    def _refuse(self, message: str) -> None:
        frame = (UTILS, 1042, "wait_for_engine_startup")
        self.refuse(StartupFailure("RuntimeError", message, frame=frame))

    def incomplete(self, present: set[int], seconds: float) -> StartupFailure:
        return _too_few(len(present) + self.config.dp_local, self.config.dp, seconds)

    async def gather_ranks(self) -> None:
        await self.form(GROUP_SECONDS * self.scale)


class Rank(Member):
    """An engine core elsewhere. ZMQ connects in silence: nothing is logged until the front end answers."""

    def __init__(self, config: EngineConfig, dp_rank: int, log: Log, scale: float) -> None:
        hello = {"headless": config.headless, "config": shape(config)}
        first = dp_rank * config.world_size
        super().__init__(dp_rank, hello, config.dp_address, config.dp_rpc_port, log, first)
        self.config, self.scale = config, scale

    async def join(self) -> None:
        """Say hello until the front end answers, then wait for the other ranks."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS * self.scale):
                await self._hello()
        except TimeoutError:
            raise StartupFailure(
                "RuntimeError",
                "Did not receive response from front-end process within 5 minutes",
                frame=(CORE, 805, "startup_handshake"),
                stage="core",
            ) from None
        seconds = GROUP_SECONDS * self.scale
        try:
            await self._gate("formed", seconds)
        except StartupFailure as failure:
            if self.gone.is_set():
                failure.stage = "core"
                raise
            raise _too_few(1, self.config.dp, seconds) from None

    async def _hello(self) -> None:
        """One connection after the other until one is answered."""
        while not self.gates["hello"].is_set():
            try:
                self.streams = await network.connect(self.address, self.port, MESSAGE_BYTES)
            except OSError:
                await asyncio.sleep(min(RETRY_SECONDS, HANDSHAKE_SECONDS * self.scale / 10))
                continue
            self.gone.clear()
            self.send(self.hello)
            self.task = asyncio.create_task(self._listen())
            answers = [asyncio.ensure_future(event.wait()) for event in (self.gates["hello"], self.gone)]
            try:
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for answer in answers:
                    answer.cancel()


def _too_few(come: int, expected: int, seconds: float) -> StartupFailure:
    return StartupFailure(
        "torch.distributed.DistStoreError",
        f"Timed out after {seconds:.0f} seconds waiting for clients. {come}/{expected} clients joined.",
        frame=("/vllm-workspace/vllm/vllm/distributed/utils.py", 510, "stateless_init_torch_distributed"),
        stage="core",
    )


class Balance:
    """Which rank gets the next request: the one with the fewest, in turn where several are."""

    def __init__(self, ranks: range) -> None:
        self.ranks = ranks
        self.load = dict.fromkeys(ranks, 0)
        self.turn = 0

    def choose(self) -> int:
        order = [self.ranks[(self.turn + place) % len(self.ranks)] for place in range(len(self.ranks))]
        chosen = min(order, key=lambda rank: self.load[rank])
        self.turn = self.ranks.index(chosen) + 1
        return chosen


class Requests:
    """The front end's requests to engine cores on other servers."""

    def __init__(self, head: Head, stall: Callable[[], Awaitable[None]]) -> None:
        self.head, self.stall = head, stall
        """`stall` ends with EngineDead: a rank that is gone never answers, and the others die of it."""
        self.numbers = itertools.count()
        self.answers: dict[int, tuple[int, asyncio.Queue[dict[str, Any]]]] = {}

    async def generate(
        self, dp_rank: int, work: Work, outcome: Outcome, or_death: Callable[[Any], Any]
    ) -> AsyncGenerator[str, None]:
        """As Core.generate."""
        number = next(self.numbers)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers[number] = dp_rank, queue
        if dp_rank in self.head.lost:
            queue.put_nowait({"lost": True})
        self.head.send(
            dp_rank, {"work": number, "request": asdict(work), "prompt_tokens": outcome.prompt_tokens}
        )
        ended = False
        try:
            while not ended:
                message = await or_death(queue.get())
                if "token" in message:
                    yield message["token"]
                elif "end" in message:
                    ended = True
                    vars(outcome).update(message["end"])
                elif "lost" in message:
                    await self.stall()
                elif "failed" in message:
                    ended = True
                    raise RequestFailed
                else:
                    raise EngineDead
        finally:
            del self.answers[number]
            if not ended:
                self.head.send(dp_rank, {"abort": number})

    def answer(self, message: dict[str, Any]) -> None:
        """From a core; what was aborted meanwhile is of no interest."""
        found = self.answers.get(message["work"])
        if found is not None:
            found[1].put_nowait(message)

    def lost(self, dp_rank: int) -> None:
        for rank, queue in self.answers.values():
            if rank == dp_rank:
                queue.put_nowait({"lost": True})


class Served:
    """An engine core without an API: it works for the front end of rank 0."""

    def __init__(self, link: Member, core: Core) -> None:
        self.link, self.core = link, core
        self.tasks: dict[int, asyncio.Task[None]] = {}
        link.on_message = self._message

    def _message(self, message: dict[str, Any]) -> None:
        if "work" in message:
            number = message["work"]
            task = asyncio.create_task(self._run(number, message))
            self.tasks[number] = task
            task.add_done_callback(lambda done: self.tasks.pop(number, None))
        elif "abort" in message and message["abort"] in self.tasks:
            self.tasks[message["abort"]].cancel()

    async def _run(self, number: int, message: dict[str, Any]) -> None:
        outcome = Outcome(message["prompt_tokens"])
        try:
            async for token in self.core.generate(Work(**message["request"]), outcome):
                self.link.send({"work": number, "token": token})
        except RequestFailed:
            self.link.send({"work": number, "failed": True})
        except EngineDead:
            self.link.send({"work": number, "dead": True})
        else:
            self.link.send({"work": number, "end": asdict(outcome)})
