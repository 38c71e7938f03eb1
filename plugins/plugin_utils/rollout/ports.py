# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Every port of every host: who listens, what is reserved, and which ranges libraries use at random."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .handshakes import connector_of, handshake_ports, listens
from .model import Cluster, Instance, Node, Proxy
from .plan_dict import PortDict

# fixed: a process listens on each of these ports. reserved: the guides set them aside, nothing binds them.
# pool: a library uses some of them, at random (Mooncake) or as needed (HCCL).
Kind = Literal["fixed", "reserved", "pool"]

# The highest port number.
LAST = 65535

# The values that HCCL accepts for HCCL_IF_BASE_PORT: the ports of 16 chips fit above each of them.
HCCL_FIRST, HCCL_LAST = 1024, 65520

API = "API"
MASTER = "master"
DP_RPC = "DP RPC"
HANDSHAKE = "KV handshake"
MOONCAKE_RPC = "Mooncake RPC (random)"
ASCEND_DIRECT = "AscendDirectTransport (random)"
HCCL = "HCCL"
PROXY = "proxy"
METRICS = "proxy's metrics"
FRONT = "front"
FRONT_METRICS = "front's metrics"
GUARD = "guard"


@dataclass(frozen=True)
class PortUse:
    """Ports of one host with one purpose; ``first`` and ``last`` are both included."""

    host: str
    first: int
    last: int
    purpose: str
    instance: str | None
    kind: Kind
    # The variable that sets the port, if there is one.
    variable: str | None = None

    @property
    def bound(self) -> bool:
        return self.kind == "fixed"

    def overlap(self, other: PortUse) -> tuple[int, int] | None:
        """Return the first and last port that both have; None if there is none."""
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
    """Format a range of ports, such as 7100-7103, or a single port."""
    return str(first) if first == last else f"{first}-{last}"


def table(cluster: Cluster) -> dict[str, tuple[PortUse, ...]]:
    """Return every host's ports: engines in plan order, the proxy, the guard, then the pools."""
    proxies: dict[str, list[Proxy]] = {}
    for proxy in cluster.proxies:
        proxies.setdefault(proxy.host, []).append(proxy)
    result: dict[str, tuple[PortUse, ...]] = {}
    for host in dict.fromkeys([*cluster.by_host, *proxies]):
        pairs = cluster.by_host.get(host, ())
        uses = [use for instance, node in pairs for use in _engine(cluster, instance, node)]
        if host in proxies:
            uses.extend(use for proxy in proxies[host] for use in _proxy(proxy))
            uses.extend(_front(cluster, host))
        uses.extend(_guard(cluster, host))
        if pairs:
            uses.extend(_pools(cluster, pairs))
        result[host] = tuple(uses)
    return result


def _single(
    host: str, port: int, purpose: str, instance: str | None, kind: Kind, variable: str | None
) -> PortUse:
    return PortUse(host, port, port, purpose, instance, kind, variable)


def _proxy(proxy: Proxy) -> Iterator[PortUse]:
    purpose = PROXY if proxy.colour is None else f"{proxy.colour} router"
    yield _single(proxy.host, proxy.port, purpose, None, "fixed", "pd_proxy_port")
    if proxy.metrics_port is not None:
        purpose = METRICS if proxy.colour is None else f"{proxy.colour} router's metrics"
        yield _single(proxy.host, proxy.metrics_port, purpose, None, "fixed", "pd_router_metrics_port")


def _front(cluster: Cluster, host: str) -> Iterator[PortUse]:
    front = cluster.declaration.front
    if front is not None:
        yield _single(host, front.port, FRONT, None, "fixed", "pd_front_port")
        yield _single(host, front.metrics_port, FRONT_METRICS, None, "fixed", "pd_front_metrics_port")


def _guard(cluster: Cluster, host: str) -> Iterator[PortUse]:
    port = cluster.declaration.guard_port
    if port is not None:
        yield _single(host, port, GUARD, None, "fixed", "pd_guard_port")


