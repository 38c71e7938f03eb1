# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The types of a plan: what is read from an inventory and what is computed from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypedDict

from .profiles import Profile
from .releases import Release
from .routers import Router

Role = Literal["prefiller", "decoder"]

# A3 servers have 16 chips and their own fabric (HCCS), A2 servers have 8 chips and RoCE.
Server = Literal["atlas-a3", "atlas-a2"]
CHIPS_OF: dict[Server, int] = {"atlas-a3": 16, "atlas-a2": 8}

# The two routers behind a front: each change starts the other one.
Colour = Literal["blue", "green"]
COLOURS: tuple[Colour, Colour] = ("blue", "green")

# Prefill and decode in separate engines, or in one engine without KV transfer and proxy.
Mode = Literal["disaggregated", "colocated"]
# How the KV cache gets from a prefiller to a decoder.
Protocol = Literal["pull", "push", "none"]

# One API server in front of all data-parallel ranks, or one for each rank, as in launch_online_dp.py.
DpMode = Literal["internal", "external"]

ROLES: tuple[Role, Role] = ("prefiller", "decoder")

KV_ROLES: dict[Role, str] = {"prefiller": "kv_producer", "decoder": "kv_consumer"}


@dataclass(frozen=True)
class Parallel:
    """Sizes of an engine's parallel groups, in ranks. One rank is one chip."""

    tensor: int = 1
    prefill_context: int = 1
    decode_context: int = 1
    pipeline: int = 1
    data: int = 1
    data_local: int | None = None

    @property
    def world_size(self) -> int:
        """Chips of one data-parallel rank; decode context parallel reuses the tensor ranks and adds none."""
        return self.tensor * self.prefill_context * self.pipeline

    @property
    def chips(self) -> int:
        """Chips of the whole instance."""
        return self.world_size * self.data


@dataclass(frozen=True)
class Settings:
    """The variables of one instance on one host, typed and with defaults."""

    host: str
    address: str | None
    interface: str | None
    chips_per_node: int
    chips: tuple[int, ...] | None
    parallel: Parallel
    dp_mode: DpMode
    # With external data parallel: the port of a node's first rank; the next ranks have the next ports.
    api_port: int
    master_port: int
    dp_rpc_port: int
    kv_port: int | None
    engine_id: str | None
    connector: str
    kv_transfer_config: Mapping[str, Any]
    kv_extra_config: Mapping[str, Any]
    engine_env: Mapping[str, str | None]
    engine_args: Mapping[str, Any]
    profile: Profile
    model_path: str
    served_model_name: str
    extra_mounts: tuple[Mount, ...]
    shm_size: str
    # Variables that could not be read: rules about them are skipped, because the reader has a finding.
    unread: frozenset[str] = frozenset()


