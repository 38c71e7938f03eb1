"""The hand-over of MooncakeLayerwiseConnector: the decoder is asked first and listens, the prefiller pushes.

A decoder allocates the blocks, tells the proxy's metaserver where they are, and waits. The proxy asks a
prefiller, whose chips write into the decoder's chips layer by layer while they compute, and tell each of
them when the last layer is written. Nothing here has a limit of time: who is not served waits.

Sources: A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py, and the same file of v0.18.0 and
v0.23.0 under kv_transfer/kv_p2p. As in `handover`, JSON lines stand for ZMQ and for the transfer engine, and
descriptions for caches. The layers go in a few steps.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from . import RELEASE, network
from .config.vllm import EngineConfig
from .handover import (
    GET_META,
    PAUSE_SECONDS,
    RECEIVE_SECONDS,
    TRIES,
    Channel,
    TransferEngine,
    plog,
    serve_lines,
)
from .log import Log, StartupFailure
from .mapping import Consumer, transfers
from .peers import Peers

DONE_SENDING, FAILED_SENDING = "done_sending_msg", "failed_sending_msg"
STEPS = 4
"""In so many steps the layers of a request are pushed."""
MODULE = RELEASE.source("MooncakeLayerwiseConnector")
_metaserver_calls = ThreadPoolExecutor(32)


class Fatal(Exception):
    """What ends the engine core: the kind of the exception, its message, and where it is raised."""

    def __init__(self, kind: str, message: str, function: str, *, worker: bool = True) -> None:
        super().__init__(message)
        self.kind, self.message, self.frame = kind, message, (MODULE, 620, function)
        self.worker = worker
        """Raised in a worker's forward pass, or else in the scheduler."""


@dataclass
class _Block:
    """What one block of one chip holds."""

    content: dict[str, Any]
    written: set[tuple[int, int, int]] = field(default_factory=set)
    """(prefill context rank, decode context rank, step) that have come."""


@dataclass
class _Awaited:
    """A request whose blocks are to be written."""

    blocks: list[int]
    done: dict[int, set[str]]
    """Rank -> the chips that have told it that they are done."""
    finished: asyncio.Future[bool]
    """Whether all of it was sent."""


