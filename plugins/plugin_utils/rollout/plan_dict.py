# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The plan as in plan.json and in the registered plan: every key, in its order.

Roles, templates and modules read these names: change them together.
"""

from __future__ import annotations

from typing import Any, TypedDict

from .fabric import Fabric
from .model import Colour, DpMode, MountDict, Protocol, ProvisionDict, Role
from .routers import Router


class EndpointDict(TypedDict):
    """An address and a port."""

    host: str
    port: int


class ReleaseDict(TypedDict):
    """vllm-ascend's release, and the versions of vLLM and CANN in its image."""

    name: str
    vllm: str
    cann: str


class ModelDict(TypedDict):
    path: str
    served_name: str


class ParallelDict(TypedDict):
    """Sizes in ranks; ``data_local`` is the head's."""

    tensor: int
    prefill_context: int
    decode_context: int
    pipeline: int
    data: int
    data_local: int


class InstanceDict(TypedDict):
    """One instance; ``nodes`` and ``engine_ids`` in the order of its node ranks."""

    name: str
    role: Role
    nodes: list[str]
    engine_ids: list[str]
    kv_port: int
    api_port: int
    dp_mode: DpMode
    profile: str
    parallel: ParallelDict


class PortDict(TypedDict):
    """A port, or a range of ports, of one host."""

    host: str
    first: int
    last: int
    purpose: str
    instance: str | None
    bound: bool
    protocol: str


class RankDict(TypedDict):
    """One data-parallel rank with an API server of its own."""

    rank: int
    chips: list[int]
    env: dict[str, str]
    argv: list[str]
    api: EndpointDict
    engine_id: str
    kv_port: int
    handshake_ports: list[int]


class ReadyNodeDict(TypedDict):
    host: str
    rank: int


class ReadyDict(TypedDict):
    """The nodes whose engines must run before the API answers."""

    nodes: list[ReadyNodeDict]


class ContainerDict(TypedDict):
    """The settings of an engine's container, except its script."""

    image: str
    devices: list[str]
    mounts: list[MountDict]
    shm_size: str


class EngineDict(TypedDict):
    """One engine on one host."""

    instance: str
    role: Role
    kv_role: str | None
    container: str
    node_rank: int
    nnodes: int
    headless: bool
    # Number of chips of the whole instance, and of one of its nodes.
    world_size: int
    local_world_size: int
    data_parallel_rank: int
    data_parallel_size_local: int
    chips: list[int]
    image: str
    devices: list[str]
    mounts: list[MountDict]
    shm_size: str
    env: dict[str, str]
    # With ranks, each rank has its own.
    argv: list[str]
    ranks: list[RankDict]
    script: str
    # Whether something in the script looks like a secret: then the script is not shown.
    secrets: bool
    script_path: str
    command: list[str]
    secret_path: str | None
    # None if the node is headless.
    api: EndpointDict | None
    # The address to which the nodes connect, if one rank spans them.
    master: EndpointDict | None
    engine_id: str
    kv_port: int
    handshake_ports: list[int]
    model_path: str
    served_model_name: str
    ready: ReadyDict
    # Whether the guard starts it again, instead of the Docker Engine.
    guarded: bool
    labels: dict[str, str]


class RuntimeDict(TypedDict):
    """What a router's container needs and its image lacks: wheels, unpacked into a directory."""

    path: str
    version: str
    # By architecture of the server: file names, with the SHA-256 of each.
    wheels: dict[str, dict[str, str]]


class ProxyDict(TypedDict):
    """A router on one host: the only one, or one of the two behind a front."""

    container: str
    colour: Colour | None
    router: Router
    image: str
    host: str
    port: int
    metrics_port: int | None
    argv: list[str]
    script: str
    # Whether something in the script looks like a secret: then the script is not shown.
    secrets: bool
    script_path: str
    command: list[str]
    mounts: list[MountDict]
    secret_path: str | None
    # None for the upstream script, which is in the image.
    runtime: RuntimeDict | None
    health_url: str
    # What the health check must report: the upstream script numbers of engines, vllm-router URLs by role.
    expected: dict[str, Any]
    labels: dict[str, str]