class MountDict(TypedDict):
    """A mount, as in the plan."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    read_only: bool

    def to_dict(self) -> MountDict:
        return {"source": self.source, "target": self.target, "read_only": self.read_only}


@dataclass(frozen=True)
class Member:
    """One instance on one host, as declared."""

    host: str
    settings: Settings


@dataclass(frozen=True)
class Group:
    """One instance as declared: its hosts in the order of their node ranks."""

    name: str
    role: Role
    members: tuple[Member, ...]


ImageSource = Literal["registry", "pull", "archive", "none"]
WeightsSource = Literal["present", "server", "modelscope", "huggingface", "controller"]
WeightsVerify = Literal["none", "full"]


class ProvisionDict(TypedDict):
    """The sources of image, weights and router, as in the plan."""

    image_source: ImageSource
    image_archive: str
    image_archive_remote_src: bool
    weights_source: WeightsSource
    weights_verify: WeightsVerify
    router_wheels: str


@dataclass(frozen=True)
class Provision:
    """The sources of image, weights and router that servers lack; the checks need them as well."""

    image_source: ImageSource = "registry"
    # The file made by `docker save`; empty: none.
    image_archive: str = ""
    # Whether that file is on the servers; if not, it is on the controller.
    image_archive_remote_src: bool = True
    weights_source: WeightsSource = "present"
    # Whether every byte of the weights is read and verified.
    weights_verify: WeightsVerify = "none"
    # The directory on the controller with the router's wheels; empty: they are fetched.
    router_wheels: str = ""

    def to_dict(self) -> ProvisionDict:
        return {
            "image_source": self.image_source,
            "image_archive": self.image_archive,
            "image_archive_remote_src": self.image_archive_remote_src,
            "weights_source": self.weights_source,
            "weights_verify": self.weights_verify,
            "router_wheels": self.router_wheels,
        }


@dataclass(frozen=True)
class Front:
    """The address in front of the routers, as declared. Keys and certificate stay in the inventory."""

    port: int
    metrics_port: int
    # The name or address by which clients reach it; None: what the certificate says.
    name: str | None
    # An address that moves between the fronts; None: each has its own only.
    virtual_address: str | None
    tls: bool
    # Whether the certificate and its private key are set.
    certificate: bool
    certificate_key: bool
    # The names of the API keys; without any, every request is passed on.
    keys: tuple[str, ...]
    # The names of those that are short, and of those that are the engines' own key.
    short_keys: tuple[str, ...]
    engine_keys: tuple[str, ...]
    # The requests that each key may send in a minute; None: any number.
    requests_per_minute: int | None
    # The largest request, in bytes.
    body_limit: int
    # Seconds: the longest silence in an answer, the time in which a request must arrive, and for which a
    # connection is kept without a request.
    answer_timeout: int
    request_timeout: int
    idle_timeout: int
    connections: int


@dataclass(frozen=True)
class Declaration:
    """A complete inventory, read and typed."""

    cluster: str
    deployment: str
    release: Release
    mode: Mode
    server: Server
    image: str
    # The image's digest in the registry, sha256:…; empty: any.
    image_digest: str
    # Whether pd_image or pd_image_registry is set.
    image_has_registry: bool
    host_dir: str
    # The directory of the plan's files on the controller, None for the default.
    plan_dir: str | None
    api_key: bool
    proxy_port: int
    router: Router
    router_args: Mapping[str, Any]
    router_metrics_port: int
    # None: clients reach the router itself.
    front: Front | None
    # The variables of the front that are set.
    front_variables: tuple[str, ...]
    # Seconds for which a replaced router may finish its last requests.
    drain_timeout: int
    # The guards' port; None: there are none.
    guard_port: int | None
    expected_concurrency: int | None
    provision: Provision
    groups: tuple[Group, ...]
    # Service address by host, for every host of the plan.
    addresses: Mapping[str, str | None]
    proxy_hosts: tuple[str, ...]
    # Whether the release is the configured one: if that could not be read, the default replaces it.
    release_known: bool = True


@dataclass(frozen=True)
class Rank:
    """One data-parallel rank with its own API server: external data parallel."""

    # Its number among all ranks of the instance.
    number: int
    chips: tuple[int, ...]
    # The same chips as the container numbers its devices, from 0.
    places: tuple[int, ...]
    api_port: int


@dataclass(frozen=True)
class Node:
    """One engine process group on one host: an instance's share of a server."""

    host: str
    rank: int
    settings: Settings
    chips: tuple[int, ...]
    engine_id: str
    # First data-parallel rank of this node, and the number of ranks here.
    data_start: int
    data_local: int
    # Flags and environment after profile and overrides, as they are spelt there.
    args: Mapping[str, Any]
    # The same flags by canonical name.
    flags: Mapping[str, Any]
    # The environment in the order of the launch script's exports, as far as the plan knows its values.
    exports: Mapping[str, str]
    env: Mapping[str, str]
    # With external data parallel, the ranks that run here; else none.
    ranks: tuple[Rank, ...] = ()

    @property
    def api_ports(self) -> tuple[int, ...]:
        """The ports on which this node serves the API: one for each rank, or one on the head; none if it is
        headless."""
        if self.ranks:
            return tuple(rank.api_port for rank in self.ranks)
        return (self.settings.api_port,) if self.rank == 0 else ()

    @property
    def address(self) -> str | None:
        return self.settings.address

    def flag(self, name: str) -> Any:
        """Return the value of a flag by its canonical name; None if it is not set."""
        return self.flags.get(name)


