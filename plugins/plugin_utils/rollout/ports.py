# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Every port of every host: who listens, what is reserved, and what the libraries take at random."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .model import Cluster, Instance, Node
from .plan_dict import PortDict
from .topology import connector_of, handshake_ports, listens

# fixed: somebody listens on each of these ports. reserved: the guides set them aside, nobody binds them.
# pool: a library takes a few of them at random (Mooncake) or as it needs them (HCCL).
Kind = Literal["fixed", "reserved", "pool"]

# The last port of all.
LAST = 65535

# What HCCL takes for HCCL_IF_BASE_PORT: the ports of 16 chips fit behind each of them.
HCCL_FIRST, HCCL_LAST = 1024, 65520

API = "API"
MASTER = "master"
DP_RPC = "DP RPC"
HANDSHAKE = "KV handshake"
MOONCAKE_RPC = "Mooncake RPC (random)"
ASCEND_DIRECT = "AscendDirectTransport (random)"
HCCL = "HCCL"
PROXY = "proxy"


@dataclass(frozen=True)
class PortUse:
    """Ports of one host with one purpose; ``first`` and ``last`` are both included."""

    host: str
    first: int
    last: int
    purpose: str
    instance: str | None
    kind: Kind
    # The variable that decides it, where there is one.
    variable: str | None = None

    @property
    def bound(self) -> bool:
        return self.kind == "fixed"

    def overlap(self, other: PortUse) -> tuple[int, int] | None:
        """The ports that both have, None if there are none."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return (first, last) if first <= last else None

    def to_dict(self) -> PortDict:
        return {
            "host": self.host,
            "first": self.first,
            "last": self.last,
            "purpose": self.purpose,
            "instance": self.instance,
            "bound": self.bound,
            "protocol": "tcp",
        }


def span(first: int, last: int) -> str:
    """Ports for people."""
    return str(first) if first == last else f"{first}-{last}"


def table(cluster: Cluster) -> dict[str, tuple[PortUse, ...]]:
    """Every host's ports: engines in plan order, the proxy, then the pools."""
    proxies = {proxy.host: proxy for proxy in cluster.proxies}
    result: dict[str, tuple[PortUse, ...]] = {}
    for host in dict.fromkeys([*cluster.by_host, *proxies]):
        pairs = cluster.by_host.get(host, ())
        uses = [use for instance, node in pairs for use in _engine(cluster, instance, node)]
        if host in proxies:
            uses.append(_one(host, proxies[host].port, PROXY, None, "fixed", "pd_proxy_port"))
        if pairs:
            uses.extend(_pools(cluster, pairs))
        result[host] = tuple(uses)
    return result


def _one(
    host: str, port: int, purpose: str, instance: str | None, kind: Kind, variable: str | None
) -> PortUse:
    return PortUse(host, port, port, purpose, instance, kind, variable)


def _engine(cluster: Cluster, instance: Instance, node: Node) -> Iterator[PortUse]:
    host, name = node.host, instance.name
    if node.api_ports:
        yield PortUse(host, node.api_ports[0], node.api_ports[-1], API, name, "fixed", "pd_api_port")
    if node.rank == 0:
        if instance.spans_nodes:
            yield _one(host, instance.settings.master_port, MASTER, name, "fixed", "pd_master_port")
        elif len(instance.nodes) > 1 or instance.external:
            # Rank 0 shakes hands with all others there, also on its own server
            # (V@0.13.0:vllm/v1/engine/utils.py:867).
            yield _one(host, instance.settings.dp_rpc_port, DP_RPC, name, "fixed", "pd_dp_rpc_port")
        elif "data-parallel-rpc-port" in node.settings.profile.roles[instance.role].explicit:
            # Given on the command line and never opened: with all ranks on one node vLLM talks over files.
            yield _one(host, instance.settings.dp_rpc_port, DP_RPC, name, "reserved", "pd_dp_rpc_port")
    if cluster.colocated:
        return
    ports = handshake_ports(
        instance.kv_port, instance.parallel, node.rank, len(instance.nodes), connector_of(cluster, instance)
    )
    if ports:
        kind: Kind = "fixed" if listens(cluster, instance) else "reserved"
        yield PortUse(host, ports[0], ports[-1], HANDSHAKE, name, kind, "pd_kv_port")


