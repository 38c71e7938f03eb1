# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What runs where: instances, node ranks, chips, engine ids and KV ports, computed from a declaration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import expansion, kv_ports
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


def engine_ids(name: str, nodes: int) -> list[str]:
    """Return an engine id for each node of an instance: the instance's name and the node's rank.

    >>> engine_ids("prefill_a", 2)
    ['prefill_a-0', 'prefill_a-1']
    """
    return [f"{name}-{rank}" for rank in range(nodes)]


def build(declaration: Declaration) -> Cluster:
    """Return the cluster that a declaration describes."""
    ordered = [group for role in ROLES for group in declaration.groups if group.role == role]
    instances = tuple(_instance(declaration.release, group) for group in ordered)
    proxies = tuple(proxy for host in declaration.proxy_hosts for proxy in _proxies(declaration, host))
    return kv_ports.settled(Cluster(declaration, (), proxies).of_instances(instances))


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


def _instance(release: Release, group: Group) -> Instance:
    """Return an instance as its group declares it, without its KV port."""
    head = group.members[0].settings
    parallel = head.parallel
    size = len(group.members)
    ids = engine_ids(group.name, size)
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
    return Instance(group.name, group.role, nodes, parallel, 0, spans)


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
