# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about ports: within a host, and against what the libraries take at random."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import ERROR, HINT, WARNING, Finding, Rule, shown
from ..model import Node
from ..ports import (
    API,
    ASCEND_DIRECT,
    HANDSHAKE,
    HCCL,
    HCCL_FIRST,
    HCCL_LAST,
    LAST,
    PortUse,
    environment_port,
    mooncake_limits,
    mooncake_takes,
    port_ranges,
    span,
)
from ..topology import joined
from .base import Context, at_node, rule


def _whose(use: PortUse) -> str:
    return f"{use.purpose} of {use.instance}" if use.instance else use.purpose


def _overlaps(uses: list[PortUse]) -> Iterator[tuple[PortUse, PortUse, tuple[int, int]]]:
    """Yield pairs of uses with a port in common, and the first and last common port; the later use first."""
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
    "Fixed ports are outside the ranges from which Mooncake picks random ports",
    cure=(
        "choose ports outside 15000-17000 and outside AscendDirectTransport's range; leave pd_kv_port "
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
                    f"{_whose(use)} is in the range from which {whom} picks random ports: starts fail now "
                    "and then with zmq.error.ZMQError: Address already in use",
                    host=host,
                    instance=use.instance,
                    variable=use.variable,
                    seen=f"{span(use.first, use.last)}, inside {span(pool.first, pool.last)}",
                    expected=f"outside {span(pool.first, pool.last)}",
                    cure=cure,
                )


@rule(
    "PD303",
    ERROR,
    "Fixed ports are outside HCCL's port range on the host",
    cure="choose a port outside HCCL's range, or move the range with HCCL_IF_BASE_PORT in pd_engine_env",
    source="vllm-ascend issues 1955, 9447 (EI0019, EJ0003, or a time-out of 120 s)",
)
def clear_of_hccl(r: Rule, c: Context) -> Iterator[Finding]:
    for host, uses in c.table.items():
        for pool in (u for u in uses if u.purpose == HCCL):
            for use in (u for u in uses if u.kind == "fixed"):
                if use.overlap(pool):
                    yield r.at(
                        f"{_whose(use)} is in the range of ports that HCCL needs",
                        host=host,
                        instance=use.instance,
                        variable=use.variable,
                        seen=span(use.first, use.last),
                        expected=f"outside {span(pool.first, pool.last)}",
                    )


@rule(
    "PD304",
    HINT,
    "Fixed ports within Linux's range for outgoing connections are reserved on the servers",
    cure="add them to net.ipv4.ip_local_reserved_ports on the servers",
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
            f"an outgoing connection on {joined(hosts)} can hold one of these ports when the engine needs it",
            host=hosts[0] if len(hosts) == 1 else None,
            seen=f"Linux uses {low}-{high}",
            expected=f"net.ipv4.ip_local_reserved_ports includes {ports}",
        )


@rule(
    "PD305",
    ERROR,
    "Every port is at most 65535, up to the last of its range, and is accepted by the program that reads it",
    cure="choose a lower first port: pd_kv_port, pd_proxy_port, or pd_api_port where every rank has its own",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:931; HCCL's environment variables "
        "(EI0001, range[1024,65520]); Mooncake v0.3.9 ascend_direct_transport.cpp:618; "
        "V@0.13.0:vllm/envs.py:415"
    ),
)
def ports_exist(r: Rule, c: Context) -> Iterator[Finding]:
    for host, uses in c.table.items():
        for use in uses:
            if use.last > LAST:
                each = "rank" if use.purpose == API else "chip"
                message = f"{_whose(use)} needs one port for each {each}, up to {use.last}"
                if use.instance is None:
                    message = (
                        f"{_whose(use)} has port {use.last}: behind a front the two routers have a port each"
                    )
                yield r.at(
                    message,
                    host=host,
                    instance=use.instance,
                    variable=use.variable,
                    seen=span(use.first, use.last),
                    expected=f"at most {LAST}",
                )
    for instance, node in c.nodes("pd_engine_env"):
        for name, message, expected in (
            *_hccl_ports(node),
            *_ascend_direct_ports(c, node),
            *_mooncake_ports(c, node),
            *_vllm_ports(node),
        ):
            yield r.at(
                message,
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{name}={shown(node.env.get(name, '(not set)'), 60)}",
                expected=expected,
                cure=f"correct {name} in pd_engine_env, or remove it",
            )


