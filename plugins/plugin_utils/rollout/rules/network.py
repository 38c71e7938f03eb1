# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the cluster's shape and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..findings import ERROR, WARNING, Finding, Rule, declare, shown
from ..handshakes import connector_of, listens
from ..model import Instance, Node
from ..names import HOST_EXPECTED, host_allowed
from ..topology import joined
from .base import Context, at_node, finds, number, rule


@rule(
    "PD115",
    ERROR,
    "The inventory has the topology that the playbook requires",
    cure="use playbooks/deploy.yml, which accepts any topology, or another inventory",
    source="playbooks/deploy_1p1d.yml",
)
def wanted_topology(r: Rule, c: Context) -> Iterator[Finding]:
    if c.wanted_topology and c.wanted_topology.upper() != c.cluster.topology:
        yield r.at(
            f"the inventory describes {c.cluster.topology}, not {c.wanted_topology}",
            seen=c.cluster.topology,
            expected=c.wanted_topology,
        )


@rule(
    "PD116",
    ERROR,
    "Instances do not use reserved names",
    cure="rename the group",
    source="docs/variables.md",
)
def instance_names(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.cluster.instances:
        if instance.name in ("proxy", "front", "router-blue", "router-green", "all", "ungrouped"):
            yield r.at(
                f"an instance cannot be called {instance.name}",
                instance=instance.name,
                expected="another name",
            )


@rule(
    "PD117",
    ERROR,
    "Host names are valid as directory names and in a script's comment",
    cure="rename the host in the inventory, and set its address as ansible_host",
    source="docs/variables.md (names)",
)
def host_names(r: Rule, c: Context) -> Iterator[Finding]:
    for host in c.cluster.declaration.addresses:
        if not host_allowed(host):
            name = shown(host, 80)
            yield r.at(
                f"the host name {name} is used as a directory name, but is not valid as one",
                host=name,
                seen=repr(host),
                expected=HOST_EXPECTED,
            )


SAME_ADDRESS = declare(
    "PD124",
    ERROR,
    "Every host has its own address",
    cure="correct ansible_host or pd_node_ip on one of them",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)


@finds(SAME_ADDRESS)
def addresses_differ(r: Rule, c: Context) -> Iterator[Finding]:
    yield from same_address(c.cluster.declaration.addresses)


def same_address(addresses: Mapping[str, str | None]) -> Iterator[Finding]:
    """Hosts that have the same address as an earlier host."""
    by_address: dict[str, list[str]] = {}
    for host, address in addresses.items():
        if address is not None:
            by_address.setdefault(address, []).append(host)
    for address, hosts in by_address.items():
        for host in hosts[1:]:
            yield SAME_ADDRESS.at(
                f"{joined(hosts)} have the same address",
                host=host,
                variable="ansible_host",
                seen=address,
                expected=f"an address other than that of {hosts[0]}",
            )


@rule(
    "PD125",
    WARNING,
    "Addresses in the environment match the plan",
    cure="leave the variable to the profile, or set it to $local_ip",
    source="V@0.13.0:vllm/utils/network_utils.py:33; CANN 8.5, environment variables of HCCL (HCCL_IF_IP)",
)
def advertised_address(r: Rule, c: Context) -> Iterator[Finding]:
    twice = _advertised_twice(c)
    for instance, node in c.nodes("pd_engine_env"):
        if not node.env.get("VLLM_HOST_IP"):
            yield r.at(
                "the connector advertises vLLM's get_ip(): without VLLM_HOST_IP the address of the default "
                "route, "
                "which on a server with several NICs may be another than HCCL_IF_IP",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen="VLLM_HOST_IP is not set",
                expected=f"VLLM_HOST_IP={node.address or '$local_ip'}",
                cure="set VLLM_HOST_IP: $local_ip in pd_engine_env, or use the profile deepseek-v3.1-w8a8",
            )
        yield from _found(r, instance, node, (w for w in _addresses(c, instance, node, twice) if not w.fails))
    yield from _listens_elsewhere(r, c, {OTHER: "that is not the service address"})


@rule(
    "PD126",
    ERROR,
    "Addresses and NICs in the environment, and the --host address, can be reached by the peers",
    cure="leave the variable to the profile, or set an address to $local_ip and a NIC to $nic_name",
    source=(
        "V@0.13.0:vllm/utils/network_utils.py:33, "
        "vllm/distributed/device_communicators/shm_broadcast.py:324; "
        "CANN 8.5, environment variables of HCCL (HCCL_IF_IP; EI0001); Gloo, transport/tcp/device.cc"
    ),
)
def reachable(r: Rule, c: Context) -> Iterator[Finding]:
    twice = _advertised_twice(c)
    for instance, node in c.nodes("pd_engine_env"):
        wrong = (*_addresses(c, instance, node, twice), *_interfaces(instance, node))
        yield from _found(r, instance, node, (w for w in wrong if w.fails))
    yield from _listens_elsewhere(
        r, c, {LOOPBACK: "that only this server can reach", OTHER_NODE: "of another server"}
    )
    for instance, node in c.nodes("pd_engine_args"):
        if node.api_ports and node.flag("uds") is not None:
            yield r.at(
                "with uds the API listens on a socket file only, and no other server can reach it",
                **at_node(instance, node),
                variable="pd_engine_args",
                seen=f"uds: {shown(node.flag('uds'), 60)}",
                expected="no uds",
                cure="remove uds from pd_engine_args",
            )
        tls = [name for name in ("ssl-certfile", "ssl-keyfile") if node.flag(name) is not None]
        if node.api_ports and tls:
            yield r.at(
                "the API would accept TLS only, but the proxy and the readiness checks use plain HTTP",
                **at_node(instance, node),
                variable="pd_engine_args",
                seen=" and ".join(tls),
                expected="neither ssl-certfile nor ssl-keyfile",
                cure="remove both from pd_engine_args; an HTTPS server in front of the proxy can use them",
            )


def _listens_elsewhere(r: Rule, c: Context, kinds: Mapping[str, str]) -> Iterator[Finding]:
    """Yield engines that the proxy and the readiness checks cannot reach at the service address."""
    for instance, node in c.nodes("pd_engine_args"):
        host = node.flag("host")
        kind = _kind(host, c, node) if node.api_ports and isinstance(host, str) else None
        if kind is not None and kind in kinds:
            yield r.at(
                f"the API would listen on an address {kinds[kind]}, but clients use the service address",
                **at_node(instance, node),
                variable="pd_engine_args",
                seen=f"host: {shown(host, 60)}",
                expected=f"host: 0.0.0.0, or {node.address or 'the service address'}",
                cure="leave host to the profile, which listens on all addresses",
            )


@rule(
    "PD127",
    WARNING,
    "NICs in the environment match the NIC of the service address",
    cure="set pd_interface, and leave the variable to the profile, or set it to $nic_name",
    source="CANN 8.5, environment variables of HCCL (HCCL_SOCKET_IFNAME); PyTorch, ProcessGroupGloo",
)
def interfaces_agree(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env", "pd_interface"):
        yield from _found(r, instance, node, (w for w in _interfaces(instance, node) if not w.fails))


@rule(
    "PD128",
    ERROR,
    "No environment variable adds data-parallel ranks that are not in the plan",
    cure="remove it from pd_engine_env, and set data in pd_parallel",
    source=(
        "V@0.13.0:vllm/config/parallel.py:537; V@0.18.0:vllm/config/parallel.py:740; "
        "V@0.23.0:vllm/config/parallel.py:827"
    ),
)
def ranks_of_the_environment(r: Rule, c: Context) -> Iterator[Finding]:
    """vLLM reads them if its command line has one rank, and then waits for the others."""
    name = "VLLM_DP_SIZE"
    for instance, node in c.nodes("pd_engine_env", "pd_parallel"):
        value = node.env.get(name, "1")
        if instance.parallel.data == 1 and "$" not in value and number(value.strip()) != 1:
            yield r.at(
                f"vLLM reads {name} if it has one data-parallel rank, and then waits for ranks that nobody "
                "starts",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{name}={shown(value, 60)}",
                expected=f"{name}=1, or not set",
            )


@rule(
    "PD129",
    WARNING,
    "With the layerwise connector, decoders reach the proxy without an HTTP proxy between them",
    cure="remove the HTTP proxy from pd_engine_env of the decoders, or add the address to no_proxy",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py:586, 798; "
        "A@v0.18.0:docs/source/tutorials/models/GLM5.md:1289 (unset http_proxy)"
    ),
)
def straight_to_the_proxy(r: Rule, c: Context) -> Iterator[Finding]:
    """Decoders post to its /v1/metaserver with httpx, which reads these variables. In no_proxy it accepts
    single addresses, not networks."""
    for instance, node in c.nodes("pd_engine_env", "pd_kv_connector"):
        connector = connector_of(c.cluster, instance)
        if connector is None or connector.listener != "decoder" or instance.role != "decoder":
            continue
        name = _http_proxy(node)
        passed = node.env.get("no_proxy", node.env.get("NO_PROXY", ""))
        near = {host.strip() for host in passed.split(",")}
        far = [p.address for p in c.cluster.proxies if p.address and p.address not in near]
        if name is not None and far and "*" not in near and "$" not in passed:
            yield r.at(
                f"decoders send requests to the proxy, and would send them through {name}",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=f"{name} without {far[0]} in no_proxy",
                expected=f"no_proxy with {far[0]}",
            )


def _http_proxy(node: Node) -> str | None:
    """The variable that sets an HTTP proxy, None if none does; lower case takes precedence."""
    for name in ("http_proxy", "all_proxy"):
        given = name if name in node.env else name.upper()
        if node.env.get(given):
            return given
    return None


@dataclass(frozen=True)
class _Wrong:
    """A variable with a value that is not the plan's, and whether the engine fails with it."""

    name: str
    message: str
    expected: str
    fails: bool


def _found(r: Rule, instance: Instance, node: Node, wrong: Iterable[_Wrong]) -> Iterator[Finding]:
    for entry in wrong:
        yield r.at(
            entry.message,
            **at_node(instance, node),
            variable="pd_engine_env",
            seen=f"{entry.name}={shown(node.env[entry.name], 60)}",
            expected=f"{entry.name}={entry.expected}",
        )


LOOPBACK = "an address that only the server itself can use"
ALL = "the address that means all interfaces"
OTHER_NODE = "the address of another server of the plan"
NO_IP = "not an IP address"
OTHER = "not the planned address"
SHARED = "the same address on several servers"
IPV6 = "an IPv6 address, which Mooncake's transport does not accept"


def _kind(value: str, c: Context, node: Node) -> str | None:
    """What kind of address this is for a node; None if it is the node's own."""
    text = value.strip().strip("[]")
    if text == node.address:
        return None
    if text == "localhost":
        return LOOPBACK
    if text in c.cluster.declaration.addresses.values():
        return OTHER_NODE
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return NO_IP
    if address.is_loopback:
        return LOOPBACK
    return ALL if address.is_unspecified else OTHER


def _asked(c: Context, instance: Instance) -> bool:
    """Whether other servers connect to the instance's nodes."""
    return len(instance.nodes) > 1 or listens(c.cluster, instance)


def _advertised_twice(c: Context) -> frozenset[str]:
    """Addresses that several servers would advertise to peers, although only one server can have each."""
    servers: dict[str, set[str]] = {}
    for instance, node in c.nodes("pd_engine_env"):
        value = node.env.get("VLLM_HOST_IP", "").strip()
        if value and "$" not in value and _asked(c, instance):
            servers.setdefault(value, set()).add(node.host)
    return frozenset(value for value, hosts in servers.items() if len(hosts) > 1)


def _addresses(c: Context, instance: Instance, node: Node, twice: frozenset[str]) -> Iterator[_Wrong]:
    """Yield the address variables that differ from the plan.

    ``twice`` holds addresses that several servers would advertise. Variables whose value only the image or
    the server knows are left out, and so are empty ones, which all readers treat as not set.
    """
    own, head = node.address or "$local_ip", instance.head.address or "$master_addr"
    several, ranks = len(instance.nodes) > 1, instance.parallel.chips > 1
    asked = _asked(c, instance)
    # Variable, what it is used for, the kinds of addresses that fail, and the expected value.
    unreachable = (LOOPBACK, ALL, OTHER_NODE, SHARED)
    ipv4_only = c.cluster.release.limits.ipv6_refused and connector_of(c.cluster, instance) is not None
    for name, use, fails, expected in (
        (
            "VLLM_HOST_IP",
            "peers connect to the engine at this address",
            (*(unreachable if asked else ()), IPV6),
            own,
        ),
        (
            "HCCL_IF_IP",
            "HCCL connects the ranks at this address",
            (*unreachable, NO_IP) if several else (OTHER_NODE,) if ranks else (),
            own,
        ),
    ):
        value = node.env.get(name, "")
        kind = None if not value or "$" in value else _kind(value, c, node)
        if name == "VLLM_HOST_IP" and kind in (OTHER, LOOPBACK, ALL) and ":" in value and ipv4_only:
            kind = IPV6
        elif name == "VLLM_HOST_IP" and kind == OTHER and value.strip() in twice:
            kind = SHARED
        if kind is not None:
            yield _Wrong(name, f"{name} is {kind}: {use}", expected, kind in fails)
    value = node.env.get("VLLM_LOOPBACK_IP", "")
    if value and ranks and not instance.spans_nodes and _kind(value, c, node) == OTHER_NODE:
        message = f"VLLM_LOOPBACK_IP is {OTHER_NODE}: the ranks of a server connect to each other at it"
        yield _Wrong("VLLM_LOOPBACK_IP", message, "127.0.0.1", fails=True)
    for name in ("MASTER_ADDR", "VLLM_DP_MASTER_IP"):
        value = node.env.get(name, head)
        if several and value and "$" not in value and value != head:
            message = (
                f"{name} differs from the first node's address and has no effect: the plan sets the address"
            )
            yield _Wrong(name, message, head, fails=False)


# HCCL's operators, and characters that a selector may have but an interface name may not.
_NO_NAME = frozenset("=^* \t")


def _interfaces(instance: Instance, node: Node) -> Iterator[_Wrong]:
    """Yield the NIC variables that differ from pd_interface or, if that is not set, from each other."""
    values = {
        name: node.env[name]
        for name in ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
        if node.env.get(name) and "$" not in node.env[name]
    }
    several, ranks = len(instance.nodes) > 1, instance.parallel.chips > 1
    family = node.env.get("HCCL_SOCKET_FAMILY", "")
    if family not in ("", "AF_INET") and "$" not in family:
        message = "HCCL chooses an IPv6 address of the interface, but the service addresses are IPv4"
        if family != "AF_INET6":
            message = "HCCL stops with EI0001 if HCCL_SOCKET_FAMILY is neither AF_INET nor AF_INET6"
        yield _Wrong("HCCL_SOCKET_FAMILY", message, "AF_INET", fails=ranks and family != "AF_INET6")
    gloo = values.get("GLOO_SOCKET_IFNAME", "")
    # A name for all hosts; lo and selectors that are not plain names do not count.
    named = gloo if gloo != "lo" and not set(gloo) & _NO_NAME else ""
    nic = node.settings.interface or named.split(",")[0].strip()
    expected = node.settings.interface or "$nic_name"
    for name, value in values.items():
        names = [part.strip() for part in value.split(",")]
        hccl = name == "HCCL_SOCKET_IFNAME"
        if not hccl and set(value) & _NO_NAME:
            message = (
                f"{name} contains HCCL's operators (= or ^)"
                if set(value) & {"=", "^"}
                else f"{name} contains a blank or a wildcard"
            ) + ": other libraries look for an interface of exactly that name"
            yield _Wrong(name, message, expected, fails=ranks and name == "GLOO_SOCKET_IFNAME")
        elif names in (["lo"], ["=lo"]) and nic != "lo":
            # HCCL_IF_IP takes precedence over it.
            decides = not node.env.get("HCCL_IF_IP") if hccl else name == "GLOO_SOCKET_IFNAME"
            if several:
                message = f"{name} is the loopback interface, but the instance has several nodes"
                yield _Wrong(name, message, expected, fails=decides)
        elif nic and not (hccl_takes(value, nic) if hccl else nic in names):
            whose = "pd_interface" if node.settings.interface else "GLOO_SOCKET_IFNAME"
            yield _Wrong(name, f"{name} differs from {whose}", expected, fails=False)


def hccl_takes(selector: str, interface: str) -> bool:
    """Whether HCCL_SOCKET_IFNAME selects an interface: `eth,enp` by how names begin, `=eth0` exactly, and
    `^eth` and `^=eth0` all others."""
    excluded = selector.startswith("^")
    text = selector.removeprefix("^")
    exact = text.startswith("=")
    names = [part.strip() for part in text.removeprefix("=").split(",") if part.strip()]
    named = any(interface == name or (not exact and interface.startswith(name)) for name in names)
    return named != excluded
