# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The plan: turns an inventory into everything that will run, or into all reasons why it cannot."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from . import inventory, launch, ports, rules, secrecy, topology
from .fabric import fabric
from .findings import ERROR, Finding, PlanError, grouped, ordered
from .model import ROLES, Cluster, Instance, ValidCluster
from .plan_dict import InstanceDict, PlanDict, PortDict, Slice

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """A cluster without errors, its ports, and its warnings and hints."""

    cluster: ValidCluster
    ports: dict[str, tuple[ports.PortUse, ...]]
    findings: tuple[Finding, ...]

    def to_dict(self) -> PlanDict:
        """Return the plan as in plan.json and in the registered pd_plan."""
        content = _content(self)
        # Peers and guards follow from the rest, and in a large cluster they are most of the text.
        shares = {
            host: {key: value for key, value in share.items() if key not in ("peers", "guard")}
            for host, share in content["hosts"].items()
        }
        hashed = {key: value for key, value in content.items() if key != "hash"}
        # The sources of image and weights do not affect what runs.
        text = json.dumps({**hashed, "hosts": shares, "provision": None}, sort_keys=True)
        content["hash"] = hashlib.sha256(text.encode()).hexdigest()
        return content


def make(raw: inventory.RawInventory, wanted_topology: str | None = None) -> Plan:
    """Plan an inventory.

    ``wanted_topology``, such as 1P1D, is the topology that a playbook requires. Raises PlanError with all
    findings if one of them is an error.
    """
    declaration, found = inventory.read(raw)
    cluster = topology.build(declaration)
    table = ports.table(cluster)
    findings = ordered(
        secrecy.hidden([*found, *rules.check(cluster, table, wanted_topology)], secrecy.values_of(cluster))
    )
    if any(finding.severity == ERROR for finding in findings):
        raise PlanError(findings)
    return Plan(ValidCluster.checked(cluster), table, tuple(findings))


def make_all(raw: inventory.RawInventory, wanted_topology: str | None = None) -> dict[str, Plan]:
    """Plan every deployment of an inventory, by name; raises PlanError with the findings of all of them."""
    parts = inventory.split(raw)
    plans: dict[str, Plan] = {}
    found: list[Finding] = list(inventory.shared_servers(parts))
    for name, part in parts.items():
        try:
            plans[name] = make(part, wanted_topology)
        except PlanError as error:
            found.extend(error.findings if len(parts) == 1 else _named(name, error.findings))
    if len(parts) > 1:
        addresses = {
            host: address
            for plan in plans.values()
            for host, address in plan.cluster.declaration.addresses.items()
        }
        found.extend(rules.network.same_address(addresses))
    if found:
        warnings = (finding for plan in plans.values() for finding in plan.findings)
        raise PlanError([*found, *warnings])
    return plans


def _named(deployment: str, findings: list[Finding]) -> list[Finding]:
    """Return the findings of one of several deployments; the message names the deployment if the finding has
    neither host nor instance."""
    return [
        finding
        if finding.host is not None or finding.instance is not None
        else replace(finding, message=f"deployment {deployment}: {finding.message}")
        for finding in findings
    ]


def _content(plan: Plan) -> PlanDict:
    cluster = plan.cluster
    declaration, release = cluster.declaration, cluster.release
    head = cluster.instances[0].settings
    peers = _Peers(cluster)
    rows = {host: [use.to_dict() for use in uses] for host, uses in plan.ports.items()}
    return {
        "version": VERSION,
        "hash": "",
        "cluster": declaration.cluster,
        "deployment": declaration.deployment,
        "release": {"name": release.name, "vllm": release.vllm, "cann": release.cann},
        "image": declaration.image,
        "image_digest": declaration.image_digest,
        "provision": declaration.provision.to_dict(),
        "topology": cluster.topology,
        "fabric": fabric(cluster),
        "model": {"path": head.model_path, "served_name": head.served_model_name},
        "connector": head.connector,
        "protocol": topology.protocol(cluster),
        "api_key": declaration.api_key,
        "proxy": {
            "router": declaration.router,
            "port": declaration.proxy_port,
            "front": declaration.front is not None,
            "prefillers": launch.backends(cluster, "prefiller"),
            "decoders": launch.backends(cluster, "decoder"),
        },
        "instances": [_instance(instance) for instance in cluster.instances],
        "findings": [finding.to_dict() for finding in grouped(plan.findings)],
        "ports": [row for host_rows in rows.values() for row in host_rows],
        "hosts": {host: _host(cluster, peers, host, host_rows) for host, host_rows in rows.items()},
    }


def _instance(instance: Instance) -> InstanceDict:
    parallel = instance.parallel
    return {
        "name": instance.name,
        "role": instance.role,
        "nodes": [node.host for node in instance.nodes],
        "engine_ids": [node.engine_id for node in instance.nodes],
        "kv_port": instance.kv_port,
        "api_port": instance.settings.api_port,
        "dp_mode": "external" if instance.external else "internal",
        "profile": instance.settings.profile.name,
        "parallel": {
            "tensor": parallel.tensor,
            "prefill_context": parallel.prefill_context,
            "decode_context": parallel.decode_context,
            "pipeline": parallel.pipeline,
            "data": parallel.data,
            "data_local": instance.head.data_local,
        },
    }


def _host(cluster: ValidCluster, peers: _Peers, host: str, rows: list[PortDict]) -> Slice:
    pairs = cluster.by_host.get(host, ())
    routers = [launch.proxy(cluster, proxy) for proxy in cluster.proxies if proxy.host == host]
    front = launch.front(cluster, host, routers)
    engines = [launch.engine(cluster, instance, node) for instance, node in pairs]
    return {
        "address": cluster.addresses[host],
        "interface": next((node.settings.interface for _, node in pairs), None),
        "directory": launch.directory(cluster),
        "chips": sorted({chip for _, node in pairs for chip in node.chips}),
        "ports": rows,
        "peers": peers.of(host),
        "engines": engines,
        "proxy": routers[0] if routers else None,
        "routers": routers,
        "front": front,
        "guard": launch.guard(cluster, host, engines, routers, front),
        "entry": launch.entry(cluster, engines, routers, front),
    }


class _Peers:
    """The hosts that each host must reach; the lists of whole roles are built once."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes = {
            role: list(dict.fromkeys(node.host for instance in cluster.of(role) for node in instance.nodes))
            for role in ROLES
        }
        self.members = {role: frozenset(hosts) for role, hosts in self.nodes.items()}
        self.serving = [
            node.host for instance in cluster.instances for node in instance.nodes if node.api_ports
        ]
        self.proxies = [proxy.host for proxy in cluster.proxies]

    def of(self, host: str) -> list[str]:
        """Return a host's peers: the nodes of its own instances, every node of the other role, and the proxy
        or, for the proxy's host, its backends."""
        pairs = self.cluster.by_host.get(host, ())
        near = [node.host for instance, _ in pairs for node in instance.nodes]
        if any(node.api_ports for _, node in pairs):
            near.extend(self.proxies)
        if host in self.proxies:
            near.extend(self.serving)
        far = [role for role in ROLES if any(instance.role != role for instance, _ in pairs)]
        near = [peer for peer in dict.fromkeys(near) if peer != host]
        if len(far) == 1 and self.members[far[0]].isdisjoint([host, *near]):
            return near + self.nodes[far[0]]
        every = dict.fromkeys([*near, *(peer for role in far for peer in self.nodes[role])])
        return [peer for peer in every if peer != host]
