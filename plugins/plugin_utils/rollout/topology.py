# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What runs where: instances, node ranks, chips, engine ids and KV ports, computed from a declaration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from . import expansion
from .connectors import Connector
from .model import (
    COLOURS,
    ROLES,
    Cluster,
    Declaration,
    Group,
    Instance,
    Node,
    Parallel,
    Protocol,
    Proxy,
    Rank,
    Role,
    Settings,
    canonical,
)
from .releases import Release
from .routers import Kind, vllm_router
from .values import JSON, JSON_OR_TEXT, as_json

# Distance of the KV ports of two neighbouring nodes, as in the guides.
KV_PORT_STRIDE = 100


def engine_ids(sizes: Sequence[int]) -> list[list[str]]:
    """Return an engine id for each node of each instance: its index among all nodes.

    ``sizes`` are the numbers of nodes of the instances, prefillers first.

    >>> engine_ids([2, 1])
    [['0', '1'], ['2']]
    """
    starts = accumulate(sizes, initial=0)
    return [[str(start + rank) for rank in range(size)] for start, size in zip(starts, sizes, strict=False)]


def kv_ports(sizes: Sequence[int], base: int, limit: int = 60000) -> list[int]:
    """Return a KV port for each instance: ``base``, plus 100 for every node before the instance.

    ``sizes`` are the numbers of nodes of the instances. Ports stay below ``limit``, where HCCL's begin; with
    hundreds of nodes they start again at ``base``. This is harmless: ports matter only within a host, and
    engine ids stay unique.

    >>> kv_ports([2, 1], base=30000)
    [30000, 30200]
    """
    slots = max(1, (limit - base) // KV_PORT_STRIDE - 1)
    starts = accumulate(sizes, initial=0)
    return [base + KV_PORT_STRIDE * (start % slots) for start, _ in zip(starts, sizes, strict=False)]


def handshake_ports(
    kv_port: int,
    parallel: Parallel,
    node_rank: int = 0,
    nodes: int = 1,
    connector: Connector | None = None,
) -> Sequence[int]:
    """Return the handshake ports of one node of an instance, ascending.

    ``kv_port`` is the instance's first port, ``parallel`` its sizes, ``node_rank`` the node's number among
    ``nodes``. Node 0 has the first ranks; which rank has which port depends on the connector and the release
    (``data/connectors``). Without a connector each rank has the next port.

    >>> handshake_ports(30000, Parallel(tensor=16, prefill_context=2), node_rank=1, nodes=2)
    range(30016, 30032)
    """
    local = parallel.chips // max(1, nodes)
    if connector is not None:
        return connector.ports(kv_port, parallel, node_rank * local, local)
    first = kv_port + node_rank * local
    return range(first, first + local)


def build(declaration: Declaration) -> Cluster:
    """Return the cluster that a declaration describes."""
    ordered = [group for role in ROLES for group in declaration.groups if group.role == role]
    sizes = [len(group.members) for group in ordered]
    ids = engine_ids(sizes)
    chips = max((m.settings.chips_per_node for g in ordered for m in g.members), default=16)
    ports = kv_ports(sizes, _kv_base(declaration.release, ordered, chips), declaration.release.hccl_base)
    counts: dict[Role, int] = dict.fromkeys(ROLES, 0)
    instances: list[Instance] = []
    index = 0
    for group, group_ids, port in zip(ordered, ids, ports, strict=True):
        instances.append(_instance(declaration.release, group, counts[group.role], index, group_ids, port))
        counts[group.role] += 1
        index += len(group.members)
    proxies = tuple(proxy for host in declaration.proxy_hosts for proxy in _proxies(declaration, host))
    by_host: dict[str, list[tuple[Instance, Node]]] = {}
    for instance in instances:
        for node in instance.nodes:
            by_host.setdefault(node.host, []).append((instance, node))
    return Cluster(
        declaration, tuple(instances), proxies, {host: tuple(pairs) for host, pairs in by_host.items()}
    )


LOOPBACK = "127.0.0.1"


def _proxies(declaration: Declaration, host: str) -> Iterator[Proxy]:
    """Yield the routers of a host: one, or behind a front two of which one serves.

    Only the front asks a router behind it, so that it listens on the loopback, unless decoders ask it too, as
    with a connector that pushes the cache.
    """
    address = declaration.addresses.get(host)
    metrics = declaration.router_metrics_port if declaration.router == "vllm_router" else None
    if declaration.front is None:
        yield Proxy(host, address, declaration.proxy_port, metrics)
        return
    asked = any(
        connector.listener == "decoder"
        for group in declaration.groups
        for name in connector_names(group.members[0].settings)
        if (connector := declaration.release.connectors.get(name)) is not None
    )
    for offset, colour in enumerate(COLOURS):
        yield Proxy(
            host,
            address if asked else LOOPBACK,
            declaration.proxy_port + offset,
            None if metrics is None else metrics + offset,
            f"router-{colour}",
            colour,
        )


def _kv_base(release: Release, groups: Sequence[Group], chips: int) -> int:
    """The first kv_port: clear of AscendDirectTransport's range also where the environment moves it up, as
    far as there is room below HCCL's ports."""
    bases = {release.kv_base(chips)}
    for settings in (member.settings for group in groups for member in group.members):
        value = settings.engine_env.get(release.ascend_direct_variable or "", "") or ""
        if value.isascii() and value.strip().isdigit() and len(value) < 8:
            above = release.ascend_direct(chips, int(value))[1] + 100
            bases.add(-(-above // 100) * 100)
    return max(base for base in bases if base < release.hccl_base or base == release.kv_base(chips))


def _instance(
    release: Release, group: Group, index: int, first_index: int, ids: Sequence[str], port: int
) -> Instance:
    head = group.members[0].settings
    parallel = head.parallel
    size = len(group.members)
    # With data parallel every node runs whole ranks of its own; without, one rank spans the nodes.
    spans = size > 1 and parallel.data == 1
    local = 1 if parallel.data == 1 else parallel.data_local or max(1, parallel.data // size)
    external = head.dp_mode == "external" and parallel.data > 1
    merged = [_flags(release, member.settings, group.role) for member in group.members]
    exports = [expansion.ordered(_env(member.settings, group.role)) for member in group.members]
    nodes = tuple(
        Node(
            host=member.host,
            rank=rank,
            index=first_index + rank,
            settings=member.settings,
            chips=member.settings.chips or tuple(range(member.settings.chips_per_node)),
            # The guides of external data parallel give an instance one id on all its nodes.
            engine_id=member.settings.engine_id or ids[0 if external else rank],
            data_start=0 if spans else rank * local,
            data_local=local,
            args=args,
            flags=flags,
            exports=exports[rank],
            env=expansion.resolved(exports[rank], _script_names(member.settings, head)),
            ranks=tuple(_ranks(member.settings, parallel, rank * local, local)) if external else (),
        )
        for rank, (member, (args, flags)) in enumerate(zip(group.members, merged, strict=True))
    )
    pinned = next((m.settings.kv_port for m in group.members if m.settings.kv_port is not None), None)
    return Instance(group.name, group.role, index, nodes, parallel, pinned or port, spans)


def _script_names(settings: Settings, head: Settings) -> dict[str, str]:
    """Return the variables that the launch script sets before its exports, as far as the plan knows them."""
    known = {
        expansion.LOCAL_IP: settings.address,
        expansion.NIC_NAME: settings.interface,
        expansion.MASTER_ADDR: head.address,
    }
    return {name: value for name, value in known.items() if value is not None}


def _ranks(settings: Settings, parallel: Parallel, start: int, count: int) -> Iterator[Rank]:
    """Yield the ranks of one node, each with the next chips and the next API port
    (A@v0.13.0:examples/external_online_dp/launch_online_dp.py)."""
    chips = settings.chips or tuple(range(settings.chips_per_node))
    size = parallel.world_size
    # Only as many ranks as there are chips for: more are a finding, and need not be listed.
    for place in range(min(count, max(1, len(chips) // size))):
        places = range(place * size, (place + 1) * size)
        yield Rank(
            number=start + place,
            chips=chips[places.start : places.stop],
            places=tuple(places),
            api_port=settings.api_port + place,
        )


def _flags(release: Release, settings: Settings, role: Role) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the flags of a node as they are spelt, and by canonical name."""
    profile = settings.profile.roles[role]
    if not settings.engine_args:
        return profile.args, profile.flags
    changes = {flag.written: flag.value for flag in given_flags(release, settings.engine_args)}
    merged = merged_flags(profile.args, changes)
    return merged, {canonical(name): _read(release, name, value) for name, value in merged.items()}


def _read(release: Release, flag: str, value: Any) -> Any:
    """Return a flag's value as the engine reads it: JSON text, as in launch scripts, is parsed."""
    if not isinstance(value, str) or release.kinds.get(canonical(flag)) not in (JSON, JSON_OR_TEXT):
        return value
    try:
        said = as_json(value)
    except ValueError:
        return value
    return said if isinstance(said, dict) else value


@dataclass(frozen=True)
class Flag:
    """A flag of pd_engine_args as it is spelt, and the option that the parser reads it as."""

    spelt: str
    # The option, without the part after a dot.
    name: str
    value: Any
    # The spelling in the launch script.
    written: str


def given_flags(release: Release, args: Mapping[str, Any]) -> Iterator[Flag]:
    """Yield the flags of pd_engine_args: ``no-x: true`` becomes ``x: false``, an abbreviation its option."""
    for spelt, value in args.items():
        begin, dot, rest = spelt.partition(".")
        name, negative = release.option(begin)
        if negative and value not in (True, None):
            name, negative = canonical(begin), False  # which no parser takes
        written = spelt if name == canonical(begin) else f"{name}{dot}{rest}"
        yield Flag(spelt, name, False if negative and value else value, written)


def merged_flags(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``base`` with ``changes`` merged over it, in the order of ``base``; null removes a flag. ``a_b``
    and ``a-b`` are the same flag."""
    if not changes:
        return base
    spelt = {canonical(name): name for name in base}
    result = dict(base)
    for name, value in changes.items():
        known = spelt.get(canonical(name), name)
        if value is None:
            result.pop(known, None)
        else:
            result[known] = value
    return result


def _env(settings: Settings, role: Role) -> Mapping[str, str]:
    base = settings.profile.roles[role].env
    if not settings.engine_env:
        return base
    result = dict(base)
    for name, value in settings.engine_env.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def listens(cluster: Cluster, instance: Instance) -> bool:
    """Whether the instance opens its handshake ports: with MooncakeConnectorV1 the producer does, with the
    layerwise connector the consumer."""
    connector = connector_of(cluster, instance)
    return not cluster.colocated and connector is not None and connector.listener == instance.role


def connector_of(cluster: Cluster, instance: Instance) -> Connector | None:
    """Return the instance's connector in the release; None if the release has no data for that name."""
    return cluster.release.connectors.get(instance.settings.connector)


def connector_names(settings: Settings) -> list[str]:
    """Return the names of an instance's connector and, for MultiConnector, of those inside it."""
    inner = settings.kv_extra_config.get("connectors")
    entries = [entry for entry in inner if isinstance(entry, Mapping)] if isinstance(inner, list) else []
    given = (settings.connector, *(entry.get("kv_connector") for entry in entries))
    return [name for name in given if isinstance(name, str)]


def proxy_connector(cluster: Cluster) -> str:
    """Return the connector whose proxy script runs: for MultiConnector, the first known one inside it."""
    known = cluster.release.connectors
    for instance in cluster.instances[:1]:
        for name in connector_names(instance.settings):
            if name in known:
                return name
    return next(iter(known))


def protocol(cluster: Cluster) -> Protocol:
    """Return who hands over the KV cache: decoders pull it, prefillers push it, or one engine does both."""
    if cluster.colocated:
        return "none"
    listener = cluster.release.connectors[proxy_connector(cluster)].listener
    return "push" if listener == "decoder" else "pull"


def router_options(cluster: Cluster) -> Mapping[str, Kind]:
    """Return the options of the router that the inventory chooses, with the kinds of their values."""
    if cluster.declaration.router == "vllm_router":
        return vllm_router().options
    return cluster.release.proxy_options[proxy_connector(cluster)]


def joined(names: Iterable[str], limit: int = 3) -> str:
    """Join names for a sentence; of more than ``limit``, only the first and the number of the others."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
