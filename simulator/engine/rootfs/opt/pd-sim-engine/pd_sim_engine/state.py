"""What all parts of one engine process share: configuration, logs, connections, whether it still lives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from . import RELEASE, checks, network, server_state
from .config.vllm import EngineConfig
from .group import Head, Member
from .handover import ConsumerSide, Producer
from .layerwise import Receiver, Sender
from .log import Frame, Log, StartupFailure
from .metrics import Metrics
from .peers import Peers
from .request import Aborted, EngineDead

EXECUTE_TIMEOUT = 300.0
"""VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS."""
EXECUTE_MODEL = ("/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py", 330, "execute_model")


class EngineState:
    """The state of one `vllm serve` process with all that it starts."""

    def __init__(self, config: EngineConfig, pid: int) -> None:
        self.config = config
        self.timing = server_state.timing()
        self.dp_ranks = config.dp_ranks
        alone = RELEASE.core_without_rank and config.dp == 1
        self.core_logs = {
            rank: Log("EngineCore" if alone else f"EngineCore_DP{rank}", pid + 131 + rank - config.dp_rank)
            for rank in self.dp_ranks
        }
        self.worker_logs = {
            (dp_rank, rank): Log(config.rank_names(rank, dp_rank), pid + 265 + 4 * number)
            for number, (dp_rank, rank) in enumerate(itertools.product(self.dp_ranks, config.local_ranks))
        }
        self.place = {
            "instance": server_state.instance_name(),
            "role": config.role,
            "rank": config.node_rank,
            "port": config.args.port,
        }
        self.peers = Peers(config, self.place, self.first_log)
        # Every rank of this process counts here; one without an API tells rank 0's front end.
        shown = self.dp_ranks if config.headless else config.served_ranks
        self.metrics = Metrics(config.served_names[0], shown)
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when no request goes on: the engine core is dead, or has aborted them."""
        self.draining = False
        """Whether requests that run may finish, and new ones are turned away."""
        self.halted = False
        """Whether the engine core was ended without a word: who waits for it waits for ever."""
        self.head: Head | None = None
        self.links: list[Member] = []
        """To the head: of this node, or of each data-parallel rank of it."""
        self.producer: Producer | None = None
        self.consumers: dict[int, ConsumerSide] = {}
        self.sender: Sender | None = None
        self.receivers: dict[int, Receiver] = {}
        """As producer and consumers, with MooncakeLayerwiseConnector."""
        self.engine_id = ""
        self.nodes: dict[str, dict[str, Any]] = {}
        """Rank within its data-parallel rank -> {host, engine_id} of the chips of all nodes."""
        self.spoiled_weights = False
        self.served = 0

    def fault(self, name: str) -> dict[str, Any] | None:
        return server_state.fault(name, **self.place)

    @property
    def first_log(self) -> Log:
        return next(iter(self.worker_logs.values()))

    @property
    def core_log(self) -> Log:
        return self.core_logs[self.dp_ranks[0]]

    def slowness(self) -> tuple[float, float]:
        """(factor, seconds) of the fault engine_slow."""
        slow = self.fault("engine_slow") or {}
        return float(slow.get("factor", 1.0)), float(slow.get("seconds", 0.0))

    @property
    def computes_right(self) -> bool:
        """Whether its weights, and what computes with them, are in order."""
        return not self.spoiled_weights and self.fault("engine_garbage") is None

    def engine_id_of(self, dp_rank: int) -> str:
        """Each data-parallel rank of a process appends its number there."""
        return f"{self.engine_id}_dp{dp_rank - self.config.dp_rank}" if self.config.dp > 1 else self.engine_id

    def is_sound(self) -> bool:
        """Whether the transport of every node of this instance knows its device addresses."""
        return checks.has_hccn_conf() and all(node.get("hccn", True) for node in self.nodes.values())

    async def or_death(self, work: Any, undo: Callable[[Any], None] = lambda result: None) -> Any:
        """Await, unless the engine dies first. Who is cancelled at the very moment when the work is done does
        not get its result: `undo` does."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self.over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                undo(task.result())
            raise
        if task.done():
            return task.result()
        task.cancel()
        raise EngineDead if self.died.done() else Aborted

    async def go_on(self) -> None:
        """Returns at once, or never if the engine core was ended without a word."""
        if self.halted:
            await asyncio.Event().wait()

    def abort(self) -> None:
        """End all requests with what they have got."""
        if not self.over.done():
            self.over.set_result(None)

    def halt(self) -> None:
        """The engine core and the workers are gone; nobody tells those who wait."""
        self.halted = True
        network.hang_up()

    async def disturb(self) -> None:
        """Faults that show when a request comes."""
        crash = self.fault("engine_crash_after")
        if crash is not None and self.served >= int(crash.get("requests", 0)):
            message = str(
                crash.get("message") or "NPU function error: aclrtSynchronizeStream, error code is 507015"
            )
            self.die("RuntimeError", message)
            raise EngineDead
        await self.before_step()

    async def before_step(self) -> None:
        """A forward pass needs all nodes: without one of them it stalls. One that hangs does so for ever."""
        stuck = self.fault("engine_hang")
        if stuck is not None and stuck.get("at") != "load":
            await self.or_death(asyncio.Event().wait())
        if self._group_broken():
            await self.stall()

    def peer_lost(self) -> None:
        """Another node of this instance is gone. Nothing looks after it but the simulator's own time-out."""
        seconds = self.timing.lost_peer_seconds
        if seconds is not None:
            message = "HCCL function error: a remote rank is gone"
            asyncio.get_running_loop().call_later(seconds, self.die, "RuntimeError", message)

    def _group_broken(self) -> bool:
        """Whether a node of this instance, or another rank of its group, is gone."""
        if self.head is not None and self.head.lost:
            return True
        return any(link.gone.is_set() or link.others_lost for link in self.links)

    async def stall(self) -> None:
        """The call to the workers is never answered: a forward pass needs all chips of the group."""
        await self.or_death(asyncio.sleep(EXECUTE_TIMEOUT * self.timing.hccl_connect_timeout_scale))
        self.die("TimeoutError", "RPC call to execute_model timed out.")
        raise EngineDead

    def fail(self, failure: BaseException) -> None:
        if self.died.done() or self.halted:
            return
        self.died.set_exception(failure)
        self.abort()

    def killed(self) -> None:
        """The engine core is killed from outside: only the API server says so."""
        name = self.core_log.process
        self.first_log.info("multiproc_executor.py:720", "Parent process exited, terminating worker")
        Log("APIServer").error(
            "core_client.py:607", f"Engine core proc {name} died unexpectedly, shutting down client."
        )
        self.fail(EngineDead())
        network.hang_up()

    def die(
        self,
        kind: str,
        message: str,
        frame: Frame = EXECUTE_MODEL,
        *,
        worker: bool = True,
    ) -> None:
        """An exception in a worker's forward pass, or in the scheduler: the engine core goes down with it."""
        if self.died.done() or self.halted:
            return
        text = StartupFailure(kind, message, frame=frame).traceback()
        if worker:
            self.first_log.error("multiproc_executor.py:824", f"WorkerProc hit an exception.\n{text}")
        self.core_log.error("core.py:866", f"EngineCore encountered a fatal error.\n{text}")
        for link in self.links:
            link.send({"dead": True})
        self.fail(EngineDead())
        asyncio.get_running_loop().call_soon(network.hang_up)