@dataclass(frozen=True)
class Instance:
    """One engine, on one or more nodes; the first is its head and serves the API. With external data parallel
    each rank of each node serves its own API."""

    name: str
    role: Role
    nodes: tuple[Node, ...]
    parallel: Parallel
    kv_port: int
    # Whether one data-parallel rank spans the nodes (--nnodes), or each node runs complete ranks.
    spans_nodes: bool

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def settings(self) -> Settings:
        return self.nodes[0].settings

    @property
    def external(self) -> bool:
        """Whether each data-parallel rank has its own API server."""
        return self.settings.dp_mode == "external" and self.parallel.data > 1

    @property
    def local_world_size(self) -> int:
        """Chips that the instance needs on each of its nodes."""
        return self.parallel.chips // max(1, len(self.nodes))

    @cached_property
    def unread(self) -> frozenset[str]:
        return frozenset().union(*(node.settings.unread for node in self.nodes))


@dataclass(frozen=True)
class Proxy:
    """One router on one host: the upstream script or vllm-router."""

    host: str
    # Where it listens; None: the host has no valid address, which is a finding.
    address: str | None
    port: int
    # The port of its metrics; None if it has none.
    metrics_port: int | None = None
    # What its container, after the deployment's name, and its script are named after.
    name: str = "proxy"
    # Behind a front there are two, of which one serves.
    colour: Colour | None = None


@dataclass(frozen=True)
class Cluster:
    """Everything that will run, and where."""

    declaration: Declaration
    instances: tuple[Instance, ...]
    proxies: tuple[Proxy, ...]
    # (instance, node) pairs by host, in plan order.
    by_host: Mapping[str, tuple[tuple[Instance, Node], ...]] = field(default_factory=dict)

    def of_instances(self, instances: Iterable[Instance]) -> Cluster:
        """Return the same cluster with other instances, in plan order."""
        listed = tuple(instances)
        by_host: dict[str, list[tuple[Instance, Node]]] = {}
        for instance in listed:
            for node in instance.nodes:
                by_host.setdefault(node.host, []).append((instance, node))
        return replace(
            self, instances=listed, by_host={host: tuple(pairs) for host, pairs in by_host.items()}
        )

    @property
    def release(self) -> Release:
        return self.declaration.release

    @property
    def colocated(self) -> bool:
        """Whether one engine does prefill and decode, without KV transfer."""
        return self.declaration.mode == "colocated"

    def of(self, role: Role) -> tuple[Instance, ...]:
        return tuple(i for i in self.instances if i.role == role)

    @cached_property
    def first_by_name(self) -> Mapping[Role, Instance]:
        """The first instance of each role by its name: the same in whatever order the inventory has them."""
        ordered = sorted(self.instances, key=lambda instance: instance.name, reverse=True)
        return {instance.role: instance for instance in ordered}

    @property
    def topology(self) -> str:
        """The name of the topology, such as 1P1D."""
        if self.colocated:
            return "colocated"
        return f"{len(self.of('prefiller'))}P{len(self.of('decoder'))}D"


@dataclass(frozen=True)
class ValidCluster(Cluster):
    """A cluster without errors: each of its hosts has an address."""

    # Service address by host, for every host of the plan.
    addresses: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def checked(cls, cluster: Cluster) -> ValidCluster:
        """Return the same cluster as a valid one; call it only if no rule found an error."""
        addresses = cluster.declaration.addresses
        return cls(
            cluster.declaration,
            cluster.instances,
            cluster.proxies,
            cluster.by_host,
            {host: address for host, address in addresses.items() if address is not None},
        )


def canonical(flag: str) -> str:
    """Return a flag's name as vLLM's parser reads it: underscores and dashes are the same."""
    return flag.replace("_", "-")
