# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The first handshake port of each instance, computed from what the instance itself is.

A port matters within a server only. So it follows from the chips that an instance uses there, which no other
instance has, and stays when instances are added or removed. Only where ports would meet one moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from . import ports
from .handshakes import connector_of, handshake_ports
from .model import ROLES, Cluster, Instance, Settings
from .releases import Release

# Distance of the KV ports of two neighbouring chips; the guides have it between two neighbouring nodes.
STRIDE = 100

# First and last port, both included.
Range = tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """What decides the KV port of one instance."""

    # Its port if it has chip 0, and the first chip that it has, on its first server.
    base: int
    chip: int
    # Its handshake ports on each of its servers, as distances from its KV port.
    spans: tuple[tuple[str, Range], ...] = ()
    # The port that the inventory sets.
    pinned: int | None = None
    # A prefiller whose ranks are on several servers: their number.
    spread: int = 0
    # Whether it is a decoder that looks for such ranks by their distance from its own port.
    counts: bool = False

    @property
    def own(self) -> int:
        """The port that it has unless that meets others."""
        return self.base + STRIDE * self.chip if self.pinned is None else self.pinned


def first_ports(
    wanted: Sequence[Wanted], taken: Mapping[str, Iterable[Range]] | None = None, limit: int = 60000
) -> list[int]:
    """Return the KV port of each instance.

    ``taken`` are the other ports of each server. Ports stay below ``limit``, where HCCL's begin, if there is
    room. Where the ports of two instances would meet, the later of them in ``wanted`` has the next free
    place, in hundreds; an instance never gives way to one that moved.

    >>> first_ports([Wanted(30000, 0, (("a", (0, 7)),)), Wanted(30000, 8, (("a", (0, 7)),))])
    [30000, 30800]
    """
    places = _Places(taken or {}, limit)
    found: dict[int, int] = {}
    pinned = [number for number, one in enumerate(wanted) if one.pinned is not None]
    for number in pinned:
        found[number] = places.give(wanted[number], wanted[number].own)
    computed = [number for number, one in enumerate(wanted) if one.pinned is None]
    for number in computed:
        if places.free(wanted[number]):
            found[number] = places.give(wanted[number], wanted[number].own)
    for number in computed:
        if number not in found:
            found[number] = places.give(wanted[number], places.next(wanted[number]))
    return [found[number] for number in range(len(wanted))]


class _Places:
    """The ports that are taken, by server, and those that count for a look-up by distance."""

    def __init__(self, taken: Mapping[str, Iterable[Range]], limit: int) -> None:
        self.taken = {host: list(ranges) for host, ranges in taken.items()}
        self.limit = limit
        # KV port and number of ranks of each prefiller on several servers.
        self.spread: set[tuple[int, int]] = set()
        # KV ports of decoders that count from their own.
        self.counting: set[int] = set()

    def give(self, one: Wanted, port: int) -> int:
        for host, (first, last) in one.spans:
            self.taken.setdefault(host, []).append((port + first, port + last))
        if one.spread:
            self.spread.add((port, one.spread))
        if one.counts:
            self.counting.add(port)
        return port

    def free(self, one: Wanted) -> bool:
        """Whether the instance can have its own port."""
        return one.own <= self.limit - 1 - _reach(one) and not any(
            first <= one.own <= last for first, last in self._forbidden(one)
        )

    def next(self, one: Wanted) -> int:
        """Return the next free place: above its own port, else from its base on, else at any port; its own
        port if there is none, which the rules report."""
        forbidden = sorted(self._forbidden(one))
        last = self.limit - 1 - _reach(one)
        for start, end, step in (
            (one.own, last, STRIDE),
            (one.base, last, STRIDE),
            (one.base, last, 1),
            (one.base, ports.LAST - _reach(one), 1),
        ):
            port = _first_outside(forbidden, start, step)
            if port <= end:
                return port
        return one.own

    def _forbidden(self, one: Wanted) -> Iterator[Range]:
        """Yield ranges of KV ports that the instance cannot have."""
        for host, (first, last) in one.spans:
            for low, high in self.taken.get(host, ()):
                yield low - last, high - first
        if one.counts:
            for port, ranks in self.spread:
                yield from _near(port, ranks)
        if one.spread:
            for port in self.counting:
                yield from _near(port, one.spread)


def _reach(one: Wanted) -> int:
    return max((last for _, (_, last) in one.spans), default=0)


def _near(port: int, ranks: int) -> Iterator[Range]:
    """Yield the ports less than ``ranks`` from a port, except itself."""
    if ranks > 1:
        yield port - ranks + 1, port - 1
        yield port + 1, port + ranks - 1


def _first_outside(ranges: Sequence[Range], start: int, step: int) -> int:
    """Return the first of ``start``, ``start + step`` and so on that is in none of the sorted ranges."""
    port = start
    for first, last in ranges:
        if first > port:
            break
        if last >= port:
            port += -(-(last + 1 - port) // step) * step
    return port


def base(release: Release, nodes: Sequence[Settings]) -> int:
    """Return the KV port of an instance with chip 0: clear of AscendDirectTransport's range, also where the
    environment moves it up, as far as there is room below HCCL's ports."""
    chips = max(node.chips_per_node for node in nodes)
    bases = {release.kv_base(chips)}
    for node in nodes:
        value = node.engine_env.get(release.ascend_direct_variable or "", "") or ""
        if value.isascii() and value.strip().isdigit() and len(value) < 8:
            above = release.ascend_direct(chips, int(value))[1] + 100
            bases.add(-(-above // 100) * 100)
    return max(port for port in bases if port < release.hccl_base or port == release.kv_base(chips))


def settled(cluster: Cluster) -> Cluster:
    """Return the cluster with the KV port of each instance."""
    order = sorted(cluster.instances, key=lambda one: (ROLES.index(one.role), one.name))
    found = first_ports(
        [_wanted(cluster, one) for one in order],
        {} if cluster.colocated else _taken(cluster),
        cluster.release.hccl_base,
    )
    of = {id(one): port for one, port in zip(order, found, strict=True)}
    return cluster.of_instances(replace(one, kv_port=of[id(one)]) for one in cluster.instances)


def _wanted(cluster: Cluster, instance: Instance) -> Wanted:
    connector, count = connector_of(cluster, instance), len(instance.nodes)
    spans = []
    for node in () if cluster.colocated else instance.nodes:
        offsets = handshake_ports(0, instance.parallel, node.rank, count, connector)
        if offsets:
            spans.append((node.host, (offsets[0], offsets[-1])))
    nodes = [node.settings for node in instance.nodes]
    spread = connector is not None and instance.role == "prefiller" and instance.spans_nodes
    return Wanted(
        base=base(cluster.release, nodes),
        chip=min(instance.head.chips),
        spans=tuple(spans),
        pinned=next((one.kv_port for one in nodes if one.kv_port is not None), None),
        spread=instance.parallel.world_size if spread else 0,
        counts=connector is not None and instance.role == "decoder" and connector.own_port_first,
    )


def _taken(cluster: Cluster) -> dict[str, list[Range]]:
    """Return all other ports of each server: those of listeners, and the ranges that libraries use."""
    taken = {
        host: [(use.first, use.last) for use in uses if use.purpose != ports.HANDSHAKE]
        for host, uses in ports.table(cluster).items()
    }
    for host, pairs in cluster.by_host.items():
        for _, node in pairs:
            port = ports.environment_port(node, "VLLM_PORT")
            if port is not None:
                taken[host].append((port, port))
    return taken
