"""The engine of one process: start-up in the real order, and then requests."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from . import RELEASE, checks, network, startup
from .config.parallel import check_executor
from .config.vllm import EngineConfig
from .connectors import make_transfer_engines, register
from .core import Core
from .data_parallel import Balance, FrontEnd, Rank, Requests, Served
from .group import Head, Member, connect_timeout
from .handover import Held
from .kv_cache import make_cache
from .layerwise import Fatal
from .log import StartupFailure
from .request import Aborted, EngineDead, Outcome, RequestFailed, Work
from .state import EngineState


class Engine:
    """One `vllm serve` process with all that it starts."""

    def __init__(self, config: EngineConfig, pid: int) -> None:
        self.config = config
        self.state = EngineState(config, pid)
        self.cores: dict[int, Core] = {}
        """By data-parallel rank."""
        self.balance = Balance(config.served_ranks)
        self.requests: Requests | None = None
        """To the cores of other processes."""
        self.pushes: set[asyncio.Task[None]] = set()
        self.idle_listeners: list[socket.socket] = []

    # -- start-up ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """From the configuration to the last barrier. Raises StartupFailure."""
        begun = time.monotonic()
        config, state = self.config, self.state
        await self._gather_ranks()
        if config.has_core:
            startup.report_config(state)
        check_executor(config.world_size, config.nnodes)
        await asyncio.sleep(state.timing.start_seconds / 2)
        checks.check_devices(config)
        checks.check_interfaces(config)
        startup.report_workers(state)
        crash = state.fault("engine_crash_start")
        if crash is not None:
            asyncio.get_running_loop().create_task(startup.crash_later(state, crash))
        await self._form_nodes()
        startup.report_ranks(state)
        transfer_engines = make_transfer_engines(state)
        await startup.load_weights(state)
        await self._barrier("loaded")
        num_blocks = make_cache(state)
        await register(state, transfer_engines, num_blocks, self._chip_freed)
        await startup.capture_graphs(state)
        self.cores = {rank: Core(state, rank, num_blocks) for rank in state.dp_ranks}
        if config.headless and config.has_core:
            self._serve_front_end()
        await self._barrier("ready")
        if config.has_core:
            state.core_log.info(
                "core.py:259",
                "init engine (profile, create kv cache, warmup model) took "
                f"{time.monotonic() - begun:.2f} seconds",
            )

    async def _gather_ranks(self) -> None:
        """The data-parallel ranks of other processes: before anything else, as the engine cores do it."""
        config = self.config
        if not config.dp_remote:
            return
        scale = self.state.timing.hccl_connect_timeout_scale
        if config.dp_rank == 0 and not config.headless:
            front = FrontEnd(config, self.state.core_log, self.state.fail, scale)
            self.state.head = front
            self.requests = Requests(front, self.state.stall)
            front.on_message, front.on_lost = self._from_rank, self.requests.lost
            await front.start()
            await front.gather_ranks()
            return
        if self.state.fault("engine_missing_peer") is not None:
            await asyncio.Event().wait()
        ranks = [Rank(config, dp_rank, log, scale) for dp_rank, log in self.state.core_logs.items()]
        self.state.links += ranks
        await asyncio.gather(*(rank.join() for rank in ranks))

    def _serve_front_end(self) -> None:
        """Without an API of its own, each core here works for rank 0's front end."""
        for link, core in zip(self.state.links, self.cores.values(), strict=True):
            Served(link, core)
        self.state.metrics.told = self._report_metric

    def _report_metric(self, what: str, name: str, value: float, rank: int) -> None:
        link = self.state.links[rank - self.config.dp_rank]
        link.send({"metric": [what, name, value, rank]})

    async def _form_nodes(self) -> None:
        """The nodes of one data-parallel rank."""
        config, args = self.config, self.config.args
        if config.nnodes == 1:
            return
        seconds = connect_timeout(self.state.timing.hccl_connect_timeout_scale)
        address, port = args.master_addr, args.master_port
        others = {
            node: list(range(node * config.local_world_size, (node + 1) * config.local_world_size))
            for node in range(1, config.nnodes)
        }
        if config.node_rank == 0:
            self.state.head = Head(address, port, others, self.state.core_log)
            self.state.head.on_message = self._from_member
            self.state.head.on_lost = lambda member: self.state.peer_lost()
            self._bind_queue(address)
            await self.state.head.start()
            await self.state.head.form(seconds)
            return
        if self.state.fault("engine_missing_peer") is not None:
            await asyncio.Event().wait()
        self._bind_queue(network.get_ip())
        hello = {"shape": [address, sorted(others)], "ranks": list(config.local_ranks)}
        link = Member(config.node_rank, hello, address, port, self.state.first_log, config.local_ranks.start)
        link.on_message = self._from_head
        self.state.links.append(link)
        await link.form(seconds)

    def _bind_queue(self, address: str) -> None:
        """The message queues between the nodes: ZMQ sockets on random ports of this address."""
        try:
            self.idle_listeners.append(network.listen(address, 0))
        except OSError as error:
            raise StartupFailure(
                "zmq.error.ZMQError",
                f"{os.strerror(error.errno or 99)} (addr='tcp://{address}:41877')",
                frame=(
                    "/vllm-workspace/vllm/vllm/distributed/device_communicators/shm_broadcast.py",
                    320,
                    "__init__",
                ),
                stage="worker",
            ) from None

    async def _barrier(self, name: str) -> None:
        """A collective operation of all nodes: HCCL waits HCCL_CONNECT_TIMEOUT for who is behind."""
        seconds = connect_timeout(self.state.timing.hccl_connect_timeout_scale)
        if self.state.head is not None:
            await self.state.head.barrier(name, seconds)
        await asyncio.gather(*(link.barrier(name, seconds) for link in self.state.links))

    # -- messages between the nodes ------------------------------------------------------------------

    def _from_member(self, member: int, message: dict[str, Any]) -> None:
        if "chips" in message:
            for rank, info in message["chips"].items():
                self.state.nodes[rank] = {**info, "hccn": message["hccn"]}
            self.state.spoiled_weights = self.state.spoiled_weights or message["spoiled"]
        elif "freed" in message:
            dp_rank, rank, request_id = message["freed"]
            self._chip_freed(dp_rank, rank, request_id)
        elif "fatal" in message:
            kind, text, frame = message["fatal"]
            self.state.die(kind, text, tuple(frame))

    def _from_head(self, message: dict[str, Any]) -> None:
        if "push" in message:
            task = asyncio.get_running_loop().create_task(self._push(message["push"], message["mark"]))
            self.pushes.add(task)
            task.add_done_callback(self.pushes.discard)
        elif self.state.producer is None:
            return
        elif "hold" in message:
            readers = message["readers"]
            held = Held(**message["hold"])
            self.state.producer.hold(message["dp_rank"], held, None if readers is None else set(readers))
            self.state.links[0].send({"at": message["mark"]})
        elif "drop" in message:
            self.state.producer.drop(message["dp_rank"], message["drop"])

    async def _push(self, given: dict[str, Any], mark: str) -> None:
        """A layerwise producer's further node does its part of the forward pass."""
        assert self.state.sender is not None
        sound = given.pop("sound") and checks.has_hccn_conf()
        try:
            await self.state.sender.push(**given, sound=sound)
        except Fatal as fatal:
            self.state.links[0].send({"fatal": [fatal.kind, fatal.message, fatal.frame]})
        else:
            self.state.links[0].send({"at": mark})

    def _from_rank(self, dp_rank: int, message: dict[str, Any]) -> None:
        """What rank 0's front end hears of an engine core elsewhere."""
        if "work" in message:
            assert self.requests is not None
            self.requests.answer(message)
        elif "metric" in message:
            self.state.metrics.take(*message["metric"])
        elif "dead" in message and self.config.dp_mode == "internal":
            self.state.fail(EngineDead())

    def _chip_freed(self, dp_rank: int, rank: int, request_id: str) -> None:
        if self.config.node_rank > 0:
            self.state.links[0].send({"freed": [dp_rank, rank, request_id]})
        elif dp_rank in self.cores:
            self.cores[dp_rank].rank_freed(rank, request_id)

    # -- requests ------------------------------------------------------------------------------------

    async def generate(self, work: Work, outcome: Outcome) -> AsyncGenerator[str, None]:
        """The tokens of the answer, one after the other; `outcome` is filled in."""
        if self.state.died.done():
            raise EngineDead
        if self.state.draining:
            self._turn_away(work, outcome)
            return
        dp_rank = self.balance.choose()
        self.balance.load[dp_rank] += 1
        try:
            if dp_rank in self.cores:
                tokens = self.cores[dp_rank].generate(work, outcome)
            else:
                assert self.requests is not None
                tokens = self.requests.generate(dp_rank, work, outcome, self.state.or_death)
            async with aclosing(tokens):
                async for token in tokens:
                    await self.state.go_on()
                    yield token
            await self.state.go_on()
        except Aborted:
            outcome.finish_reason = "abort"
        except (EngineDead, RequestFailed):
            await self.state.go_on()
            raise
        finally:
            self.balance.load[dp_rank] -= 1

    def _turn_away(self, work: Work, outcome: Outcome) -> None:
        """A request that comes while the engine ends: no text, and no error either."""
        outcome.finish_reason = "abort"
        if RELEASE.shutdown is not None and RELEASE.shutdown.rejects:
            text = RELEASE.shutdown.rejects.format(request=work.request_id)
            self.state.core_log.info("core.py:1267", text)

    @property
    def running(self) -> int:
        """Requests that wait for their answer."""
        return sum(self.balance.load.values())

    @property
    def holding(self) -> bool:
        """Whether blocks are held for decoders that have not fetched them."""
        return any(core.unfreed for core in self.cores.values())