# A variable, what is wrong with it, and the expected value.
Trouble = tuple[str, str, str]


def _set(node: Node, name: str) -> bool:
    """Whether a variable has a value that is known to the plan."""
    return "$" not in node.env.get(name, "$") and node.env[name] != ""


def _hccl_ports(node: Node) -> Iterator[Trouble]:
    """Engines on one chip do not use HCCL and ignore these variables; nobody sets them there."""
    name, last_chip = "HCCL_IF_BASE_PORT", max(node.chips, default=0)
    if _set(node, name):
        base = environment_port(node, name)
        if base is None or not HCCL_FIRST <= base <= HCCL_LAST:
            message = f"HCCL accepts {name} from {HCCL_FIRST} to {HCCL_LAST}, and stops with EI0001 otherwise"
            yield name, message, f"a whole number from {HCCL_FIRST} to {HCCL_LAST}"
        elif base + last_chip > LAST:
            message = f"HCCL's ports end at {base + last_chip}: one for each chip from {name} on"
            yield name, message, f"at most {LAST - last_chip}"
    for name in ("HCCL_HOST_SOCKET_PORT_RANGE", "HCCL_NPU_SOCKET_PORT_RANGE"):
        if _set(node, name) and port_ranges(node.env[name]) is None:
            yield (
                name,
                f"HCCL stops with EI0001 if {name} is not a list of ports that do not overlap",
                "auto, or ports and ranges from 1 to 65535, such as 60000,60050-60100",
            )


def _ascend_direct_ports(c: Context, node: Node) -> Iterator[Trouble]:
    release = c.cluster.release
    name = release.ascend_direct_variable
    base = None if name is None or c.cluster.colocated else environment_port(node, name)
    if name is None or base is None:
        return
    chips = max(node.chips, default=0) + 1
    last = release.ascend_direct(chips, base)[1]
    if base < 1 or last > LAST:
        yield (
            name,
            f"AscendDirectTransport uses {release.ascend_direct_step} ports for each chip from {name} on, "
            f"up to {last}",
            f"from 1 to {LAST - release.ascend_direct_step * chips}",
        )


def _mooncake_names(c: Context, node: Node) -> list[str]:
    """The variables that set Mooncake's port range."""
    both = c.cluster.release.mooncake_rpc_variables
    given = [next((name for name in names if name in node.env), None) for names in both]
    return [name for name in given if name is not None and _set(node, name)]


def _mooncake_ports(c: Context, node: Node) -> Iterator[Trouble]:
    """Mooncake divides by the length of the range; from v0.3.11 on it uses its default range instead."""
    low, high = mooncake_limits(c.cluster, node)
    names = _mooncake_names(c, node)
    if names and low > high and not c.cluster.colocated and not c.cluster.release.mooncake_checks_range:
        message = f"Mooncake's RPC port range begins at {low} and ends at {high}"
        yield names[0], message, "a first port before the last"


def _vllm_ports(node: Node) -> Iterator[Trouble]:
    """The address of a service, which Kubernetes sets under the same name, is not a number."""
    for name in ("VLLM_PORT", "VLLM_DP_MASTER_PORT"):
        if not _set(node, name):
            continue
        port = environment_port(node, name)
        if port is None or not 0 <= port <= LAST:
            yield name, f"vLLM reads {name} as a port, and stops if it is not one", f"from 0 to {LAST}"