class Receiver:
    """The listening side: the decoder's chips of one data-parallel rank on this node."""

    def __init__(
        self, config: EngineConfig, dp_rank: int, engine_id: str, core_log: Log, peers: Peers
    ) -> None:
        assert config.kv is not None
        self.peers = peers
        self.config, self.engine_id, self.core_log = config, engine_id, core_log
        self.host = network.get_ip()
        self.base_port = config.kv.port + dp_rank * config.tp
        self.cache: dict[int, dict[int, _Block]] = {}
        """Rank -> block -> what it holds."""
        self.awaited: dict[str, _Awaited] = {}

    async def listen(self, rank: int, log: Log, engine: TransferEngine) -> None:
        """One chip. A port that is taken ends its thread only, and the start waits for it for ever."""
        port = self.base_port + rank % self.config.tp
        path = f"tcp://{self.host}:{port}"
        log.info("mooncake_layerwise_connector.py:405", f"Starting listening on path: {path}")
        try:
            sock = network.listen(self.host, port)
        except OSError as error:
            reason = "Address already in use" if error.errno == 98 else error.strerror or str(error)
            failure = StartupFailure(
                "zmq.error.ZMQError", f"{reason} (addr='{path}')", frame=(MODULE, 408, "run")
            )
            log.raw(f"Exception in thread KVCacheRecvingLayerThread:\n{failure.traceback()}")
            await asyncio.Event().wait()
            return
        self.cache[rank] = {}
        await serve_lines(sock, lambda message: self._answer(rank, engine, log, message))
        await serve_lines(engine.rpc, lambda message: self._write(rank, message))

    def _answer(
        self, rank: int, engine: TransferEngine, log: Log, message: dict[str, Any]
    ) -> dict[str, Any] | None:
        if message.get("msg") == GET_META:
            log.info("mooncake_layerwise_connector.py:426", "Got GET META INFO for request b'get_meta_msg'")
            return {"te_rpc_port": engine.port}
        if message.get("msg") in (DONE_SENDING, FAILED_SENDING):
            self._done(rank, message)
            return {"reply": "ACK"}
        log.error(
            "mooncake_layerwise_connector.py:437", f"Connection listener got unexpected message {message}"
        )
        return None

    def _write(self, rank: int, message: dict[str, Any]) -> dict[str, Any]:
        """The transfer engine: another chip writes into blocks of this one."""
        content = message["content"]
        self.peers.meet(message["by"])
        for number in message["blocks"]:
            block = self.cache[rank].get(number)
            if block is None or block.content != content:
                block = self.cache[rank][number] = _Block(content)
            block.written.add(tuple(message["part"]))
        return {"written": len(message["blocks"]), "by": self.peers.own}

    def _done(self, rank: int, message: dict[str, Any]) -> None:
        awaited = self.awaited.get(message["request_id"])
        if awaited is None or awaited.finished.done():
            return
        if message["msg"] == FAILED_SENDING:
            awaited.finished.set_result(False)
            return
        done = awaited.done.get(rank)
        if done is None:
            return
        done.add(message["path"])
        if len(done) >= message["count"]:
            del awaited.done[rank]
            if not awaited.done:
                awaited.finished.set_result(True)

    def await_blocks(self, request_id: str, blocks: list[int]) -> asyncio.Future[bool]:
        """From now on chips may say that they have written these blocks."""
        ranks: dict[int, set[str]] = {rank: set() for rank in self.cache}
        finished: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.awaited[request_id] = _Awaited(blocks, ranks, finished)
        return finished

    def leave(self, request_id: str) -> None:
        self.awaited.pop(request_id, None)

    def parameters(self, request_id: str, blocks: list[int]) -> dict[str, Any]:
        """What the proxy's metaserver is told."""
        config = self.config
        common = {
            "token_ids": [],
            "request_id": request_id,
            "do_remote_prefill": False,
            "do_remote_decode": True,
            "remote_engine_id": self.engine_id,
            "remote_host": self.host,
            "remote_port": self.base_port,
        }
        if not RELEASE.layerwise_tells_sizes:
            return {**common, "remote_block_ids": blocks}
        return {
            **common,
            "remote_block_ids": [blocks],
            "remote_block_size": [config.block_size],
            "remote_tp_size": config.tp,
            "remote_pcp_size": config.pcp,
            "remote_dcp_size": config.dcp,
            "remote_cached_tokens": 0,
        }

    async def tell(self, url: Any, parameters: dict[str, Any]) -> None:
        """Three tries; any answer is a success, and no success is nobody's business but the log's."""
        body = json.dumps(parameters).encode()
        loop = asyncio.get_running_loop()
        for number in range(1, 4):
            try:
                await loop.run_in_executor(_metaserver_calls, _post, url, body)
                return
            except (OSError, ValueError, AttributeError) as error:
                reason = getattr(error, "reason", error)
                self.core_log.error(
                    "mooncake_layerwise_connector.py:812",
                    f"Failed to connect to metaserver: {url}, retry {number} time.",
                )
                if number == 3:
                    self.core_log.error(
                        "mooncake_layerwise_connector.py:695", f"Access metaserver fail: {reason}"
                    )

    def holds(self, blocks: list[int], prompt: str) -> bool:
        """Whether every chip has got the whole KV cache of this very prompt in these blocks."""
        return all(
            self._is_right(held.get(number), rank, prompt)
            for rank, held in self.cache.items()
            for number in blocks
        )

    def _is_right(self, block: _Block | None, rank: int, prompt: str) -> bool:
        if block is None:
            return False
        config, content = self.config, block.content
        mine = (config.block_size, config.model.dtype, prompt)
        if (content["block_size"], content["dtype"], content["prompt"]) != mine or not content["sound"]:
            return False
        _, pcp_rank, tp_rank = config.coordinates(rank)
        context_rank = pcp_rank * config.dcp + tp_rank % config.dcp
        pcp, dcp = content["sizes"]
        return block.written >= {
            (p, d, step)
            for p in range(pcp)
            for d in range(dcp)
            for step in range(STEPS)
            if (p * dcp + d) % config.cp_size == context_rank
        }


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()


