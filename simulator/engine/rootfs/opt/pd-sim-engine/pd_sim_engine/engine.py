"""The engine core and its workers: start-up in the real order, and then requests."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from . import RELEASE, VLLM_VERSION, checks, network, server_state
from .config import EngineConfig, check_connector, check_executor
from .core import EXECUTE_TIMEOUT, Core, EngineDead, Outcome, Work
from .data_parallel import Balance, FrontEnd, Rank, Requests, Served
from .group import Head, Member, connect_timeout
from .handover import ConsumerSide, Held, Producer, TransferEngine, new_engine_id
from .layerwise import Fatal, Receiver, Sender
from .log import Log, StartupFailure
from .metrics import Metrics

GIB = 1 << 30
HBM_BYTES = int(61.28 * GIB)
"""One chip of Atlas A3."""
WEIGHTS_BYTES = 650 * GIB
"""DeepSeek-V3.1 in 8 bits with its MTP layer; experts are split over all chips."""
DENSE_BYTES = 4 * GIB
"""What every chip has in full."""
ACTIVATION_BYTES = 3 * GIB
PROGRESS_SECONDS = 0.1
"""tqdm's mininterval."""
EXECUTE_MODEL = ("/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py", 330, "execute_model")


class Engine:
    """One `vllm serve` process with all that it starts."""

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
        # Every rank of this process counts here; one without an API tells rank 0's front end.
        shown = self.dp_ranks if config.headless else config.served_ranks
        self.metrics = Metrics(config.served_names[0], shown)
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.head: Head | None = None
        self.links: list[Member] = []
        """To the head: of this node, or of each data-parallel rank of it."""
        self.producer: Producer | None = None
        self.consumers: dict[int, ConsumerSide] = {}
        self.sender: Sender | None = None
        self.receivers: dict[int, Receiver] = {}
        """As producer and consumers, with MooncakeLayerwiseConnector."""
        self.cores: dict[int, Core] = {}
        self.balance = Balance(config.served_ranks)
        self.requests: Requests | None = None
        self.engine_id = ""
        self.nodes: dict[str, dict[str, Any]] = {}
        """Rank within its data-parallel rank -> {host, engine_id} of the chips of all nodes."""
        self.pushes: set[asyncio.Task[None]] = set()
        self.num_blocks = 0
        self.spoiled_weights = False
        self.served = 0
        self.idle_listeners: list[socket.socket] = []

    # -- start-up ---------------------------------------------------------------------------------

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

    async def start(self) -> None:
        """From the configuration to the last barrier. Raises StartupFailure."""
        begun = time.monotonic()
        config = self.config
        await self._gather_ranks()
        if config.has_core:
            self.core_log.info(
                "core.py:93",
                f"Initializing a V1 LLM engine (v{VLLM_VERSION}) with config: model='{config.model.path}', "
                f"dtype=torch.{config.model.dtype}, max_seq_len={config.model.max_model_len}, "
                f"tensor_parallel_size={config.tp}, pipeline_parallel_size={config.pp}, "
                f"data_parallel_size={config.dp}, quantization={config.args.quantization}, "
                f"enforce_eager={config.enforce_eager}, served_model_name={config.served_names[0]}, "
                f"cudagraph_mode={config.cudagraph_mode}",
            )
        check_executor(config)
        await asyncio.sleep(self.timing.start_seconds / 2)
        checks.check_devices(config)
        checks.check_interfaces(config)
        self._log_ranks()
        crash = self.fault("engine_crash_start")
        if crash is not None:
            asyncio.get_running_loop().create_task(self._crash_later(crash))
        await self._form_nodes()
        for (dp_rank, rank), log in self.worker_logs.items():
            pp_rank, pcp_rank, tp_rank = config.coordinates(rank)
            log.info(
                "parallel_state.py:1411",
                f"rank {rank} in world size {config.world_size * config.dp} is assigned as DP rank "
                f"{dp_rank}, PP rank "
                f"{pp_rank}, PCP rank {pcp_rank}, TP rank {tp_rank}, EP rank "
                f"{dp_rank * config.world_size + rank}",
            )
        transfer_engines = self._make_connectors()
        await self._load()
        await self._barrier("loaded")
        self._make_cache()
        await self._register(transfer_engines)
        await self._capture()
        self.cores = {rank: Core(self, rank, self.num_blocks) for rank in self.dp_ranks}
        if config.headless and config.has_core:
            self._serve_front_end()
        await self._barrier("ready")
        if config.has_core:
            self.core_log.info(
                "core.py:259",
                "init engine (profile, create kv cache, warmup model) took "
                f"{time.monotonic() - begun:.2f} seconds",
            )

    def _log_ranks(self) -> None:
        args = self.config.args
        if self.config.nnodes > 1:
            method = f"tcp://{args.master_addr}:{args.master_port}"
        else:
            method = f"tcp://{self.config.dp_address if self.config.dp_remote else '127.0.0.1'}:39001"
        for (dp_rank, rank), log in self.worker_logs.items():
            log.info(
                "parallel_state.py:1203",
                f"world_size={self.config.world_size * self.config.dp} "
                f"rank={dp_rank * self.config.world_size + rank} "
                f"local_rank={rank - self.config.local_ranks.start} distributed_init_method={method} "
                "backend=hccl",
            )

    async def _crash_later(self, crash: dict[str, Any]) -> None:
        default = self.timing.load_seconds / 2
        await asyncio.sleep(float(crash.get("after", default)))
        message = str(
            crash.get("message")
            or "The Inner error is reported as above. The process exits for this inner error."
        )
        self.fail(
            StartupFailure(
                "RuntimeError", message, stage="worker", frame=(checks.LOADER[0], 300, "load_weights")
            )
        )

    def fail(self, failure: BaseException) -> None:
        if not self.died.done():
            self.died.set_exception(failure)

    async def _gather_ranks(self) -> None:
        """The data-parallel ranks of other processes: before anything else, as the engine cores do it."""
        config = self.config
        if not config.dp_remote:
            return
        scale = self.timing.hccl_connect_timeout_scale
        if config.dp_rank == 0 and not config.headless:
            front = FrontEnd(config, self.core_log, self.fail, scale)
            self.head = front
            self.requests = Requests(front, self._stall)
            front.on_message, front.on_lost = self._from_rank, self.requests.lost
            await front.start()
            await front.gather_ranks()
            return
        if self.fault("engine_missing_peer") is not None:
            await asyncio.Event().wait()
        ranks = [Rank(config, dp_rank, log, scale) for dp_rank, log in self.core_logs.items()]
        self.links += ranks
        await asyncio.gather(*(rank.join() for rank in ranks))

    def _serve_front_end(self) -> None:
        """Without an API of its own, each core here works for rank 0's front end."""
        for link, core in zip(self.links, self.cores.values(), strict=True):
            Served(link, core)
        self.metrics.told = lambda what, name, value, rank: self.links[rank - self.config.dp_rank].send(
            {"metric": [what, name, value, rank]}
        )

    async def _form_nodes(self) -> None:
        """The nodes of one data-parallel rank."""
        config, args = self.config, self.config.args
        if config.nnodes == 1:
            return
        seconds = connect_timeout(self.timing.hccl_connect_timeout_scale)
        address, port = args.master_addr, args.master_port
        others = {
            node: list(range(node * config.local_world_size, (node + 1) * config.local_world_size))
            for node in range(1, config.nnodes)
        }
        if config.node_rank == 0:
            self.head = Head(address, port, others, self.core_log)
            self.head.on_message = self._from_member
            self._bind_queue(address)
            await self.head.start()
            await self.head.form(seconds)
            return
        if self.fault("engine_missing_peer") is not None:
            await asyncio.Event().wait()
        self._bind_queue(network.get_ip())
        hello = {"shape": [address, sorted(others)], "ranks": list(config.local_ranks)}
        link = Member(config.node_rank, hello, address, port, self.first_log, config.local_ranks.start)
        link.on_message = self._from_head
        self.links.append(link)
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
        seconds = connect_timeout(self.timing.hccl_connect_timeout_scale)
        if self.head is not None:
            await self.head.barrier(name, seconds)
        await asyncio.gather(*(link.barrier(name, seconds) for link in self.links))

    def _make_connectors(self) -> dict[tuple[int, int], TransferEngine]:
        """The workers' half of the connector, made before the weights are loaded."""
        config = self.config
        if config.kv is None:
            return {}
        check_connector(config, network.get_ip())
        suffix = self.fault("engine_id_suffix")
        self.engine_id = new_engine_id(
            config.kv.engine_id, suffix=suffix is None or bool(suffix.get("enabled", False))
        )
        chips = checks.visible_chips()
        return {
            place: TransferEngine(chips[number % len(chips)]) for number, place in enumerate(self.worker_logs)
        }

    async def _load(self) -> None:
        config, log = self.config, self.first_log
        for worker in self.worker_logs.values():
            worker.info("model_runner_v1.py:2378", f"Starting to load model {config.model.path}...")
        files = checks.check_weights(config)
        self.spoiled_weights = bool(checks.missing_shards(config.model.directory))
        stuck = self.fault("engine_hang")
        factor, extra = self.slowness()
        seconds = self.timing.load_seconds * factor + extra
        shows = config.has_core
        begun = shown = time.monotonic()
        description = "Loading safetensors checkpoint shards"
        if shows:
            log.progress(description, 0, len(files), 0.0)
        for number, path in enumerate(files, 1):
            checks.check_shard(path)
            ahead = begun + seconds * number / len(files) - time.monotonic()
            if ahead > 0.005:
                await asyncio.sleep(ahead)
            if stuck is not None and stuck.get("at") == "load" and number > len(files) // 2:
                await asyncio.Event().wait()
            now = time.monotonic()
            if shows and (now - shown >= PROGRESS_SECONDS or number == len(files)):
                log.progress(description, number, len(files), now - begun)
                shown = now
        took = time.monotonic() - begun
        if shows:
            log.info("default_loader.py:308", f"Loading weights took {took:.2f} seconds")
        gigabytes = self._weights_per_chip() / GIB
        for worker in self.worker_logs.values():
            worker.info("model_runner_v1.py:2395", f"Loading model weights took {gigabytes:.4f} GB")
        if self.fault("engine_oom") is not None:
            raise StartupFailure(
                "RuntimeError",
                "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 61.28 GiB total capacity; "
                "58.02 GiB already "
                "allocated; 58.02 GiB current active; 1.10 GiB free; 58.31 GiB reserved in total by "
                "PyTorch) If "
                "reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
                "fragmentation.",
                frame=(
                    "/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py",
                    275,
                    "determine_available_memory",
                ),
                stage="worker",
            )

    def _weights_per_chip(self) -> int:
        return WEIGHTS_BYTES // (self.config.world_size * self.config.dp) + DENSE_BYTES

    def _make_cache(self) -> None:
        """The KV cache: what the profile run leaves of the chip's memory."""
        config = self.config
        available = int(
            HBM_BYTES * config.args.gpu_memory_utilization - self._weights_per_chip() - ACTIVATION_BYTES
        )
        if config.model.is_mla and config.world_size * config.dp < 16:
            # Small test models on few chips: the table's weights are not what they load.
            available = 20 * GIB
        elif not config.model.is_mla:
            available = 20 * GIB
        available = max(available, 0)
        for log in self.worker_logs.values():
            log.info("worker.py:308", f"Available memory: {available}, total memory: {HBM_BYTES}")
        layers = int(config.model.config.get("num_hidden_layers", 1)) + 1
        width = 576 if config.model.is_mla else 2 * 128 * max(1, config.model.kv_heads // config.tp)
        block = layers * width * 2 * config.block_size
        self.num_blocks = config.args.num_gpu_blocks_override or available // block
        frame = ("/vllm-workspace/vllm/vllm/v1/core/kv_cache_utils.py", 700, "check_enough_kv_cache_memory")
        if self.num_blocks == 0:
            raise StartupFailure(
                "ValueError",
                "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
                "when initializing "
                "the engine.",
                frame=frame,
                stage="core",
            )
        tokens = self.num_blocks * config.block_size * config.cp_size
        longest = config.model.max_model_len
        if tokens < longest:
            raise StartupFailure(
                "ValueError",
                f"To serve at least one request with the models's max seq len ({longest}), "
                f"({longest * block / config.block_size / config.cp_size / GIB:.2f} GiB KV cache is "
                "needed, which is "
                f"larger than the available KV cache memory ({available / GIB:.2f} GiB). Based on the "
                "available "
                f"memory, the estimated maximum model length is {tokens}. Try increasing "
                "`gpu_memory_utilization` or "
                "decreasing `max_model_len` when initializing the engine.",
                frame=frame,
                stage="core",
            )
        if not config.has_core:
            return
        if config.cp_size > 1:
            self.core_log.info(
                "kv_cache_utils.py:1283",
                f"Multiplying the GPU KV cache size by the cp_world_size {config.cp_size} (pcp_world_size "
                f"{config.pcp} * dcp_world_size {config.dcp}).",
            )
        self.core_log.info("kv_cache_utils.py:1291", f"GPU KV cache size: {tokens:,} tokens")
        self.core_log.info(
            "kv_cache_utils.py:1296",
            f"Maximum concurrency for {longest:,} tokens per request: {tokens / longest:.2f}x",
        )

    async def _register(self, engines: dict[tuple[int, int], TransferEngine]) -> None:
        """Register the KV cache with the connector: the producer begins to listen, the consumer only gets
        ready."""
        config = self.config
        if config.kv is None:
            return
        for log in self.worker_logs.values():
            log.info(
                "mooncake_connector.py:1246",
                f"Registering KV_Caches. use_mla: {config.model.is_mla}, use_sparse: False, shape "
                f"torch.Size([{self.num_blocks}, {config.block_size}, 1, 512])",
            )
        host = network.get_ip()
        mine = {str(rank): {"host": host, "engine_id": self.engine_id} for rank in config.local_ranks}
        self.nodes.update(mine)
        if config.kv.role == "kv_producer" and config.kv.connector == "MooncakeConnectorV1":
            self.producer = Producer(config, self.engine_id_of, self.num_blocks, self._chip_freed)
            for (dp_rank, rank), log in self.worker_logs.items():
                await self.producer.add_chip(dp_rank, rank, log, engines[dp_rank, rank]).start(host)
        elif config.kv.connector == "MooncakeLayerwiseConnector":
            await self._register_layerwise(engines)
        elif config.kv.connector.startswith("Mooncake"):
            self._make_consumers()
        if config.node_rank > 0:
            self.links[0].send(
                {"chips": mine, "hccn": checks.has_hccn_conf(), "spoiled": self.spoiled_weights}
            )
        if config.has_core:
            for dp_rank, log in self.core_logs.items():
                log.info(
                    "mooncake_connector.py:917",
                    f"Initializing Mooncake Scheduler {self.engine_id_of(dp_rank)}",
                )

    def engine_id_of(self, dp_rank: int) -> str:
        """Each data-parallel rank of a process appends its number there."""
        return f"{self.engine_id}_dp{dp_rank - self.config.dp_rank}" if self.config.dp > 1 else self.engine_id

    def _make_consumers(self) -> None:
        for dp_rank in self.dp_ranks:
            logs = [log for (rank, _), log in self.worker_logs.items() if rank == dp_rank]
            self.consumers[dp_rank] = ConsumerSide(
                self.config, self.engine_id_of(dp_rank), dp_rank, logs, self.is_sound
            )

    async def _register_layerwise(self, engines: dict[tuple[int, int], TransferEngine]) -> None:
        """With MooncakeLayerwiseConnector the consumer listens."""
        config = self.config
        assert config.kv is not None
        if config.kv.role == "kv_producer":
            self.sender = Sender(config, self.worker_logs, self.engine_id_of)
            return
        for dp_rank, core_log in self.core_logs.items():
            self.receivers[dp_rank] = Receiver(config, dp_rank, self.engine_id_of(dp_rank), core_log)
        for (dp_rank, rank), log in self.worker_logs.items():
            await self.receivers[dp_rank].listen(rank, log, engines[dp_rank, rank])

    def is_sound(self) -> bool:
        """Whether the transport of every node of this instance knows its device addresses."""
        return checks.has_hccn_conf() and all(node.get("hccn", True) for node in self.nodes.values())

    async def _capture(self) -> None:
        config = self.config
        if config.enforce_eager or not config.capture_sizes:
            return
        shows = config.has_core
        name = (
            "decode, FULL" if config.cudagraph_mode.startswith("FULL") else "mixed prefill-decode, PIECEWISE"
        )
        factor, _ = self.slowness()
        step = self.timing.capture_seconds * factor / len(config.capture_sizes)
        begun = time.monotonic()
        for number in range(len(config.capture_sizes) + 1):
            if number:
                await asyncio.sleep(step)
            if shows:
                self.first_log.bar(
                    f"Capturing CUDA graphs ({name})",
                    number,
                    len(config.capture_sizes),
                    time.monotonic() - begun,
                )
        if shows:
            took = time.monotonic() - begun
            self.first_log.info(
                "gpu_model_runner.py:4587", f"Graph capturing finished in {took:.0f} secs, took 0.52 GiB"
            )

    # -- messages between the nodes ------------------------------------------------------------------

    def _from_member(self, member: int, message: dict[str, Any]) -> None:
        if "chips" in message:
            for rank, info in message["chips"].items():
                self.nodes[rank] = {**info, "hccn": message["hccn"]}
            self.spoiled_weights = self.spoiled_weights or message["spoiled"]
        elif "freed" in message:
            dp_rank, rank, request_id = message["freed"]
            self._chip_freed(dp_rank, rank, request_id)
        elif "fatal" in message:
            kind, text, frame = message["fatal"]
            self.die(kind, text, tuple(frame))

    def _from_head(self, message: dict[str, Any]) -> None:
        if "push" in message:
            task = asyncio.get_running_loop().create_task(self._push(message["push"], message["mark"]))
            self.pushes.add(task)
            task.add_done_callback(self.pushes.discard)
        elif self.producer is None:
            return
        elif "hold" in message:
            readers = message["readers"]
            held = Held(**message["hold"])
            self.producer.hold(message["dp_rank"], held, None if readers is None else set(readers))
            self.links[0].send({"at": message["mark"]})
        elif "drop" in message:
            self.producer.drop(message["dp_rank"], message["drop"])

    async def _push(self, given: dict[str, Any], mark: str) -> None:
        """A layerwise producer's further node does its part of the forward pass."""
        assert self.sender is not None
        sound = given.pop("sound") and checks.has_hccn_conf()
        try:
            await self.sender.push(**given, sound=sound)
        except Fatal as fatal:
            self.links[0].send({"fatal": [fatal.kind, fatal.message, fatal.frame]})
        else:
            self.links[0].send({"at": mark})

    def _from_rank(self, dp_rank: int, message: dict[str, Any]) -> None:
        """What rank 0's front end hears of an engine core elsewhere."""
        if "work" in message:
            assert self.requests is not None
            self.requests.answer(message)
        elif "metric" in message:
            self.metrics.take(*message["metric"])
        elif "dead" in message and self.config.dp_mode == "internal":
            self.fail(EngineDead())

    def _chip_freed(self, dp_rank: int, rank: int, request_id: str) -> None:
        if self.config.node_rank > 0:
            self.links[0].send({"freed": [dp_rank, rank, request_id]})
        elif dp_rank in self.cores:
            self.cores[dp_rank].rank_freed(rank, request_id)

    # -- requests ------------------------------------------------------------------------------------

    async def generate(self, work: Work, outcome: Outcome) -> AsyncGenerator[str, None]:
        """The tokens of the answer, one after the other; `outcome` is filled in."""
        if self.died.done():
            raise EngineDead
        dp_rank = self.balance.choose()
        self.balance.load[dp_rank] += 1
        try:
            if dp_rank in self.cores:
                tokens = self.cores[dp_rank].generate(work, outcome)
            else:
                assert self.requests is not None
                tokens = self.requests.generate(dp_rank, work, outcome, self.or_death)
            async with aclosing(tokens):
                async for token in tokens:
                    yield token
        finally:
            self.balance.load[dp_rank] -= 1

    async def or_death(self, work: Any, undo: Callable[[Any], None] = lambda result: None) -> Any:
        """Await, unless the engine dies first. Who is cancelled at the very moment when the work is done does
        not get its result: `undo` does."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self.died}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                undo(task.result())
            raise
        if task.done():
            return task.result()
        task.cancel()
        raise EngineDead

    async def disturb(self) -> None:
        """Faults that show when a request comes."""
        crash = self.fault("engine_crash_after")
        if crash is not None and self.served >= int(crash.get("requests", 0)):
            message = str(
                crash.get("message") or "NPU function error: aclrtSynchronizeStream, error code is 507015"
            )
            self.die("RuntimeError", message)
            raise EngineDead
        stuck = self.fault("engine_hang")
        if stuck is not None and stuck.get("at") != "load":
            await self.or_death(asyncio.Event().wait())
        if self._group_broken():
            await self._stall()

    def _group_broken(self) -> bool:
        """Whether a node of this instance, or another rank of its group, is gone."""
        if self.head is not None and self.head.lost:
            return True
        return any(link.gone.is_set() or link.others_lost for link in self.links)

    async def _stall(self) -> None:
        """The call to the workers is never answered: a forward pass needs all chips of the group."""
        await self.or_death(asyncio.sleep(EXECUTE_TIMEOUT * self.timing.hccl_connect_timeout_scale))
        self.die("TimeoutError", "RPC call to execute_model timed out.")
        raise EngineDead

    def die(
        self,
        kind: str,
        message: str,
        frame: tuple[str, int, str] = EXECUTE_MODEL,
        *,
        worker: bool = True,
    ) -> None:
        """An exception in a worker's forward pass, or in the scheduler: the engine core goes down with it."""
        text = StartupFailure(kind, message, frame=frame).traceback()
        if worker:
            self.first_log.error("multiproc_executor.py:824", f"WorkerProc hit an exception.\n{text}")
        self.core_log.error("core.py:866", f"EngineCore encountered a fatal error.\n{text}")
        for link in self.links:
            link.send({"dead": True})
        self.fail(EngineDead())