@rule(
    "PD307",
    WARNING,
    "Ports set in the environment take effect",
    cure="correct the variable in pd_engine_env, or remove it",
    source=(
        "Mooncake v0.3.7.post2 config.cpp:242, v0.3.11.post1 config.cpp:289; "
        "V@0.13.0:vllm/utils/network_utils.py:177"
    ),
)
def ports_do_something(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        for name, message, expected in (*_ignored_ports(c, node), *_vllm_starts(c, node)):
            yield r.at(
                message,
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{name}={shown(node.env[name], 60)}",
                expected=expected,
            )


def _ignored_ports(c: Context, node: Node) -> Iterator[Trouble]:
    """Yield variables that Mooncake or AscendDirectTransport ignores; Mooncake says so in its log."""
    release = c.cluster.release
    if c.cluster.colocated:
        return
    names = _mooncake_names(c, node)
    for name in names:
        port = environment_port(node, name)
        if port is None or not 1 <= port <= LAST:
            yield name, f"Mooncake ignores {name} if it is not a port", f"from 1 to {LAST}"
        elif release.mooncake_checks_range and not mooncake_takes(port):
            message = (
                f"Mooncake uses {span(*release.mooncake_rpc)} if {name} is outside the ports that it accepts"
            )
            yield name, message, "from 1024 to 32767, or from 61000 on"
    low, high = mooncake_limits(c.cluster, node)
    if names and low > high and release.mooncake_checks_range:
        message = f"Mooncake's RPC port range begins at {low} and ends at {high}: it uses its default range"
        yield names[0], message, "a first port before the last"
    base = release.ascend_direct_variable
    if base is not None and _set(node, base) and environment_port(node, base) is None:
        yield base, f"AscendDirectTransport ignores {base} if it is not a number", "a whole number"


def _vllm_starts(c: Context, node: Node) -> Iterator[Trouble]:
    """VLLM_PORT is the first port for connections between vLLM's processes, not the port of the API."""
    port = environment_port(node, "VLLM_PORT")
    if port is None:
        return
    near = [
        use for use in c.table.get(node.host, ()) if use.kind == "fixed" and use.first <= port <= use.last
    ]
    if near:
        yield (
            "VLLM_PORT",
            "vLLM's processes use VLLM_PORT and the ports above it internally, but this port is planned for "
            f"{near[0].purpose}",
            "a port without another planned use; pd_api_port sets the port of the API",
        )


@rule(
    "PD306",
    WARNING,
    "KV ports that the inventory sets do not overlap, even on different hosts",
    cure="set pd_kv_port 100 apart for each node, as the guides do, or leave it unset to have it computed",
    source="A@v0.13.0:docs/source/tutorials/pd_disaggregation_mooncake_multi_node.md",
)
def kv_ports_apart(r: Rule, c: Context) -> Iterator[Finding]:
    """Computed ports follow from the chips of a host, and are the same on many; vllm-ascend's suffix keeps
    their engine ids apart. Ports on the same host are left to PD301."""
    pinned = [
        i
        for i in c.instances("pd_parallel", "pd_kv_port")
        if any(n.settings.kv_port is not None for n in i.nodes)
    ]
    hosts = {i.name: {n.host for n in i.nodes} for i in pinned}
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
        for i in pinned
    ]
    reach: PortUse | None = None
    for use in sorted(ranges, key=lambda u: (u.first, u.last)):
        other, reach = reach, use if reach is None or use.last > reach.last else reach
        common = other and use.overlap(other)
        if other is None or not common:
            continue
        name, other_name = str(use.instance), str(other.instance)
        if hosts[name] & hosts[other_name]:
            continue
        yield r.at(
            f"the KV ports of {name} and {other_name} overlap in {span(*common)}: a consumer tells "
            "producers apart by engine id and port, not by host",
            instance=name,
            variable="pd_kv_port",
            seen=f"{span(use.first, use.last)} and {span(other.first, other.last)}",
            expected="ranges that do not overlap",
        )