def _engine(cluster: Cluster, instance: Instance, node: Node) -> Iterator[PortUse]:
    host, name = node.host, instance.name
    if node.api_ports:
        yield PortUse(host, node.api_ports[0], node.api_ports[-1], API, name, "fixed", "pd_api_port")
    if node.rank == 0:
        if instance.spans_nodes:
            yield _single(host, instance.settings.master_port, MASTER, name, "fixed", "pd_master_port")
        elif len(instance.nodes) > 1 or instance.external:
            # Rank 0 performs the handshake with all other ranks there, also on its own server
            # (V@0.13.0:vllm/v1/engine/utils.py:867).
            yield _single(host, instance.settings.dp_rpc_port, DP_RPC, name, "fixed", "pd_dp_rpc_port")
        elif "data-parallel-rpc-port" in node.settings.profile.roles[instance.role].explicit:
            # Set on the command line but never opened: with all ranks on one node vLLM uses socket files.
            yield _single(host, instance.settings.dp_rpc_port, DP_RPC, name, "reserved", "pd_dp_rpc_port")
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
    # Without a KV transfer, Mooncake is not loaded.
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
    """Return HCCL's port ranges on the host: those of HCCL_HOST_SOCKET_PORT_RANGE, which takes precedence
    over HCCL_IF_BASE_PORT; none if the system assigns them (auto)."""
    own = port_ranges(node.env.get("HCCL_HOST_SOCKET_PORT_RANGE", ""))
    if own is not None and node.env.get("HCCL_HOST_SOCKET_PORT_RANGE"):
        return own
    base = hccl_base(cluster, node)
    return ((base, min(base + cluster.release.hccl_count - 1, LAST)),)


def port_ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """Parse HCCL's range variables, such as ``60000,60050-60100``; empty for ``auto``, None if HCCL cannot
    read the text."""
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
    """Return HCCL's first port on the host: HCCL_IF_BASE_PORT if it is set, else the release's default."""
    return _port_of(node, "HCCL_IF_BASE_PORT", cluster.release.hccl_base)


def ascend_direct_base(cluster: Cluster, node: Node) -> int:
    """Return AscendDirectTransport's first port: the release's variable if it is set, else its default."""
    name, base = cluster.release.ascend_direct_variable, cluster.release.ascend_direct_base
    return base if name is None else _port_of(node, name, base, 1, LAST)


def mooncake_rpc(cluster: Cluster, node: Node) -> tuple[int, int]:
    """Return the port range of Mooncake's RPC: from the environment if that is valid, else its default."""
    low, high = mooncake_limits(cluster, node)
    fine = low <= high and (not cluster.release.mooncake_checks_range or mooncake_takes(low, high))
    return (low, high) if fine else cluster.release.mooncake_rpc


def mooncake_limits(cluster: Cluster, node: Node) -> tuple[int, int]:
    """Return both ends of that range, each from the first of its variables that is set, else Mooncake's
    default. The first may be above the last."""
    release = cluster.release
    found = []
    for names, default in zip(release.mooncake_rpc_variables, release.mooncake_rpc, strict=True):
        name = next((name for name in names if name in node.env), names[0])
        found.append(_port_of(node, name, default, 1, LAST))
    return found[0], found[1]


def mooncake_takes(*ports: int) -> bool:
    """Whether Mooncake accepts ports for its range: neither system ports nor Linux's ephemeral ports
    (v0.3.11.post1 config.cpp, ValidatePortRange)."""
    return all(1024 <= port < 32768 or 61000 <= port <= LAST for port in ports)


def environment_port(node: Node, name: str) -> int | None:
    """Return a whole number from the environment; None if there is none."""
    value = node.env.get(name, "").strip()
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,9}", value) else None


def _port_of(node: Node, name: str, default: int, low: int = HCCL_FIRST, high: int = HCCL_LAST) -> int:
    """Return a port from the environment, or ``default`` if it is not valid, as Mooncake does, too."""
    value = environment_port(node, name)
    return default if value is None or not low <= value <= high else value


def reserved(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the ports of a plan's rows that should be reserved on the server, in the format of
    net.ipv4.ip_local_reserved_ports."""
    wanted = sorted((row["first"], row["last"]) for row in rows if row["bound"] or row["purpose"] == HCCL)
    merged: list[tuple[int, int]] = []
    for first, last in wanted:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return ",".join(span(*pair) for pair in merged)