class Sender:
    """The pushing side: the prefiller's chips on this node."""

    def __init__(
        self,
        config: EngineConfig,
        logs: dict[tuple[int, int], Log],
        engine_ids: Callable[[int], str],
        peers: Peers,
    ) -> None:
        self.peers = peers
        self.config, self.logs, self.engine_ids = config, logs, engine_ids
        self.host = network.get_ip()
        self.known: dict[tuple[str, int], int] = {}
        """Transfer port by (engine id, handshake port)."""
        self.learning: dict[tuple[str, int], asyncio.Lock] = {}

    def check(self, kv: dict[str, Any]) -> None:
        """What the scheduler needs of a request; it does not look before it uses it."""
        function = "update_state_after_alloc"
        if RELEASE.layerwise_tells_sizes:
            if "remote_cached_tokens" not in kv:
                raise Fatal("KeyError", "'remote_cached_tokens'", function, worker=False)
        elif not isinstance(kv.get("remote_block_ids"), list):
            raise Fatal("TypeError", "object of type 'NoneType' has no len()", function, worker=False)

    def plan(self, request_id: str, kv: dict[str, Any]) -> list[tuple[int, int]]:
        """(rank here, rank there) of each push of a request: each chip there gets the whole context."""
        config = self.config
        assert config.kv is not None
        view = Consumer.seen_by(
            config,
            tp=int(kv.get("remote_tp_size") or config.kv.size("decode", "tp_size")),
            pcp=int(kv.get("remote_pcp_size") or 1),
            dcp=int(kv.get("remote_dcp_size") or 1),
        )
        here = {
            "remote_port": 0,
            "remote_pcp_size": config.pcp,
            "remote_dcp_size": config.dcp,
            "remote_host": "",
        }
        return [(push.port, push.rank) for push in transfers(view, here, request_id)[0]]

    async def push(
        self, dp_rank: int, request_id: str, prompt: str, kv: dict[str, Any], *, sound: bool, seconds: float
    ) -> None:
        """Push what the chips here hold, while they compute for `seconds`. Raises Fatal."""
        plan = self.plan(request_id, kv)
        counts: dict[int, int] = {}
        for _, there in plan:
            counts[there] = counts.get(there, 0) + 1
        content = {
            "prompt": prompt,
            "dtype": self.config.model.dtype,
            "block_size": self.config.block_size,
            "sizes": [self.config.pcp, self.config.dcp],
            "sound": sound,
        }
        if not sound:
            plog("'device ip' is not set correctly")
        await asyncio.gather(
            asyncio.sleep(seconds),
            *(
                self._push_chip(dp_rank, here, there, request_id, kv, content, counts[there], seconds)
                for here, there in plan
                if (dp_rank, here) in self.logs
            ),
        )

    async def _push_chip(
        self,
        dp_rank: int,
        here: int,
        there: int,
        request_id: str,
        kv: dict[str, Any],
        content: dict[str, Any],
        count: int,
        seconds: float,
    ) -> None:
        log = self.logs[dp_rank, here]
        host, port = str(kv["remote_host"]), int(kv["remote_port"]) + there
        remote = str(kv["remote_engine_id"])
        blocks = kv["remote_block_ids"]
        if RELEASE.layerwise_tells_sizes:
            blocks = [number for group in blocks for number in group]
        transfer_port = await self._learn(log, dp_rank, request_id, host, port, remote)
        if transfer_port is None:
            return
        _, pcp_rank, tp_rank = self.config.coordinates(here)
        channel, sent = Channel(host, transfer_port), True
        try:
            for step in range(STEPS):
                await asyncio.sleep(seconds / STEPS)
                part = [pcp_rank, tp_rank % self.config.dcp, step]
                given = {"blocks": blocks, "part": part, "content": content, "by": self.peers.own}
                reply = await channel.ask(given, RECEIVE_SECONDS * TRIES + 1)
                self.peers.meet(reply.get("by"))
        except (OSError, ValueError, TimeoutError):
            log.error(
                "mooncake_layerwise_connector.py:330",
                f"Mooncake transfer failed for send requests ['{request_id}'] kv cache to "
                f"{host}:{transfer_port}",
            )
            sent = False
        finally:
            channel.close()
        await self._say_done(log, here, host, port, request_id, count, sent=sent)

    async def _learn(
        self, log: Log, dp_rank: int, request_id: str, host: str, port: int, remote: str
    ) -> int | None:
        """The transfer port of a chip there, asked for once. None where the push is given up."""
        lock = self.learning.setdefault((remote, port), asyncio.Lock())
        async with lock:
            if (remote, port) in self.known:
                return self.known[remote, port]
            channel = Channel(host, port)
            try:
                meta = await self._ask(channel, log)
            except (OSError, ValueError, TimeoutError):
                error = "Failed to receive data after 3 retries: Receive timeout"
                log.error(
                    "mooncake_layerwise_connector.py:1155",
                    f"Query to port and kv base addr for request {request_id} from {host}:{port} fail with "
                    f"error: {error}",
                )
                self._give_up(
                    log,
                    request_id,
                    Fatal(
                        "UnboundLocalError",
                        "cannot access local variable 'agent_meta' where it is not associated with a value",
                        "update_decoder_info",
                    ),
                    error,
                )
                return None
            finally:
                channel.close()
            if remote == self.engine_ids(dp_rank):
                text = f"Conflict engine id {remote} with local engine id  ."
                self._give_up(log, request_id, Fatal("AssertionError", text, "update_decoder_info"), text)
                return None
            self.known[remote, port] = int(meta["te_rpc_port"])
            log.info(
                "mooncake_layerwise_connector.py:1166",
                f"Query to port and kv base addr for request {request_id} from {host}:{port} success "
                f"agent_meta.te_rpc_port={meta['te_rpc_port']}",
            )
            return self.known[remote, port]

    @staticmethod
    def _give_up(log: Log, request_id: str, fatal: Fatal, text: str) -> None:
        """In the forward pass: v0.13.0 goes down with it, later releases leave the decoder waiting."""
        if RELEASE.layerwise_query_fatal:
            raise fatal
        log.warning(
            "mooncake_layerwise_connector.py:1667",
            f"MooncakeLayerwiseConnector transfer fail for req_id {request_id} in layer_idx 0, "
            f"update_decoder_info with error: {text}",
        )

    @staticmethod
    async def _ask(channel: Channel, log: Log) -> dict[str, Any]:
        """GET_META as ensure_zmq_recv does it: three tries of one second."""
        for left in range(TRIES - 1, -1, -1):
            begun = time.monotonic()
            try:
                return await channel.ask({"msg": GET_META}, RECEIVE_SECONDS)
            except (OSError, ValueError, TimeoutError):
                if not left:
                    raise
                # A refused connection looks like silence to ZMQ: it goes on connecting.
                await asyncio.sleep(max(0.0, RECEIVE_SECONDS - (time.monotonic() - begun)))
            log.warning(
                "mooncake_layerwise_connector.py:1360",
                f"Receive failed: Receive timeout, retrying... ({left} attempts left)",
            )
            await asyncio.sleep(PAUSE_SECONDS)
        raise TimeoutError

    async def _say_done(
        self, log: Log, here: int, host: str, port: int, request_id: str, count: int, *, sent: bool
    ) -> None:
        """Before v0.23.0 a failure is told as an end: the decoder goes on with what its blocks hold."""
        log.info(
            "mooncake_layerwise_connector.py:1195",
            f"Sending done sending signal for request {request_id} to {host}:{port}",
        )
        message = {
            "msg": FAILED_SENDING if RELEASE.layerwise_tells_failure and not sent else DONE_SENDING,
            "request_id": request_id,
            "count": count,
            "path": f"{self.host}:{here}",
        }
        channel = Channel(host, port)
        try:
            await channel.ask(message, RECEIVE_SECONDS * TRIES)
        except (OSError, ValueError, TimeoutError) as error:
            log.error(
                "mooncake_layerwise_connector.py:1208",
                f"Sending done sending signal for request {request_id} to {host}:{port} fail with error: "
                f"{error}",
            )
        finally:
            channel.close()