def _pools(cluster: Cluster, pairs: tuple[tuple[Instance, Node], ...]) -> Iterator[PortUse]:
    release, host = cluster.release, pairs[0][1].host
    # Without a KV transfer nobody loads Mooncake.
    transferring = () if cluster.colocated else pairs
    rpc = dict.fromkeys(mooncake_rpc(cluster, node) for _, node in transferring)
    for first, last in rpc:
        yield PortUse(host, first, last, MOONCAKE_RPC, None, "pool")
    chips = max(node.settings.chips_per_node for _, node in pairs)
    for base in dict.fromkeys(ascend_direct_base(cluster, node) for _, node in transferring):
        first, last = release.ascend_direct(chips, base)
        yield PortUse(host, first, min(last, LAST), ASCEND_DIRECT, None, "pool")
    for first, last in dict.fromkeys(use for _, node in pairs for use in hccl_host(cluster, node)):
        yield PortUse(host, first, last, HCCL, None, "pool")


def hccl_host(cluster: Cluster, node: Node) -> tuple[tuple[int, int], ...]:
    """HCCL's ports on the host: those of HCCL_HOST_SOCKET_PORT_RANGE, which goes before HCCL_IF_BASE_PORT;
    none where the system gives them (auto)."""
    own = port_ranges(node.env.get("HCCL_HOST_SOCKET_PORT_RANGE", ""))
    if own is not None and node.env.get("HCCL_HOST_SOCKET_PORT_RANGE"):
        return own
    base = hccl_base(cluster, node)
    return ((base, min(base + cluster.release.hccl_count - 1, LAST)),)


def port_ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """The ports of HCCL's range variables, such as ``60000,60050-60100``; empty for ``auto``, None where HCCL
    cannot read it."""
    text = text.replace(" ", "")
    if text in ("", "auto"):
        return ()
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if not match:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= LAST or any(first <= b and a <= last for a, b in found):
            return None
        found.append((first, last))
    return tuple(found)


def hccl_base(cluster: Cluster, node: Node) -> int:
    """The first port of HCCL on the host: HCCL_IF_BASE_PORT where it is set, else the release's."""
    return _port_of(node, "HCCL_IF_BASE_PORT", cluster.release.hccl_base)


def ascend_direct_base(cluster: Cluster, node: Node) -> int:
    """The first port of AscendDirectTransport: from the variable that the release reads, else its own."""
    name, base = cluster.release.ascend_direct_variable, cluster.release.ascend_direct_base
    return base if name is None else _port_of(node, name, base, 1, LAST)


def mooncake_rpc(cluster: Cluster, node: Node) -> tuple[int, int]:
    """The range of Mooncake's RPC: that of the environment where it is one, else its own."""
    low, high = mooncake_limits(cluster, node)
    fine = low <= high and (not cluster.release.mooncake_checks_range or mooncake_takes(low, high))
    return (low, high) if fine else cluster.release.mooncake_rpc


def mooncake_limits(cluster: Cluster, node: Node) -> tuple[int, int]:
    """Both ends of that range, each from the first of its variables that is set or Mooncake's own, also where
    they cross."""
    release = cluster.release
    found = []
    for names, default in zip(release.mooncake_rpc_variables, release.mooncake_rpc, strict=True):
        name = next((name for name in names if name in node.env), names[0])
        found.append(_port_of(node, name, default, 1, LAST))
    return found[0], found[1]


def mooncake_takes(*ports: int) -> bool:
    """Whether Mooncake takes ports for its range: neither the system's own nor those that Linux hands out
    (v0.3.11.post1 config.cpp, ValidatePortRange)."""
    return all(1024 <= port < 32768 or 61000 <= port <= LAST for port in ports)


def environment_port(node: Node, name: str) -> int | None:
    """A whole number that the environment sets; None where it sets none."""
    value = node.env.get(name, "").strip()
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,9}", value) else None


def _port_of(node: Node, name: str, default: int, low: int = HCCL_FIRST, high: int = HCCL_LAST) -> int:
    """A port that the environment sets; Mooncake, too, takes its own where it is none."""
    value = environment_port(node, name)
    return default if value is None or not low <= value <= high else value


def reserved(rows: Iterable[Mapping[str, Any]]) -> str:
    """The ports of a plan's rows that need reserving on the server, as net.ipv4.ip_local_reserved_ports
    takes them."""
    wanted = sorted((row["first"], row["last"]) for row in rows if row["bound"] or row["purpose"] == HCCL)
    merged: list[tuple[int, int]] = []
    for first, last in wanted:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return ",".join(span(*pair) for pair in merged)