class AddressDict(TypedDict):
    """The address that fronts share: keepalived with a unit and a configuration of its own."""

    unit: str
    address: str
    # The server fills in the NIC that has its own address.
    config: str
    service: str
    # What keepalived runs to see whether the front serves.
    check: str


class FrontDict(TypedDict):
    """The front on one host: HAProxy with a unit and a configuration of its own."""

    unit: str
    # Its files, and those of a running one.
    directory: str
    run: str
    host: str
    port: int
    metrics_port: int
    # The name by which clients reach it; None: as the certificate says.
    name: str | None
    tls: bool
    # Whether clients need a key, and whether the front sends one to the engines.
    keys: bool
    engine_key: bool
    config: str
    service: str
    lua: str | None
    # None: the fronts share no address.
    shared: AddressDict | None
    # What it needs of the operating system's packages.
    packages: list[str]
    # Seconds for which a replaced router may finish its last requests.
    drain_timeout: int


class ListsDict(TypedDict):
    """The APIs behind a router."""

    prefillers: list[EndpointDict]
    decoders: list[EndpointDict]


class GuardServerDict(TypedDict):
    """Where the guard of another server listens."""

    address: str
    port: int


class GuardInstanceDict(TypedDict):
    """An instance as guards know it: its servers by rank, and all its APIs as ``address:port``."""

    name: str
    role: Role
    nodes: list[str]
    apis: list[str]


class GuardEngineDict(TypedDict):
    """An engine that a guard starts and stops; ``apis``: those of this node."""

    container: str
    instance: str
    role: Role
    node_rank: int
    apis: list[str]
    script_path: str


class GuardFrontDict(TypedDict):
    run: str
    directory: str
    drain_timeout: int


class GuardConfigDict(TypedDict):
    """What the guard of one server knows of the deployment; the role adds its timings."""

    deployment: str
    host: str
    address: str
    port: int
    directory: str
    release: str
    model: str
    protocol: Protocol
    # Where layerwise decoders reach it during a canary; None: they need not.
    listen: EndpointDict | None
    secret_path: str | None
    # The other servers of its instances, by name; on a router's server all that have engines.
    servers: dict[str, GuardServerDict]
    # Those with engines here; on a router's server all.
    instances: list[GuardInstanceDict]
    engines: list[GuardEngineDict]
    # The routers of this server as in its slice, without argv.
    routers: list[dict[str, Any]]
    front: GuardFrontDict | None
    # What the routers' scripts list; empty without a router.
    lists: ListsDict


class GuardDict(TypedDict):
    """The guard on one host: a program of the collection with a unit of its own."""

    unit: str
    # Its files, and those of a running one.
    directory: str
    run: str
    host: str
    port: int
    # The server fills in its Python.
    service: str
    config: GuardConfigDict


class EntryDict(TypedDict):
    """The entry point for clients on one host: the front, the router, or a colocated engine."""

    container: str
    scheme: str
    host: str
    port: int
    # The file with the key that clients must send; None if none, or if each has its own.
    secret_path: str | None


class Slice(TypedDict):
    """The part of the plan that one host needs."""

    address: str
    interface: str | None
    directory: str
    chips: list[int]
    ports: list[PortDict]
    peers: list[str]
    engines: list[EngineDict]
    # The router, or the first of the two behind the front.
    proxy: ProxyDict | None
    routers: list[ProxyDict]
    front: FrontDict | None
    guard: GuardDict | None
    entry: EntryDict | None


class BackendsDict(ListsDict):
    """The proxy's port, whether clients reach it through a front, and the APIs behind it."""

    router: Router
    port: int
    front: bool


class PlanDict(TypedDict):
    """A complete plan."""

    version: int
    # SHA-256 of all but the peers and the guards, which follow from the rest, and the sources of image and
    # weights.
    hash: str
    cluster: str
    deployment: str
    release: ReleaseDict
    image: str
    image_digest: str
    provision: ProvisionDict
    topology: str
    fabric: Fabric
    model: ModelDict
    connector: str
    protocol: Protocol
    api_key: bool
    proxy: BackendsDict
    instances: list[InstanceDict]
    findings: list[dict[str, Any]]
    ports: list[PortDict]
    hosts: dict[str, Slice]


# The keys of a plan, in order.
KEYS = tuple(PlanDict.__annotations__)
