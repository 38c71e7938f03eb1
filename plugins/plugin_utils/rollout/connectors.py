# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""KV connectors: one data file per connector, under ``data/connectors``, with what differs by release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import prod
from typing import Any, Protocol

from .data import load, names


class Sizes(Protocol):
    """Sizes of an engine's parallel groups, in ranks."""

    @property
    def tensor(self) -> int:
        """Tensor-parallel ranks."""

    @property
    def prefill_context(self) -> int:
        """Prefill context-parallel ranks."""

    @property
    def pipeline(self) -> int:
        """Pipeline stages."""


# The order of ranks within one data-parallel rank, outermost first
# (V@0.13.0:vllm/distributed/parallel_state.py, initialize_model_parallel).
RANK_ORDER = ("pipeline", "prefill_context", "tensor")


@dataclass(frozen=True)
class Connector:
    """A KV connector in one release."""

    name: str
    # The role that opens the handshake ports.
    listener: str
    prefill_context_parallel: bool
    # Whether a prefiller may use it if each node has only one context rank.
    context_by_node: bool
    # Where the class is, for kv_connector_module_path, and its name there.
    module: str
    class_name: str
    proxy_script: str
    # Whether instances can be added to and removed from its running proxy.
    elastic: bool
    # Keys of kv_connector_extra_config by the mapping that contains them: those that must be present, those
    # that are read, and those that must be the same in all engines.
    needs: Mapping[str, frozenset[str]] = field(hash=False)
    reads: Mapping[str, frozenset[str]] = field(hash=False)
    shared: Mapping[str, tuple[str, ...]] = field(hash=False)
    # Whether a prefiller may have a pipeline.
    pipeline: bool
    # Whether it supports vLLM's hybrid KV cache manager.
    hybrid: bool
    # Whether a decoder finds the hosts of a multi-node prefiller by its own kv_port.
    own_port_first: bool
    # When a decoder with more tensor ranks than the prefiller fails: "at_start" or "at_request".
    tensor_order: str
    # Which block sizes are compatible: "same", "multiple" (a decoder's block is a multiple of a prefiller's)
    # or "divisible" (either way).
    block_sizes: str
    # How much one more rank of a group adds to the port: a product of sizes, by group.
    strides: tuple[tuple[str, tuple[str, ...]], ...]

    def data_stride(self, sizes: Sizes) -> int:
        """Return the distance in ports between two data-parallel ranks."""
        return self._stride("data", sizes)

    def offsets(self, sizes: Sizes) -> tuple[int, ...]:
        """Return the handshake ports of one data-parallel rank, as distances from its first, in rank order.

        One for each rank; with a connector that ignores a group, several ranks have the same port, and would
        collide.
        """
        return _offsets(self, sizes.pipeline, sizes.prefill_context, sizes.tensor)

    def ports(self, kv_port: int, sizes: Sizes, first_rank: int, count: int) -> tuple[int, ...]:
        """Return the handshake ports of ``count`` ranks from ``first_rank`` on, each port once, ascending.

        Ranks are numbered through the whole engine with all its data-parallel ranks; ``kv_port`` is the
        port of rank 0.
        """
        offsets, stride = self.offsets(sizes), self.data_stride(sizes)
        found = set()
        for rank in range(first_rank, first_rank + count):
            data, inner = divmod(rank, len(offsets))
            found.add(kv_port + data * stride + offsets[inner])
        return tuple(sorted(found))

    def _stride(self, group: str, sizes: Sizes) -> int:
        factors = dict(self.strides).get(group)
        return 0 if factors is None else prod(getattr(sizes, factor) for factor in factors)


@dataclass(frozen=True)
class _Sizes:
    pipeline: int
    prefill_context: int
    tensor: int


@cache
def _offsets(connector: Connector, pipeline: int, prefill_context: int, tensor: int) -> tuple[int, ...]:
    sizes = _Sizes(pipeline, prefill_context, tensor)
    strides = [connector._stride(group, sizes) for group in RANK_ORDER]
    ranges = [range(getattr(sizes, group)) for group in RANK_ORDER]
    return tuple(
        sum(rank * stride for rank, stride in zip(ranks, strides, strict=True)) for ranks in product(*ranges)
    )


def _keys(raw: Mapping[str, Any]) -> Mapping[str, frozenset[str]]:
    return {place: frozenset(keys) for place, keys in raw.items()}


def version(release: str) -> tuple[int, ...]:
    """Return the numbers in a release's name, to compare releases by age."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", release)[:3])


def connectors(release: str) -> Mapping[str, Connector]:
    """Return all connectors of a release, by name."""
    found = {}
    for name in names("connectors"):
        raw = load("connectors", name)
        known = [key for key in raw["releases"] if version(key) <= version(release)]
        if known:
            facts = raw["releases"][max(known, key=version)]
            found[name] = Connector(
                name=str(raw["name"]),
                listener=str(raw["listener"]),
                prefill_context_parallel=bool(facts["prefill_context_parallel"]),
                context_by_node=bool(facts["context_by_node"]),
                module=str(facts["module"]),
                class_name=str(raw["class"]),
                proxy_script=str(raw["proxy_script"]),
                elastic=bool(raw["elastic"]),
                needs=_keys(facts["needs"]),
                reads=_keys(facts["reads"]),
                shared={side: tuple(keys) for side, keys in facts["shared"].items()},
                pipeline=bool(facts["pipeline"]),
                hybrid=bool(facts["hybrid"]),
                own_port_first=bool(facts["own_port_first"]),
                tensor_order=str(facts["tensor_order"]),
                block_sizes=str(facts["block_sizes"]),
                strides=tuple((group, tuple(factors)) for group, factors in facts["ports"].items()),
            )
    return found
