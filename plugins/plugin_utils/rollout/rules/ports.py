# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about ports: within a host, and against what the libraries take at random."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import ERROR, HINT, WARNING, Finding, Rule
from ..ports import ASCEND_DIRECT, HANDSHAKE, HCCL, PortUse, span
from ..topology import joined
from .base import Context, rule


def _whose(use: PortUse) -> str:
    return f"{use.purpose} of {use.instance}" if use.instance else use.purpose


def _overlaps(uses: list[PortUse]) -> Iterator[tuple[PortUse, PortUse, tuple[int, int]]]:
    """Pairs with a port in common, by a sweep: the later one first."""
    active: list[PortUse] = []
    for use in sorted(uses, key=lambda u: (u.first, u.last)):
        active = [other for other in active if other.last >= use.first]
        for other in active:
            common = use.overlap(other)
            if common:
                yield use, other, common
        active.append(use)


@rule(
    "PD301",
    ERROR,
    "No two listeners of a host share a port",
    cure="give one of them another port",
    source="A@v0.13.0:docs/source/developer_guide/feature_guide/disaggregated_prefill.md (port conflicts)",
)
def listeners_apart(r: Rule, c: Context) -> Iterator[Finding]:
    for host, uses in c.table.items():
        for use, other, common in _overlaps([u for u in uses if u.kind != "pool"]):
            yield r.at(
                f"{_whose(use)} and {_whose(other)} both have port {span(*common)}",
                host=host,
                instance=use.instance or other.instance,
                variable=use.variable,
                seen=f"{span(use.first, use.last)} and {span(other.first, other.last)}",
                expected="ports that do not overlap",
            )


@rule(
    "PD302",
    WARNING,
    "Fixed ports are clear of the ranges that Mooncake takes ports from at random",
    cure=(
        "choose ports outside of 15000-17000 and of AscendDirectTransport's range; leave pd_kv_port "
        "unset to have them computed"
    ),
    source="vllm-ascend PR 6455; Mooncake v0.3.7.post2 config.h:48, ascend_direct_transport.cpp:450",
)
def clear_of_random(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for host, uses in c.table.items():
        pools = [u for u in uses if u.kind == "pool" and u.purpose != HCCL]
        for use in (u for u in uses if u.kind == "fixed"):
            for pool in pools:
                common = use.overlap(pool)
                if not common:
                    continue
                whom = pool.purpose.removesuffix(" (random)")
                if pool.purpose == ASCEND_DIRECT:
                    chips = sorted({(p - pool.first) // release.ascend_direct_step for p in common})
                    whom += f" (here chip {' and '.join(map(str, chips))})"
                cure = f"use ports above {pool.last}"
                if use.variable == "pd_kv_port":
                    cure += ", or leave pd_kv_port unset to have it computed"
                yield r.at(
                    f"{_whose(use)} lies where {whom} takes ports at random: starts fail now and then with "
                    "zmq.error.ZMQError: Address already in use",
                    host=host,
                    instance=use.instance,
                    variable=use.variable,
                    seen=f"{span(use.first, use.last)}, inside of {span(pool.first, pool.last)}",
                    expected=f"outside of {span(pool.first, pool.last)}",
                    cure=cure,
                )


@rule(
    "PD303",
    ERROR,
    "Fixed ports are clear of HCCL's on the host",
    cure="choose a port outside of HCCL's, or move those with HCCL_IF_BASE_PORT in pd_engine_env",
    source="vllm-ascend issues 1955, 9447 (EI0019, EJ0003, or a time-out of 120 s)",
)
def clear_of_hccl(r: Rule, c: Context) -> Iterator[Finding]:
    for host, uses in c.table.items():
        for pool in (u for u in uses if u.purpose == HCCL):
            for use in (u for u in uses if u.kind == "fixed"):
                if use.overlap(pool):
                    yield r.at(
                        f"{_whose(use)} lies in the ports that HCCL needs",
                        host=host,
                        instance=use.instance,
                        variable=use.variable,
                        seen=span(use.first, use.last),
                        expected=f"outside of {span(pool.first, pool.last)}",
                    )


@rule(
    "PD304",
    HINT,
    "Fixed ports in Linux's range for outgoing connections are reserved on the servers",
    cure="merge them into net.ipv4.ip_local_reserved_ports on the servers",
    source="Linux, Documentation/networking/ip-sysctl (ip_local_port_range, ip_local_reserved_ports)",
)
def reserved_on_servers(r: Rule, c: Context) -> Iterator[Finding]:
    low, high = c.cluster.release.ephemeral
    by_ports: dict[str, list[str]] = {}
    for host, uses in c.table.items():
        spans = [
            (u.first, u.last)
            for u in uses
            if (u.kind == "fixed" or u.purpose == HCCL) and u.first <= high and u.last >= low
        ]
        if spans:
            by_ports.setdefault(",".join(span(*s) for s in sorted(set(spans))), []).append(host)
    for ports, hosts in by_ports.items():
        yield r.at(
            f"an outgoing connection of {joined(hosts)} can hold one of these ports when the engine wants it",
            host=hosts[0] if len(hosts) == 1 else None,
            seen=f"Linux hands out {low}-{high}",
            expected=f"net.ipv4.ip_local_reserved_ports holds {ports}",
        )


@rule(
    "PD305",
    ERROR,
    "Ports are at most 65535",
    cure="choose a lower first port: pd_kv_port, or pd_api_port where every rank has its own",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:931",
)
def ports_exist(r: Rule, c: Context) -> Iterator[Finding]:
    for host, uses in c.table.items():
        for use in uses:
            if use.last > 65535:
                yield r.at(
                    f"{_whose(use)} needs one port for each chip, up to {use.last}",
                    host=host,
                    instance=use.instance,
                    variable=use.variable,
                    seen=span(use.first, use.last),
                    expected="at most 65535",
                )


@rule(
    "PD306",
    WARNING,
    "KV ports of different instances do not overlap, even on different hosts",
    cure="pin pd_kv_port 100 apart for each node, as the guides do, or leave it unset to have it computed",
    source="A@v0.13.0:docs/source/tutorials/pd_disaggregation_mooncake_multi_node.md",
)
def kv_ports_apart(r: Rule, c: Context) -> Iterator[Finding]:
    """Only where a port is pinned; on one host PD301 has said it already."""
    pinned = {i.name for i in c.cluster.instances if any(n.settings.kv_port is not None for n in i.nodes)}
    if not pinned:
        return
    hosts = {i.name: {n.host for n in i.nodes} for i in c.cluster.instances}
    ranges = [
        PortUse(
            "",
            i.kv_port,
            i.kv_port + max(1, i.parallel.chips) - 1,
            HANDSHAKE,
            i.name,
            "reserved",
            "pd_kv_port",
        )
        for i in c.instances("pd_parallel", "pd_kv_port")
    ]
    reach: PortUse | None = None
    for use in sorted(ranges, key=lambda u: (u.first, u.last)):
        other, reach = reach, use if reach is None or use.last > reach.last else reach
        common = other and use.overlap(other)
        if other is None or not common:
            continue
        one, two = str(use.instance), str(other.instance)
        if not {one, two} & pinned or hosts[one] & hosts[two]:
            continue
        yield r.at(
            f"the KV ports of {one} and {two} overlap in {span(*common)}: a consumer tells producers apart "
            "by engine id and "
            "port, not by host",
            instance=one,
            variable="pd_kv_port",
            seen=f"{span(use.first, use.last)} and {span(other.first, other.last)}",
            expected="ranges that do not overlap",
        )
