"""Which producer chips a consumer chip reads a request from: the arithmetic of MooncakeConnectorV1 at
v0.13.0.

Pure functions, no sockets. Ports name chips: `base + rank`, rank = (pp_rank + pcp_rank) × tp + tp_rank.
"""

from __future__ import annotations

import hashlib
import math
import random
import struct
from dataclasses import dataclass
from typing import Any

from .config.vllm import EngineConfig


@dataclass(frozen=True)
class Consumer:
    """What a consumer knows of itself and believes of the producer (its kv_connector_extra_config)."""

    tp: int
    pcp: int
    dcp: int
    prefill_tp: int
    prefill_pp: int
    is_mla: bool
    kv_heads: int
    block_size: int
    base_port: int

    @classmethod
    def seen_by(cls, producer: EngineConfig, *, tp: int, pcp: int = 1, dcp: int = 1) -> Consumer:
        """A consumer of these sizes as a producer sees it: all that is not said is like its own."""
        return cls(
            tp=tp,
            pcp=pcp,
            dcp=dcp,
            prefill_tp=producer.tp,
            prefill_pp=producer.pp,
            is_mla=producer.model.is_mla,
            kv_heads=producer.model.kv_heads,
            block_size=producer.block_size,
            base_port=0,
        )

    @property
    def pulls(self) -> int:
        """Producer chips that one consumer chip reads in each pipeline stage (GQA heads are spread over more
        chips there)."""
        if self.is_mla:
            return 1
        return max(1, self.kv_heads // self.tp) // max(1, self.kv_heads // self.prefill_tp)


def ranks_without_context_parallel(consumer: Consumer, request_id: str) -> list[list[int]]:
    """For each consumer rank the producer ranks to read, where neither side splits the context."""
    tp, prefill_tp, stages = consumer.tp, consumer.prefill_tp, consumer.prefill_pp
    if prefill_tp == tp:
        return [[rank + stage * tp for stage in range(stages)] for rank in range(tp)]
    heads = 1 if consumer.is_mla else consumer.kv_heads
    (seed,) = struct.unpack("<Q", hashlib.sha256(request_id.encode()).digest()[:8])
    groups = max(1, prefill_tp // heads)
    chosen = random.Random(seed).sample(range(groups), max(tp // heads, 1))
    stage_results = []
    for stage in range(stages):
        ranks = list(range(stage * prefill_tp, (stage + 1) * prefill_tp))
        if prefill_tp > consumer.kv_heads or consumer.is_mla:
            rows = [ranks[start : start + groups] for start in range(0, len(ranks), groups)]
            flat = [row[column] for row in rows for column in chosen]
            size = consumer.pulls
        else:
            flat, size = ranks, prefill_tp // tp
        stage_results.append([flat[start : start + size] for start in range(0, len(flat), size)])
    groups_of = range(len(stage_results[0]))
    return [[rank for stage in stage_results for rank in stage[group]] for group in groups_of]


def _head_groups(consumer: Consumer, tp: int) -> list[tuple[int, ...]]:
    if consumer.is_mla:
        return [(0,)]
    heads = consumer.kv_heads
    if heads // tp >= 1:
        each = heads // tp
        return [tuple(range(rank * each, (rank + 1) * each)) for rank in range(tp)]
    return [(head,) for head in range(heads)]


def _context_groups(
    consumer: Consumer, tp: int, pcp: int, dcp: int, base: int
) -> dict[tuple[int, ...], list[list[int]]]:
    """For each group of heads the sets of ports that together hold the whole context."""
    heads = _head_groups(consumer, tp)
    repeats = tp // len(heads) // dcp
    return {
        head: [
            [
                base + tp * pcp_rank + dcp * repeat + tp // len(heads) * number + dcp_rank
                for pcp_rank in range(pcp)
                for dcp_rank in range(dcp)
            ]
            for repeat in range(repeats)
        ]
        for number, head in enumerate(heads)
    }


def port_mappings(consumer: Consumer, remote: dict[str, Any]) -> dict[int, list[list[int]]]:
    """For each consumer port the lists of producer ports to read, one list for each group of heads."""
    pcp, dcp = remote["remote_pcp_size"], remote["remote_dcp_size"]
    if (pcp * dcp) % (consumer.pcp * consumer.dcp):
        raise AssertionError
    if not consumer.is_mla:
        mine = math.ceil(consumer.kv_heads / consumer.tp)
        theirs = math.ceil(consumer.kv_heads / consumer.prefill_tp)
        if mine % theirs:
            raise AssertionError
    producer_groups = _context_groups(consumer, consumer.prefill_tp, pcp, dcp, remote["remote_port"])
    consumer_groups = _context_groups(consumer, consumer.tp, consumer.pcp, consumer.dcp, consumer.base_port)
    turn = dict.fromkeys(producer_groups, 0)
    result: dict[int, list[list[int]]] = {}
    for my_heads, my_sets in consumer_groups.items():
        for their_heads, their_sets in producer_groups.items():
            if not set(their_heads) <= set(my_heads):
                continue
            for my_set in my_sets:
                their_set = their_sets[turn[their_heads]]
                turn[their_heads] = (turn[their_heads] + 1) % len(their_sets)
                for position, port in enumerate(my_set):
                    result.setdefault(port, []).append(
                        [theirs for index, theirs in enumerate(their_set) if index % len(my_set) == position]
                    )
    return result


def send_counts(
    consumer: Consumer, remote: dict[str, Any], mappings: dict[int, list[list[int]]]
) -> dict[int, dict[str, Any]]:
    """For each producer port its host and how many consumer chips read it: then its blocks are freed."""
    hosts = remote.get("remote_multi_nodes_meta_mapping") or {}
    counts: dict[int, dict[str, Any]] = {}
    for rank in range(consumer.prefill_tp * remote["remote_pcp_size"]):
        host = hosts.get(str(rank), {}).get("host", remote["remote_host"])
        counts[remote["remote_port"] + rank] = {"num": 0, "host": host}
    for lists in mappings.values():
        for ports in lists:
            for port in ports:
                counts[port]["num"] += 1
    return counts


def host_of(remote: dict[str, Any], port: int) -> tuple[str, str]:
    """(host, engine id) of a producer port; the head's where the mapping does not name it."""
    info = (remote.get("remote_multi_nodes_meta_mapping") or {}).get(str(port - remote["remote_port"])) or {}
    return info.get("host", remote["remote_host"]), info.get("engine_id", remote["remote_engine_id"])


@dataclass(frozen=True)
class Transfer:
    """One read: consumer rank, producer port, and whether it is the rank's last."""

    rank: int
    port: int
    last: bool


def transfers(
    consumer: Consumer, remote: dict[str, Any], request_id: str
) -> tuple[list[Transfer], dict[int, dict[str, Any]]]:
    """All reads of a request over all consumer ranks, and the send counts ({} where nothing is split)."""
    result = []
    if remote["remote_pcp_size"] * remote["remote_dcp_size"] == 1:
        for rank, sources in enumerate(ranks_without_context_parallel(consumer, request_id)):
            needed = sources[: consumer.pulls * consumer.prefill_pp]
            result += [
                Transfer(rank, remote["remote_port"] + source, position == len(needed) - 1)
                for position, source in enumerate(needed)
            ]
        return result, {}
    mappings = port_mappings(consumer, remote)
    for rank in range(consumer.tp * consumer.pcp):
        lists = mappings[consumer.base_port + rank]
        if len(lists) != consumer.pulls:
            raise AssertionError
        ports = [lists[pull][index] for index in range(len(lists[0])) for pull in range(len(lists))]
        result += [Transfer(rank, port, position == len(ports) - 1) for position, port in enumerate(ports)]
    return result, send_counts(consumer, remote, mappings)
