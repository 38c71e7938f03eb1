# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""From raw variables to a typed declaration, with every finding about values, names and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..findings import Finding, shown
from ..model import CHIPS_OF, Declaration, Front, Group, Member, Provision, Server, Settings
from ..profiles import Profile, load_profile, profile_names
from ..releases import Release, load_release, release_names
from ..rules.inventory import DIFFERS_IN_CLUSTER, UNKNOWN_PROFILE, UNKNOWN_RELEASE
from ..values import did_you_mean
from ..variables import (
    API_PORT,
    CHIPS,
    CHIPS_PER_NODE,
    CONNECTOR,
    DEFAULT_PROFILE,
    DEFAULT_RELEASE,
    DP_MODE,
    DP_RPC_PORT,
    ENGINE_ARGS,
    ENGINE_ENV,
    ENGINE_ID,
    EXTRA_MOUNTS,
    INTERFACE,
    KV_EXTRA,
    KV_PORT,
    KV_TRANSFER,
    MASTER_PORT,
    MODEL_PATH,
    PARALLEL,
    PROFILE,
    RELEASE,
    SERVED_NAME,
    SHM_SIZE,
    VARIABLES,
    Variable,
)
from .addresses import service_address
from .groups import check_colocated, check_groups, check_names, check_roles
from .raw import RawInventory, RawMember, plan_hosts
from .reader import Reader

T = TypeVar("T")


def read(raw: RawInventory) -> tuple[Declaration, list[Finding]]:
    """Return the typed inventory and every finding about values, names and groups."""
    reader = Reader()
    check_names(raw, reader)
    shared = _cluster_values(raw, reader)
    release = _release(shared, reader)
    reader.release = release.name
    release_known = not any(key[1] == RELEASE.name for key in reader.troubles)
    addresses = {host: service_address(host, variables, reader) for host, variables in plan_hosts(raw)}
    groups = tuple(
        Group(
            group.name,
            group.role,
            tuple(
                Member(member.host, _settings(member, group.name, addresses, shared["pd_server"], reader))
                for member in group.members
            ),
        )
        for group in raw.groups
        if group.members
    )
    if shared["pd_mode"] == "colocated":
        check_colocated(raw, reader)
    else:
        check_roles(raw, reader)
    check_groups(raw, reader)
    image, digest = _pinned(
        shared["pd_image"]
        or _joined(shared["pd_image_registry"], release.image_of(shared["pd_server"] == "atlas-a3"))
    )
    declaration = Declaration(
        cluster=raw.cluster,
        deployment=shared["pd_deployment"],
        release=release,
        release_known=release_known,
        mode=shared["pd_mode"],
        server=shared["pd_server"],
        image=image,
        image_digest=digest,
        image_has_registry=shared["pd_image"] is not None or shared["pd_image_registry"] is not None,
        host_dir=shared["pd_host_dir"].rstrip("/"),
        plan_dir=shared["pd_plan_dir"],
        api_key=shared["pd_api_key"],
        proxy_port=shared["pd_proxy_port"],
        router=shared["pd_router"],
        router_args=shared["pd_router_args"],
        router_metrics_port=shared["pd_router_metrics_port"],
        front=_front(shared, raw),
        front_variables=_front_variables(raw),
        drain_timeout=shared["pd_drain_timeout"],
        guard_port=shared["pd_guard_port"] if shared["pd_guard"] else None,
        expected_concurrency=shared["pd_expected_concurrency"],
        provision=Provision(
            image_source=shared["pd_image_source"],
            image_archive=shared["pd_image_archive"],
            image_archive_remote_src=shared["pd_image_archive_remote_src"],
            weights_source=shared["pd_weights_source"],
            weights_verify=shared["pd_weights_verify"],
            router_wheels=shared["pd_router_wheels"],
        ),
        groups=groups,
        addresses=addresses,
        proxy_hosts=raw.proxy_hosts,
    )
    return declaration, list(reader.findings())


def _cluster_values(raw: RawInventory, reader: Reader) -> dict[str, Any]:
    """Return the cluster-wide variables, from the first host that sets them; a different value on another
    host is a finding."""
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        if variable.scope != "cluster":
            continue
        result, origin = variable.default, None
        for host, variables in plan_hosts(raw):
            if variable.name not in variables:
                continue
            unread: set[str] = set()
            value = reader.value(variable, variables, host, None, unread)
            if unread:
                continue
            if origin is None:
                result, origin = value, host
            elif value != result:
                secret = variable.private
                reader.add(
                    DIFFERS_IN_CLUSTER,
                    f"{variable.name} differs from its value on {origin}",
                    host=host,
                    variable=variable.name,
                    seen="(not shown)" if secret else value,
                    expected="(not shown)" if secret else shown(result),
                )
        values[variable.name] = result
    return values


