# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""KV connectors: a data file each, under ``data/connectors``, with what differs by release."""

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
    """A KV connector as one release has it."""

    name: str
    # The role that opens the handshake ports.
    listener: str
    prefill_context_parallel: bool
    # Whether a prefiller may have it where each node holds one context rank only.
    context_by_node: bool
    # Where the class is, for kv_connector_module_path, and its name there.
    module: str
    class_name: str
    proxy_script: str
    # Whether instances can be added to its proxy and removed while it runs.
    elastic: bool
    # Keys of kv_connector_extra_config by the mapping that they stand in: what is asserted, what is read, and
    # what all engines must be told alike.
    needs: Mapping[str, frozenset[str]] = field(hash=False)
    reads: Mapping[str, frozenset[str]] = field(hash=False)
    shared: Mapping[str, tuple[str, ...]] = field(hash=False)
    # Whether a prefiller may have a pipeline.
    pipeline: bool
    # Whether it goes with vLLM's hybrid manager of caches.
    hybrid: bool
    # Whether a decoder looks for the hosts of a prefiller of several nodes by its own kv_port.
    own_port_first: bool
    # When a decoder with more tensor ranks than the prefiller fails: "at_start" or "at_request".
    tensor_order: str
    # Which block sizes of both sides go together: "same", "multiple" (a decoder's block is some of a
    # prefiller's) or "divisible" (either way).
    block_sizes: str
    # What one rank more of a group adds to the port: a product of sizes, by group.
    strides: tuple[tuple[str, tuple[str, ...]], ...]

    def data_stride(self, sizes: Sizes) -> int:
        """Ports between two data-parallel ranks."""
        return self._stride("data", sizes)

    def offsets(self, sizes: Sizes) -> tuple[int, ...]:
        """Handshake ports of one data-parallel rank, as distances from its first, in rank order.

        One for each rank, and with a connector that does not know a group the same for several: they would
        collide.
        """
        return _offsets(self, sizes.pipeline, sizes.prefill_context, sizes.tensor)

    def ports(self, kv_port: int, sizes: Sizes, first_rank: int, count: int) -> tuple[int, ...]:
        """The handshake ports of ``count`` ranks from ``first_rank`` on, counted through the whole engine
        with all its data-parallel ranks; each port once, ascending."""
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
    """A release's place in time, for comparing: the numbers of its name."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", release)[:3])


def connectors(release: str) -> Mapping[str, Connector]:
    """Every connector that the release has, by name."""
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
