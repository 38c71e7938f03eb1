# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about the cluster's shape and addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import ERROR, WARNING, Finding, Rule
from ..topology import joined
from .base import Context, rule


@rule(
    "PD115",
    ERROR,
    "The inventory describes the topology that the playbook is for",
    cure="use playbooks/deploy.yml, which takes any topology, or another inventory",
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
    "Names of instances can be names of containers and files",
    cure="give the group another name",
    source="docs/variables.md",
)
def instance_names(r: Rule, c: Context) -> Iterator[Finding]:
    for instance in c.cluster.instances:
        if instance.name in ("proxy", "all", "ungrouped"):
            yield r.at(f"an instance cannot be called {instance.name}", instance=instance.name)


@rule(
    "PD117",
    ERROR,
    "Names of hosts can be names of directories",
    cure="give the host a name of letters, digits, dots, dashes and underscores",
    source="docs/variables.md",
)
def host_names(r: Rule, c: Context) -> Iterator[Finding]:
    for host in c.cluster.declaration.addresses:
        if not host or host.startswith(".") or any(ch in "/\\" or not ch.isprintable() for ch in host):
            yield r.at(
                "the plan writes a directory for each host, and this cannot be one's name",
                host=host,
                seen=host,
            )


@rule(
    "PD124",
    ERROR,
    "Every host has an address of its own",
    cure="correct ansible_host or pd_node_ip of one of them",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
def addresses_differ(r: Rule, c: Context) -> Iterator[Finding]:
    yield from same_address(r, c.cluster.declaration.addresses)


def same_address(r: Rule, addresses: Mapping[str, str | None]) -> Iterator[Finding]:
    """Hosts that share an address with one before them."""
    by_address: dict[str, list[str]] = {}
    for host, address in addresses.items():
        if address is not None:
            by_address.setdefault(address, []).append(host)
    for address, hosts in by_address.items():
        for host in hosts[1:]:
            yield r.at(
                f"{joined(hosts)} have one address",
                host=host,
                variable="ansible_host",
                seen=address,
                expected=f"another address than that of {hosts[0]}",
            )


@rule(
    "PD125",
    WARNING,
    "The engines advertise the address that the plan gives them",
    cure="leave VLLM_HOST_IP to the profile, or set it to $local_ip",
    source="V@0.13.0:vllm/utils/network_utils.py:33",
)
def advertised_address(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        value = node.env.get("VLLM_HOST_IP")
        if value is None:
            yield r.at(
                "the connector advertises vLLM's get_ip(): without VLLM_HOST_IP the address of the default "
                "route, "
                "which on a server with several NICs may be another than HCCL_IF_IP",
                host=node.host,
                instance=instance.name,
                variable="pd_engine_env",
                seen="VLLM_HOST_IP is not set",
                expected=f"VLLM_HOST_IP={node.address or '$local_ip'}",
                cure="set VLLM_HOST_IP: $local_ip in pd_engine_env, or use the profile deepseek-v3.1-w8a8",
            )
        elif value not in ("$local_ip", node.address):
            yield r.at(
                "the engine would advertise another address than the one its peers are planned to reach",
                host=node.host,
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"VLLM_HOST_IP={value}",
                expected=f"VLLM_HOST_IP={node.address or '$local_ip'}",
            )
