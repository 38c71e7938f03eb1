"""The KV hand-over between producer and consumer, message by message as MooncakeConnectorV1 does it.

A producer chip listens on its handshake port (ZMQ there; here JSON lines over TCP): `get_meta_msg` is
answered with the engine id and the port of the transfer engine, `done_recving_msg` with `ACK`. A consumer
chip reads from the transfer engine's port of each producer chip that holds a part of the context. What is
read is not a cache but its description; the answer is right when every consumer chip got all of the right
prompt.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from . import RELEASE, network
from .config.kv_transfer import CONNECTOR
from .config.vllm import EngineConfig
from .log import Log, StartupFailure
from .mapping import Consumer, host_of, transfers
from .paths import on_server
from .peers import Peers

GET_META, DONE_RECVING = "get_meta_msg", "done_recving_msg"
RECEIVE_SECONDS, TRIES, PAUSE_SECONDS = 1.0, 3, 0.1
ABORT_SECONDS = 480.0
"""VLLM_NIXL_ABORT_REQUEST_TIMEOUT: a producer frees blocks that nobody fetched."""

RPC_PORTS = (15000, 17000)
DIRECT_BASE, DIRECT_STEP = 20000, 1000


def _random_listener(first: int, last: int) -> socket.socket:
    """As Mooncake picks its ports: at random until one is free."""
    for _ in range(500):
        with suppress(OSError):
            return network.listen("0.0.0.0", random.randint(first, last), reuse=False)
    raise StartupFailure(
        "RuntimeError",
        "TransferEngine initialization failed with ret_value: -1",
        frame=(
            "/vllm-workspace/vllm-ascend/vllm_ascend/distributed/mooncake_transfer_engine.py",
            38,
            "get_transfer_engine",
        ),
        stage="worker",
    )


@dataclass
class TransferEngine:
    """Mooncake's listeners of one chip: its RPC port and the AscendDirectTransport's."""

    chip: int
    pinned: int | None = None
    """The RPC port, where it is not random."""
    descriptor: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What a consumer must know of this very process to read from it."""
    rpc: socket.socket = field(init=False)
    direct: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        low, high = os.environ.get("MC_MIN_PRC_PORT"), os.environ.get("MC_MAX_PRC_PORT")
        if self.pinned is None:
            self.rpc = _random_listener(int(low or RPC_PORTS[0]), int(high or RPC_PORTS[1]))
        else:
            self.rpc = network.listen("0.0.0.0", self.pinned)
        base = os.environ.get("ASCEND_BASE_PORT") if RELEASE.base_port else None
        first = int(base or DIRECT_BASE) + DIRECT_STEP * self.chip
        self.direct = _random_listener(first, first + DIRECT_STEP)

    @property
    def port(self) -> int:
        return int(self.rpc.getsockname()[1])