def _front(shared: Mapping[str, Any], raw: RawInventory) -> Front | None:
    """Return the front; None if it has no port, or with a colocated engine, which has no router."""
    if shared["pd_front_port"] is None or shared["pd_mode"] == "colocated":
        return None
    return Front(
        port=shared["pd_front_port"],
        metrics_port=shared["pd_front_metrics_port"],
        name=shared["pd_front_name"],
        virtual_address=shared["pd_front_virtual_address"],
        tls=shared["pd_front_tls"],
        certificate=shared["pd_front_certificate"],
        certificate_key=shared["pd_front_certificate_key"],
        keys=shared["pd_front_api_keys"].names,
        short_keys=shared["pd_front_api_keys"].short,
        engine_keys=_engine_keys(raw),
        requests_per_minute=shared["pd_front_requests_per_minute"],
        body_limit=shared["pd_front_max_body"],
        answer_timeout=shared["pd_front_answer_timeout"],
        request_timeout=shared["pd_front_request_timeout"],
        idle_timeout=shared["pd_front_idle_timeout"],
        connections=shared["pd_front_connections"],
    )


def _front_variables(raw: RawInventory) -> tuple[str, ...]:
    """Return the names of the front's variables that are set on any host."""
    return tuple(
        variable.name
        for variable in VARIABLES
        if variable.name.startswith("pd_front_")
        and any(variables.get(variable.name) not in (None, "", {}) for _, variables in plan_hosts(raw))
    )


def _engine_keys(raw: RawInventory) -> tuple[str, ...]:
    """Return the names of the clients' keys that are the engines' own."""
    names: dict[str, None] = {}
    for _, variables in plan_hosts(raw):
        keys, own = variables.get("pd_front_api_keys"), variables.get("pd_api_key")
        if isinstance(keys, Mapping) and isinstance(own, str) and own:
            names.update({str(name): None for name, key in keys.items() if key == own})
    return tuple(names)


def _release(shared: Mapping[str, Any], reader: Reader) -> Release:
    name = shared[RELEASE.name]
    try:
        return load_release(name)
    except KeyError:
        reader.add(
            UNKNOWN_RELEASE,
            f"no data for release {shown(name, 60)}{did_you_mean(name, release_names())}",
            variable="pd_release",
            seen=name,
            expected=", ".join(release_names()),
        )
        return load_release(DEFAULT_RELEASE)


def _settings(
    member: RawMember,
    instance: str,
    addresses: Mapping[str, str | None],
    server: Server,
    reader: Reader,
) -> Settings:
    unread: set[str] = set()
    host = member.host

    def value(variable: Variable[T]) -> T:
        return reader.value(variable, member.variables, host, instance, unread)

    return Settings(
        host=host,
        address=addresses.get(host),
        interface=value(INTERFACE),
        chips_per_node=value(CHIPS_PER_NODE) if CHIPS_PER_NODE.name in member.variables else CHIPS_OF[server],
        chips=value(CHIPS),
        parallel=value(PARALLEL),
        dp_mode=value(DP_MODE),
        api_port=value(API_PORT),
        master_port=value(MASTER_PORT),
        dp_rpc_port=value(DP_RPC_PORT),
        kv_port=value(KV_PORT),
        engine_id=value(ENGINE_ID),
        connector=value(CONNECTOR),
        kv_transfer_config=value(KV_TRANSFER),
        kv_extra_config=value(KV_EXTRA),
        engine_env=value(ENGINE_ENV),
        engine_args=value(ENGINE_ARGS),
        profile=_profile(value(PROFILE), host, instance, unread, reader),
        model_path=value(MODEL_PATH),
        served_model_name=value(SERVED_NAME),
        extra_mounts=value(EXTRA_MOUNTS),
        shm_size=value(SHM_SIZE),
        unread=frozenset(unread),
    )


def _profile(name: str, host: str, instance: str, unread: set[str], reader: Reader) -> Profile:
    try:
        return load_profile(name, reader.release)
    except KeyError:
        unread.add("pd_profile")
        reader.add(
            UNKNOWN_PROFILE,
            f"there is no profile {shown(name, 60)}{did_you_mean(name, profile_names())}",
            host=host,
            instance=instance,
            variable="pd_profile",
            seen=name,
            expected=", ".join(profile_names()),
        )
        return load_profile(DEFAULT_PROFILE, reader.release)


def _pinned(image: str) -> tuple[str, str]:
    """Return the name that an image has on the servers, and its digest (empty without one).

    Loading an archive does not keep a name with a digest, so an image without a tag gets a tag made from its
    digest.
    """
    name, _, digest = image.partition("@")
    if digest and ":" not in name.rpartition("/")[2]:
        name += f":pinned-{digest.removeprefix('sha256:')[:12]}"
    return name, digest


def _joined(registry: str | None, image: str) -> str:
    return f"{registry.rstrip('/')}/{image}" if registry else image
