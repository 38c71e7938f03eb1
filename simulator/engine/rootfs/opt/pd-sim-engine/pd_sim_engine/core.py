"""An engine core: one data-parallel rank with its scheduler, its blocks and its side of the hand-over."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from . import RELEASE, model
from .config.kv_transfer import CONNECTOR
from .handover import ABORT_SECONDS, Held, TransferLost, plog
from .layerwise import Fatal, Receiver, Sender
from .mapping import Consumer, ranks_without_context_parallel
from .metrics import CAPACITY, DEFERRED
from .request import EngineDead, Outcome, RequestFailed, Work
from .state import EXECUTE_TIMEOUT, EngineState


def _abort_seconds() -> float:
    """After which a producer frees blocks that nobody has fetched."""
    return float(os.environ.get(RELEASE.abort_variable, ABORT_SECONDS))


class Core:
    """One data-parallel rank of this process."""

    def __init__(self, state: EngineState, dp_rank: int, num_blocks: int) -> None:
        self.state, self.dp_rank = state, dp_rank
        self.config, self.timing, self.metrics = state.config, state.timing, state.metrics
        self.log = state.core_logs[dp_rank]
        self.num_blocks = num_blocks
        self.slot = asyncio.Semaphore(self.config.max_num_seqs)
        self.free_blocks = list(range(1, num_blocks))
        self.blocks_freed = asyncio.Condition()
        self.steps = itertools.count()
        """Of the forward passes that other nodes take part in: two of the same request are not mixed up."""
        self.unfreed: dict[str, set[int]] = {}
        """Request -> ranks that have not been told to free its blocks."""
        self.requests = 0
        """While there are any, the engine core steps."""
        self.at_next_step: list[Callable[[], None]] = []

    async def _take(self, tokens: int) -> list[int]:
        count = max(1, math.ceil(tokens / (self.config.block_size * self.config.cp_size)))
        async with self.blocks_freed:
            await self.blocks_freed.wait_for(lambda: len(self.free_blocks) >= count)
            taken, self.free_blocks = self.free_blocks[:count], self.free_blocks[count:]
        self._show_usage()
        return taken

    def free_blocks_now(self, blocks: list[int]) -> None:
        self.free_blocks += blocks
        self._show_usage()

    async def _give_back(self, blocks: list[int]) -> None:
        self.free_blocks_now(blocks)
        async with self.blocks_freed:
            self.blocks_freed.notify_all()

    def _show_usage(self) -> None:
        used = 1 - len(self.free_blocks) / max(1, self.num_blocks - 1)
        self.metrics.set("vllm:kv_cache_usage_perc", used, self.dp_rank)

    async def generate(self, work: Work, outcome: Outcome) -> AsyncGenerator[str, None]:
        """The tokens of the answer, one after the other; `outcome` is filled in."""
        with self._stepping():
            async with aclosing(self._answer(work, outcome)) as tokens:
                async for token in tokens:
                    yield token

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        """A request is here. The first one also brings to light what has happened while there was none."""
        self.requests += 1
        seen, self.at_next_step = self.at_next_step, []
        for action in seen:
            action()
        try:
            yield
        finally:
            self.requests -= 1

    def _at_step(self, action: Callable[[], None]) -> None:
        """Do what an engine core does in a step: now, unless it is idle and of a release that sleeps then.
        Passes for another data-parallel rank's requests are no steps of this one.

        Source: has_finished_requests of V@0.13.0, 0.18.0, 0.23.0:vllm/v1/core/sched/scheduler.py.
        """
        if self.requests or RELEASE.idle_notices:
            action()
        else:
            self.at_next_step.append(action)

    async def _answer(self, work: Work, outcome: Outcome) -> AsyncGenerator[str, None]:
        dp_rank, metrics, or_death = self.dp_rank, self.metrics, self.state.or_death
        arrived = time.monotonic()
        metrics.wait(CAPACITY, 1, dp_rank)
        waiting = True
        blocks: list[int] = []
        keep = False
        running = False
        try:
            await or_death(self.slot.acquire(), lambda _: self.slot.release())
            running = True
            wanted = outcome.prompt_tokens + work.max_tokens
            blocks = await or_death(self._take(wanted), self.free_blocks_now)
            metrics.wait(CAPACITY, -1, dp_rank)
            waiting = False
            metrics.change("vllm:num_requests_running", 1, dp_rank)
            scheduled = time.monotonic()
            metrics.observe("vllm:request_queue_time_seconds", scheduled - arrived, dp_rank)
            await self.state.disturb()
            good = await or_death(self._prefill(work, outcome, blocks))
            first: float | None = None
            async for token in self._decode(work, outcome, good):
                if first is None:
                    first = time.monotonic()
                    metrics.observe("vllm:time_to_first_token_seconds", first - arrived, dp_rank)
                    metrics.observe("vllm:request_prefill_time_seconds", first - scheduled, dp_rank)
                yield token
            keep = await self._hand_over(work, outcome, blocks)
            self.state.served += 1
            self._count(work, outcome, arrived, scheduled, first or scheduled)
        except RequestFailed:
            metrics.finish("error", dp_rank)
            raise
        except BaseException:
            metrics.finish("abort", dp_rank)
            raise
        finally:
            if waiting:
                metrics.wait(CAPACITY, -1, dp_rank)
            else:
                metrics.change("vllm:num_requests_running", -1, dp_rank)
            if running:
                self.slot.release()
            if blocks and not keep:
                await self._give_back(blocks)

    async def _prefill(self, work: Work, outcome: Outcome, blocks: list[int]) -> bool:
        """Compute the prompt, or get its blocks. False when the blocks are not the prompt's."""
        state, dp_rank = self.state, self.dp_rank
        kv = work.kv or {}
        receiver = state.receivers.get(dp_rank)
        if kv.get("do_remote_prefill") and receiver is not None:
            return await self._receive(receiver, work, outcome, blocks)
        consumer = state.consumers.get(dp_rank)
        tokens = outcome.prompt_tokens
        wanted = ("remote_engine_id", "remote_host", "remote_port")
        if kv.get("do_remote_prefill") and consumer is not None:
            if not kv.get("remote_block_ids"):
                # The proxy of the other connector: this one waits for blocks that nobody has named.
                where = (CONNECTOR, 1012, "update_state_after_alloc")
                state.die("AssertionError", "", where, worker=False)
                raise EngineDead
            if RELEASE.tells_request and "remote_request_id" not in kv:
                # A producer of an earlier release.
                state.die("KeyError", "'remote_request_id'", (CONNECTOR, 799, "add_new_req"), worker=False)
                raise EngineDead
            if all(kv.get(key) is not None for key in wanted):
                try:
                    with self._deferred(tokens):
                        good = await consumer.pull(work.request_id, model.digest(work.prompt), kv)
                except TransferLost:
                    return await self._load_failed(work, tokens)
                except Exception as error:
                    # An assertion, or an index that is not there: both are fatal in a worker's forward pass.
                    where = (CONNECTOR, 1360, "context_parallel_parameters_check")
                    state.die(type(error).__name__, str(error), where)
                    raise EngineDead from None
                self.metrics.prefilled(tokens, dp_rank, transferred=True)
                return good
            self.log.warning(
                "mooncake_connector.py:1017",
                f"Got invalid KVTransferParams: {kv}. This request will not utilize KVTransfer",
            )
        if kv.get("do_remote_decode") and state.sender is not None:
            await self._push(state.sender, work, self._seconds(tokens))
        else:
            await self._compute(tokens)
        self.metrics.prefilled(tokens, dp_rank, transferred=False)
        self.metrics.add("vllm:prefix_cache_queries", tokens, dp_rank)
        if self.config.kv is not None:
            self.metrics.asked_others(tokens, 0, dp_rank)
        return True

    async def _load_failed(self, work: Work, tokens: int) -> bool:
        """The request fails with its blocks, or they are computed here (kv_load_failure_policy).

        Source: V@0.23.0:vllm/v1/core/sched/scheduler.py (_handle_invalid_blocks).
        """
        assert self.config.kv is not None
        if not self.config.kv.recomputes:
            self.log.error(
                "scheduler.py:2403",
                "Failing 1 request(s) due to KV load failure (failure_policy=fail, "
                f"{tokens} tokens affected). Request IDs: {{'{work.request_id}'}}",
            )
            raise RequestFailed
        self.log.warning(
            "scheduler.py:2412",
            f"Recovered from KV load failure: 1 request(s) rescheduled ({tokens} tokens affected).",
        )
        await self._compute(tokens)
        self.metrics.prefilled(tokens, self.dp_rank, transferred=False)
        return True

    async def _compute(self, tokens: int) -> None:
        """As long as the prompt's forward pass takes."""
        await asyncio.sleep(self._seconds(tokens))

    def _seconds(self, tokens: int) -> float:
        return self.timing.prefill_seconds_per_1k * tokens / 1000 * self.state.slowness()[0]

    @contextmanager
    def _deferred(self, tokens: int) -> Iterator[None]:
        """The request waits until its KV cache has come from another instance."""
        metrics, dp_rank = self.metrics, self.dp_rank
        metrics.change("vllm:num_requests_running", -1, dp_rank)
        metrics.wait(DEFERRED, 1, dp_rank)
        if RELEASE.counts_sources:
            metrics.asked_others(tokens, tokens, dp_rank)
        try:
            yield
        finally:
            metrics.wait(DEFERRED, -1, dp_rank)
            metrics.change("vllm:num_requests_running", 1, dp_rank)
        if not RELEASE.counts_sources:
            # v0.13.0 counts when the request is scheduled again.
            metrics.asked_others(tokens, tokens, dp_rank)

    async def _receive(self, receiver: Receiver, work: Work, outcome: Outcome, blocks: list[int]) -> bool:
        """Let the proxy find a prefiller that pushes the blocks, and wait for it without a limit."""
        tokens, kv = outcome.prompt_tokens, work.kv or {}
        used = blocks[: max(1, math.ceil(tokens / (self.config.block_size * self.config.cp_size)))]
        url = kv.get("metaserver")
        finished = receiver.await_blocks(work.request_id, used)
        told = asyncio.ensure_future(receiver.tell(url, receiver.parameters(work.request_id, used)))
        self.log.info(
            "mooncake_layerwise_connector.py:668",
            f"Send request: {work.request_id} to proxy metaserver: {url}",
        )
        try:
            with self._deferred(tokens):
                sent = await finished
        finally:
            told.cancel()
            receiver.leave(work.request_id)
        if not sent:
            raise RequestFailed
        self.state.first_log.info(
            "mooncake_layerwise_connector.py:1028",
            "Number of completed KV cache recv requests: 0, receive requests: 1",
        )
        self.metrics.prefilled(tokens, self.dp_rank, transferred=True)
        if not self.state.is_sound():
            plog("'device ip' is not set correctly")
            return False
        return receiver.holds(used, model.digest(work.prompt))

    async def _push(self, sender: Sender, work: Work, seconds: float) -> None:
        """All nodes push what they hold while they compute; the forward pass ends when they all have."""
        state, kv = self.state, work.kv or {}
        given: dict[str, Any] = {
            "dp_rank": self.dp_rank,
            "request_id": work.request_id,
            "prompt": model.digest(work.prompt),
            "kv": kv,
            "seconds": seconds,
        }
        sound = state.is_sound() and state.computes_right
        mark = self._mark()
        try:
            sender.check(kv)
            if state.head is not None and self.config.nnodes > 1:
                state.head.broadcast({"mark": mark, "push": {**given, "sound": sound}})
            await sender.push(**given, sound=sound)
        except Fatal as fatal:
            state.die(fatal.kind, fatal.message, fatal.frame, worker=fatal.worker)
            raise EngineDead from None
        await self._on_all_nodes(mark)

    def _tokens(self, work: Work, good: bool) -> Iterator[str]:
        if self.config.model.dtype == "float16" and self.config.model.is_mla:
            return model.overflowed()
        if self.state.fault("engine_empty") is not None:
            return iter(())
        if not good or not self.state.computes_right:
            return model.spoiled(work.right)
        if work.ignore_eos or work.min_tokens > len(work.right):
            return model.endless(work.right)
        return iter(work.right)

    async def _decode(self, work: Work, outcome: Outcome, good: bool) -> AsyncIterator[str]:
        text = ""
        for token in self._tokens(work, good):
            await self.state.before_step()
            seconds = self.timing.token_seconds * self.state.slowness()[0]
            await self.state.or_death(asyncio.sleep(seconds))
            outcome.completion_tokens += 1
            self.metrics.add("vllm:generation_tokens", 1, self.dp_rank)
            self.metrics.observe("vllm:inter_token_latency_seconds", seconds, self.dp_rank)
            text += token
            hit = next((stop for stop in work.stop if stop and stop in text), None)
            if hit is not None:
                outcome.finish_reason, outcome.stop_reason = "stop", hit
                kept = token[: max(0, len(token) - (len(text) - text.index(hit)))]
                if kept:
                    yield kept
                return
            yield token
            if outcome.completion_tokens >= work.max_tokens:
                outcome.finish_reason = "length"
                return
        outcome.finish_reason = "stop"

    # -- a producer's blocks, until they are fetched ----------------------------------------------

    async def _hand_over(self, work: Work, outcome: Outcome, blocks: list[int]) -> bool:
        """A producer keeps the blocks and tells where they are. True when they are kept."""
        state, config, producer = self.state, self.config, self.state.producer
        if producer is None or outcome.finish_reason != "length":
            return False
        if not (work.kv or {}).get("do_remote_decode"):
            return False
        prompt_blocks = max(1, math.ceil(outcome.prompt_tokens / (config.block_size * config.cp_size)))
        own_id = f"{work.request_id}-{os.urandom(4).hex()}" if RELEASE.tells_request else work.request_id
        held = Held(
            request_id=own_id,
            blocks=blocks[:prompt_blocks],
            prompt=model.digest(work.prompt),
            dtype=config.model.dtype,
            sound=state.is_sound() and state.computes_right,
        )
        readers = self._readers(own_id)
        self.unfreed[own_id] = set(range(config.world_size))
        self.log.info(
            "mooncake_connector.py:1064",
            f"Delaying free of {len(held.blocks)} blocks for request {own_id}",
        )
        try:
            await self._held_by_nodes(held, readers)
        except BaseException:
            # The client went, or the engine dies: no node may take the blocks for this request's later.
            self._forget(own_id)
            raise
        producer.hold(self.dp_rank, held, readers)
        held.blocks = blocks
        asyncio.get_running_loop().call_later(_abort_seconds(), self._expired, own_id)
        engine_id = state.engine_id_of(self.dp_rank)
        outcome.kv = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": blocks[:prompt_blocks],
            "remote_engine_id": engine_id,
            "remote_host": producer.host,
            "remote_port": producer.base_port(self.dp_rank),
            "remote_pcp_size": config.pcp,
            "remote_dcp_size": config.dcp,
            "last_token_id": model.token_id(work.right[0]) if work.right else 0,
            "remote_multi_nodes_meta_mapping": {
                rank: {
                    "host": info["host"],
                    "engine_id": engine_id if config.nnodes == 1 else info["engine_id"],
                }
                for rank, info in state.nodes.items()
            },
            "num_prompt_blocks": math.ceil(outcome.prompt_tokens / config.block_size),
        }
        if RELEASE.tells_request:
            outcome.kv |= {"remote_request_id": own_id, "remote_ptp_size": config.tp}
        return True

    async def _held_by_nodes(self, held: Held, readers: set[int] | None) -> None:
        """The forward pass ends on all nodes before its request is answered: none may be read too early."""
        head = self.state.head
        if head is None or self.config.nnodes == 1:
            return
        mark = self._mark()
        head.broadcast(
            {
                "mark": mark,
                "hold": vars(held),
                "dp_rank": self.dp_rank,
                "readers": None if readers is None else sorted(readers),
            }
        )
        await self._on_all_nodes(mark)

    def _mark(self) -> str:
        """What the other nodes say when they have done their part of a forward pass."""
        return f"step:{self.dp_rank}:{next(self.steps)}"

    async def _on_all_nodes(self, mark: str) -> None:
        head = self.state.head
        if head is None or self.config.nnodes == 1:
            return
        seconds = EXECUTE_TIMEOUT * self.timing.hccl_connect_timeout_scale
        if not await self.state.or_death(head.gather(mark, seconds)):
            self.state.die("TimeoutError", "RPC call to execute_model timed out.")
            raise EngineDead

    def _readers(self, request_id: str) -> set[int] | None:
        """Without context parallelism only some ranks are read; the producer knows which. None: it counts
        readers."""
        config = self.config
        assert config.kv is not None
        if config.cp_size > 1:
            return None
        view = Consumer.seen_by(config, tp=config.kv.size("decode", "tp_size"))
        return {rank for ranks in ranks_without_context_parallel(view, request_id) for rank in ranks}

    def rank_freed(self, rank: int, request_id: str) -> None:
        """A chip has been read by all its readers. When all chips are, the blocks go back."""
        waiting = self.unfreed.get(request_id)
        if waiting is None:
            return
        waiting.discard(rank)
        if not waiting:
            self._at_step(lambda: self._free(request_id))

    def _expired(self, request_id: str) -> None:
        """Nobody has fetched a request's blocks in time."""
        if self.unfreed.get(request_id):
            self._at_step(lambda: self._force_free(request_id))

    def _force_free(self, request_id: str) -> None:
        if not self.unfreed.get(request_id):
            return
        log = self.state.first_log
        say = log.error if RELEASE.idle_notices else log.info
        say(
            "mooncake_connector.py:166",
            RELEASE.force_freed.format(request=request_id, seconds=_abort_seconds()),
        )
        self._free(request_id)

    def _free(self, request_id: str) -> None:
        held = self._forget(request_id)
        if held is not None:
            asyncio.get_running_loop().create_task(self._give_back(held.blocks))

    def _forget(self, request_id: str) -> Held | None:
        """On all nodes. What this one held."""
        producer = self.state.producer
        assert producer is not None
        self.unfreed.pop(request_id, None)
        held = producer.drop(self.dp_rank, request_id)
        if self.state.head is not None and self.config.nnodes > 1:
            self.state.head.broadcast({"drop": request_id, "dp_rank": self.dp_rank})
        return held

    def _count(self, work: Work, outcome: Outcome, arrived: float, scheduled: float, first: float) -> None:
        now, metrics, dp_rank = time.monotonic(), self.metrics, self.dp_rank
        metrics.finish(outcome.finish_reason or "stop", dp_rank)
        metrics.observe("vllm:e2e_request_latency_seconds", now - arrived, dp_rank)
        metrics.observe("vllm:request_inference_time_seconds", now - scheduled, dp_rank)
        metrics.observe("vllm:request_decode_time_seconds", now - first, dp_rank)
        metrics.observe("vllm:request_prompt_tokens", outcome.prompt_tokens, dp_rank)
        metrics.observe("vllm:request_generation_tokens", outcome.completion_tokens, dp_rank)
        metrics.observe("vllm:request_params_max_tokens", work.max_tokens, dp_rank)