async def serve_lines(sock: socket.socket, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """One JSON line in, one out."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                reply = answer(json.loads(line))
                if reply is not None:
                    writer.write(json.dumps(reply).encode() + b"\n")
                    await writer.drain()
        with suppress(ConnectionError, RuntimeError):
            writer.close()

    await network.serve(sock, connection, 8 * 1024 * 1024)


@dataclass
class Held:
    """A prefilled request whose blocks wait to be fetched."""

    request_id: str
    blocks: list[int]
    prompt: str
    """Digest of the prompt."""
    dtype: str
    sound: bool
    """False where the producer's own weights or transport spoil what it computes."""


class ProducerChip:
    """One chip of a producer: handshake listener, transfer engine, counts of finished readers."""

    def __init__(
        self, producer: Producer, dp_rank: int, rank: int, port: int, log: Log, engine: TransferEngine
    ) -> None:
        self.producer, self.dp_rank, self.rank, self.port = producer, dp_rank, rank, port
        self.log = log
        self.transfer = engine
        self.sent: dict[str, int] = {}
        self.waiting: set[str] = set()
        """Requests that this chip has not been told to free."""

    async def start(self, host: str) -> None:
        path = f"tcp://{host}:{self.port}"
        self.log.info("mooncake_connector.py:226", f"Starting listening on path: {path}")
        try:
            sock = network.listen(host, self.port)
        except OSError as error:
            reason = "Address already in use" if error.errno == 98 else error.strerror or str(error)
            message = f"{reason} (addr='{path}')"
            self.log.error(
                "mooncake_connector.py:231",
                f"Mooncake KVCacheSendingThread exception: {message}\nTraceback (most recent call last):\n"
                f'  File "{CONNECTOR}", line 227, in run\n    with zmq_ctx(zmq.ROUTER, path) as sock:\n'
                f"zmq.error.ZMQError: {message}",
            )
            raise StartupFailure(
                "RuntimeError",
                "KV Cache sending/receiving thread failed to start.",
                frame=(CONNECTOR, 1318, "register_kv_caches"),
                stage="worker",
            ) from None
        await serve_lines(sock, self.answer)
        await serve_lines(self.transfer.rpc, self.read)

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The handshake listener."""
        if message.get("msg") == GET_META:
            return {
                "engine_id": self.producer.engine_ids(self.dp_rank),
                "te_rpc_port": self.transfer.port,
                "descriptor": self.transfer.descriptor,
                "num_blocks": self.producer.num_blocks,
                "local_ip": self.producer.host,
            }
        if message.get("msg") == DONE_RECVING:
            self.producer.peers.meet(message.get("by"))
            self.done(str(message["request_id"]), message.get("remote_port_send_num") or {})
            return {"reply": "ACK"}
        self.log.error("mooncake_connector.py:291", f"Connection listener got unexpected message {message}")
        return None

    def done(self, request_id: str, counts: dict[str, Any]) -> None:
        if counts:
            self.sent[request_id] = self.sent.get(request_id, 0) + 1
            if self.sent[request_id] < counts[str(self.port)]["num"]:
                return
            del self.sent[request_id]
        if request_id in self.waiting:
            self.waiting.discard(request_id)
            self.producer.freed(self.dp_rank, self.rank, request_id)
        elif not counts or counts[str(self.port)]["num"]:
            self.log.error(
                "mooncake_connector.py:130",
                "MooncakeConnector finish req not in reqs to process.If it is a P node, this request "
                "may have been "
                "force freed.",
            )

    def read(self, message: dict[str, Any]) -> dict[str, Any]:
        """The transfer engine: what this chip holds in the blocks that are asked for."""
        held = self.producer.holding(self.dp_rank, list(message.get("blocks") or []))
        config = self.producer.config
        _, pcp_rank, tp_rank = config.coordinates(self.rank)
        return {
            "prompt": held.prompt if held else None,
            "dtype": held.dtype if held else None,
            "sound": bool(held and held.sound),
            "block_size": config.block_size,
            "tp": config.tp,
            "part": [pcp_rank, tp_rank % config.dcp],
            "by": self.producer.peers.own,
        }


class Producer:
    """The producer's chips on one node."""

    def __init__(
        self,
        config: EngineConfig,
        engine_ids: Callable[[int], str],
        num_blocks: int,
        on_freed: Callable[[int, int, str], None],
        peers: Peers,
    ) -> None:
        assert config.kv is not None
        self.config, self.peers = config, peers
        self.engine_ids = engine_ids
        """Engine id by data-parallel rank."""
        self.num_blocks = num_blocks
        self.host = network.get_ip()
        self.freed = on_freed
        self.held: dict[tuple[int, str], Held] = {}
        self.chips: list[ProducerChip] = []

    def base_port(self, dp_rank: int) -> int:
        """side_channel_port of a data parallel rank."""
        assert self.config.kv is not None
        return self.config.kv.port + dp_rank * self.config.world_size

    def add_chip(self, dp_rank: int, rank: int, log: Log, engine: TransferEngine) -> ProducerChip:
        pp_rank, pcp_rank, tp_rank = self.config.coordinates(rank)
        stages = self.config.pcp if RELEASE.stage_by_context else 1
        port = self.base_port(dp_rank) + (pp_rank * stages + pcp_rank) * self.config.tp + tp_rank
        chip = ProducerChip(self, dp_rank, rank, port, log, engine)
        self.chips.append(chip)
        return chip

    def hold(self, dp_rank: int, held: Held, readers: set[int] | None) -> None:
        """Keep a request's blocks until its `readers` (ranks, None for all) are done."""
        self.held[dp_rank, held.request_id] = held
        for chip in self.chips:
            if chip.dp_rank != dp_rank:
                continue
            if readers is None or chip.rank in readers:
                chip.waiting.add(held.request_id)
            else:
                self.freed(dp_rank, chip.rank, held.request_id)

    def drop(self, dp_rank: int, request_id: str) -> Held | None:
        for chip in self.chips:
            if chip.dp_rank == dp_rank:
                chip.waiting.discard(request_id)
                chip.sent.pop(request_id, None)
        return self.held.pop((dp_rank, request_id), None)

    def holding(self, dp_rank: int, blocks: list[int]) -> Held | None:
        """The request whose blocks these are; blocks freed meanwhile hold something else."""
        for (rank, _), held in self.held.items():
            if rank == dp_rank and blocks and set(blocks) <= set(held.blocks):
                return held
        return None


class TransferLost(Exception):
    """Blocks of a request did not come, on a release that tells it."""


class Channel:
    """A REQ socket to one remote port, shared by the consumer's chips."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.lock = asyncio.Lock()
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        async with self.lock:
            try:
                async with asyncio.timeout(seconds):
                    if self.streams is None:
                        self.streams = await asyncio.open_connection(
                            self.host, self.port, limit=8 * 1024 * 1024
                        )
                    reader, writer = self.streams
                    writer.write(json.dumps(message).encode() + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                    if not line:
                        raise ConnectionResetError
                    reply: dict[str, Any] = json.loads(line)
                    return reply
            except BaseException:
                # Also when the request is given up: the next one must not read this one's answer.
                self.close()
                raise

    def close(self) -> None:
        if self.streams is not None:
            with suppress(RuntimeError):
                self.streams[1].close()
        self.streams = None


class ConsumerSide:
    """The consumer's receiving threads, all chips of a data parallel rank."""

    def __init__(
        self,
        config: EngineConfig,
        engine_id: str,
        dp_rank: int,
        logs: list[Log],
        sound: Callable[[], bool],
        peers: Peers,
    ) -> None:
        assert config.kv is not None
        self.peers = peers
        self.config, self.engine_id, self.logs, self.sound = config, engine_id, logs, sound
        self.host = network.get_ip()
        self.consumer = Consumer(
            tp=config.tp,
            pcp=config.pcp,
            dcp=config.dcp,
            prefill_tp=config.kv.size("prefill", "tp_size"),
            prefill_pp=config.kv.size("prefill", "pp_size", 1),
            is_mla=config.model.is_mla,
            kv_heads=config.model.kv_heads,
            block_size=config.block_size,
            base_port=config.kv.port + dp_rank * config.world_size,
        )
        self.channels: dict[tuple[str, int, str], Channel] = {}
        self.known: dict[tuple[str, int], int] = {}
        """Transfer port by (engine id, handshake port)."""
        self.current: dict[tuple[str, int], str] = {}
        """What is right of the chip there, by the same."""
        self.descriptors: dict[tuple[str, int], str] = {}
        """What Mooncake believes, by (host, transfer port)."""
        self.learning: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    def _channel(self, host: str, port: int, engine_id: str = "") -> Channel:
        """With an engine id, no connection of an earlier process that had the same random port."""
        return self.channels.setdefault((host, port, engine_id), Channel(host, port))

    async def pull(self, request_id: str, prompt: str, remote: dict[str, Any]) -> bool:
        """Read the request's blocks on all chips. True when every chip holds the KV cache of this very
        prompt.

        A read that fails is logged, and the request goes on with whatever its blocks hold: so does the real
        connector before v0.23.0. From then on TransferLost is raised.
        """
        remote = {"remote_pcp_size": 1, "remote_dcp_size": 1, **remote}
        consumer = self.consumer
        if RELEASE.tells_request:
            request_id = str(remote["remote_request_id"])
            consumer = replace(consumer, prefill_tp=int(remote.get("remote_ptp_size") or consumer.prefill_tp))
        plan, counts = transfers(consumer, remote, request_id)
        by_rank: defaultdict[int, list[int]] = defaultdict(list)
        for transfer in plan:
            by_rank[transfer.rank].append(transfer.port)
        results = await asyncio.gather(
            *(
                self._pull_rank(rank, ports, request_id, prompt, remote, counts, consumer.prefill_tp)
                for rank, ports in by_rank.items()
            )
        )
        await self._release_unread(request_id, counts)
        if not self.sound():
            plog("'device ip' is not set correctly")
            results.append(None)
        if RELEASE.reports_lost_transfers and None in results:
            raise TransferLost
        return all(results)

    async def _pull_rank(
        self,
        rank: int,
        ports: list[int],
        request_id: str,
        prompt: str,
        remote: dict[str, Any],
        counts: dict[int, dict[str, Any]],
        prefill_tp: int,
    ) -> bool | None:
        """Whether all that this chip read is right; None where it could not be read."""
        log = self.logs[min(rank, len(self.logs) - 1)]
        parts, good, lost = [], True, False
        for port in ports:
            host, engine_id = host_of(remote, port)
            begun = time.perf_counter()
            try:
                got, session = await self._read(log, rank, host, engine_id, port, remote["remote_block_ids"])
            except _TransferError as error:
                if error.in_transfer:
                    log.error(
                        "mooncake_connector.py:555",
                        f"Mooncake transfer failed for request {request_id}",
                    )
                log.error(
                    "mooncake_connector.py:427",
                    f"Failed to transfer KV cache for request {request_id}: {error}\n" + error.trace,
                )
                lost = True
            else:
                self.peers.meet(got["by"])
                parts.append(tuple(got["part"]))
                good = good and self._is_right(got, prompt, prefill_tp)
                if rank == 0:
                    took = (time.perf_counter() - begun) * 1000
                    log.info(
                        "mooncake_connector.py:567",
                        f"KV cache transfer for request {request_id} took {took:.2f} ms (1 groups, "
                        f"{len(remote['remote_block_ids'])} blocks). local_ip {self.host} "
                        f"local_device_id {rank} "
                        f"remote_session_id {host}:{session}",
                    )
            await self._done(log, rank, host, port, request_id, counts)
        if lost:
            return None
        if remote["remote_pcp_size"] * remote["remote_dcp_size"] > 1:
            whole = {
                (pcp, dcp)
                for pcp in range(remote["remote_pcp_size"])
                for dcp in range(remote["remote_dcp_size"])
                if (pcp * remote["remote_dcp_size"] + dcp) % self.config.cp_size == self._context_rank(rank)
            }
            good = good and whole <= set(parts)
        return good

    def _context_rank(self, rank: int) -> int:
        _, pcp_rank, tp_rank = self.config.coordinates(rank)
        return pcp_rank * self.config.dcp + tp_rank % self.config.dcp

    def _is_right(self, got: dict[str, Any], prompt: str, prefill_tp: int) -> bool:
        return bool(
            got["sound"]
            and got["prompt"] == prompt
            and got["block_size"] == self.config.block_size
            and got["dtype"] == self.config.model.dtype
            and got["tp"] == prefill_tp
        )

    async def _read(
        self, log: Log, rank: int, host: str, engine_id: str, port: int, blocks: list[int]
    ) -> tuple[dict[str, Any], int]:
        """What the chip there holds, and the transfer port over which it came."""
        async with self.learning[engine_id, port]:
            if (engine_id, port) not in self.known:
                meta = await self._exchange(log, rank, host, port, {"msg": GET_META})
                if meta["engine_id"] == self.engine_id:
                    raise _TransferError(
                        f"Conflict engine id {meta['engine_id']} with local engine id {self.engine_id}.",
                        "AssertionError",
                    )
                self.known[meta["engine_id"], port] = meta["te_rpc_port"]
                self.current[meta["engine_id"], port] = meta["descriptor"]
        if (engine_id, port) not in self.known:
            raise _TransferError(f"{port}", "KeyError")
        # Another request whose read fails forgets the port while this one waits for its turn.
        session = self.known[engine_id, port]
        self._check_descriptor(host, session, self.current[engine_id, port])
        try:
            channel = self._channel(host, session, engine_id)
            return await channel.ask({"read": True, "blocks": blocks}, RECEIVE_SECONDS * TRIES + 1), session
        except (OSError, ValueError, TimeoutError):
            self.known.pop((engine_id, port), None)
            raise _TransferError("Mooncake transfer failed, ret: -1", "RuntimeError") from None

    def _check_descriptor(self, host: str, session: int, current: str) -> None:
        """Mooncake connects to where the descriptor of `host:session` leads, and asks for it once. That of an
        earlier process with the same random port leads nowhere.

        Source: Mooncake v0.3.7.post2:mooncake-transfer-engine/src/transfer_metadata.cpp
        (getSegmentDescByID); of v0.3.9 also ascend_direct_transport.cpp (need_update_metadata_segs_).
        """
        believed = self.descriptors.setdefault((host, session), current)
        if believed == current or "MC_DISABLE_METACACHE" in os.environ:
            return
        if RELEASE.refreshes_descriptors:
            self.descriptors[host, session] = current
        raise _TransferError("Mooncake transfer failed, ret: -1", "RuntimeError")

    async def _exchange(
        self, log: Log, rank: int, host: str, port: int, message: dict[str, Any]
    ) -> dict[str, Any]:
        """Send and receive as ensure_zmq_recv does: three tries of one second."""
        channel = self._channel(host, port)
        for left in range(TRIES - 1, -1, -1):
            started = time.monotonic()
            try:
                return await channel.ask(message, RECEIVE_SECONDS)
            except (OSError, ValueError, TimeoutError):
                # A refused connection looks like silence to ZMQ: it goes on connecting.
                await asyncio.sleep(max(0.0, RECEIVE_SECONDS - (time.monotonic() - started)))
            if left and rank == 0:
                log.warning(
                    "mooncake_connector.py:1771",
                    f"Receive failed: Receive timeout, retrying... ({left} attempts left)",
                )
                await asyncio.sleep(PAUSE_SECONDS)
        if rank == 0:
            log.error("mooncake_connector.py:1775", "Receive failed after all retries: Receive timeout")
        raise _TransferError("Failed to receive data after 3 retries: Receive timeout", "RuntimeError")

    async def _done(
        self, log: Log, rank: int, host: str, port: int, request_id: str, counts: dict[int, dict[str, Any]]
    ) -> None:
        message = {
            "msg": DONE_RECVING,
            "request_id": request_id,
            "remote_port_send_num": counts,
            "by": self.peers.own,
        }
        channel = self._channel(host, port)
        try:
            try:
                await channel.ask(message, RECEIVE_SECONDS * TRIES)
            except ConnectionError:
                # The connection was to an earlier process at this port: ZMQ connects again by itself.
                await channel.ask(message, RECEIVE_SECONDS * TRIES)
        except (OSError, ValueError, TimeoutError):
            if rank == 0:
                log.warning(
                    "mooncake_connector.py:735",
                    "Unexpected error occurred in socket, Failed to send data after 3 retries: "
                    "Operation cannot be "
                    "accomplished in current state, closing the original channel",
                )

    async def _release_unread(self, request_id: str, counts: dict[int, dict[str, Any]]) -> None:
        """The producer chips that nobody reads are told as well, so that they free their blocks."""
        for port, info in counts.items():
            if info["num"] == 0:
                await self._done(self.logs[0], 0, info["host"], port, request_id, counts)


class _TransferError(Exception):
    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.in_transfer = message.startswith("Mooncake transfer failed")
        """Not in what the two sides say before and after it."""
        self.trace = (
            f'Traceback (most recent call last):\n  File "{CONNECTOR}", line 421, in _handle_request\n'
            f"    self._transfer_kv_cache(req_meta)\n{kind}: {message}"
        )


def plog(message: str) -> None:
    """CANN's log: a file of its own, not what `docker logs` shows (ASCEND_SLOG_PRINT_TO_STDOUT=1 turns it
    there)."""
    line = (
        f"[ERROR] HCCL({os.getpid()},python3):{time.strftime('%Y-%m-%d-%H:%M:%S')}.000.000 "
        f"[adapter_hccp.cc:1206] [GetDeviceIp] {message}, please check /etc/hccn.conf"
    )
    if os.environ.get("ASCEND_SLOG_PRINT_TO_STDOUT") == "1":
        print(line, flush=True)
        return
    folder = on_server(os.environ.get("ASCEND_PROCESS_LOG_PATH", "/root/ascend/log")) / "debug" / "plog"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"plog-{os.getpid()}.log").open("a", encoding="utf-8") as out:
            out.write(line + "\n")


def new_engine_id(given: str, *, suffix: bool) -> str:
    """vllm-ascend appends a random suffix, so that restarts and twins do not collide."""
    return f"{given}-{uuid.uuid4().hex}" if suffix else given
