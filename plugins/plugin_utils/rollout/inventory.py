# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reading an inventory: raw variables in, typed settings and findings out.

Nothing here raises on bad input: a value that cannot be read is reported and replaced by its default, so
that the rules still see the rest and all findings come at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .findings import ERROR, HINT, Finding, Rule, declare, shown
from .model import CHIPS_OF, ROLES, Declaration, Group, Member, Role, Server, Settings
from .names import INSTANCE_EXPECTED, instance_allowed
from .profiles import Profile, load_profile, profile_names
from .releases import Release, load_release, release_names
from .secrecy import masked
from .values import BadValue, did_you_mean
from .variables import (
    API_KEY,
    API_PORT,
    CHIPS,
    CHIPS_PER_NODE,
    CONNECTOR,
    DEFAULT_PROFILE,
    DEFAULT_RELEASE,
    DEPLOYMENT,
    DP_MODE,
    DP_RPC_PORT,
    ENGINE_ARGS,
    ENGINE_ENV,
    ENGINE_ID,
    EXTRA_MOUNTS,
    INTERFACE,
    KNOWN,
    KV_EXTRA,
    KV_PORT,
    KV_TRANSFER,
    MASTER_PORT,
    MODEL_PATH,
    PARALLEL,
    PROFILE,
    RELEASE,
    RUNTIME,
    SERVED_NAME,
    SHM_SIZE,
    VARIABLES,
    Variable,
)

T = TypeVar("T")

_CONTRACT = "docs/variables.md"

UNKNOWN_VARIABLE = declare(
    "PD101",
    ERROR,
    "Every pd_ variable is one the collection knows",
    cure="correct the name, or remove the variable",
    source=_CONTRACT,
)
BAD_VALUE = declare(
    "PD102",
    ERROR,
    "Every variable has the type and range it is documented with",
    cure="correct the value",
    source=_CONTRACT,
)
MISSING = declare(
    "PD103",
    ERROR,
    "Required variables are set",
    cure="set it in group_vars/all",
    source=_CONTRACT,
)
UNREADABLE = declare(
    "PD104",
    ERROR,
    "Every variable can be evaluated",
    cure="correct the expression, or supply what it refers to",
    source=_CONTRACT,
)
UNKNOWN_RELEASE = declare(
    "PD105",
    ERROR,
    "pd_release names a release that the collection has data for",
    cure="use a known release",
    source="plugins/plugin_utils/rollout/data/releases",
)
UNKNOWN_PROFILE = declare(
    "PD106",
    ERROR,
    "pd_profile names a profile that exists",
    cure="use a known profile, or generic and pd_engine_args",
    source="plugins/plugin_utils/rollout/data/profiles",
)
DIFFERS_IN_CLUSTER = declare(
    "PD107",
    ERROR,
    "Variables of the whole cluster have one value",
    cure="set it once, in group_vars/all",
    source=_CONTRACT,
)
NUMBER_AS_TEXT = declare(
    "PD109",
    HINT,
    "A number is written as a number, not as text",
    cure="remove the quotes; with -e give it as JSON, such as -e '{\"pd_proxy_port\": 8006}'",
    source=_CONTRACT,
)
NO_INSTANCES = declare(
    "PD110",
    ERROR,
    "There is a prefiller and a decoder: neither serves without the other",
    cure="put hosts into both groups, prefiller and decoder",
    source="A@v0.13.0:docs/source/tutorials/pd_disaggregation_mooncake_multi_node.md",
)
EMPTY_INSTANCE = declare(
    "PD111",
    ERROR,
    "Every instance has a host",
    cure="put hosts into the group, or remove it",
    source=_CONTRACT,
)
STRAY_HOST = declare(
    "PD112",
    ERROR,
    "Where a role has instance groups, each of its hosts is in one of them",
    cure="move the host into one of the instance groups",
    source=_CONTRACT,
)
TWO_ROLES = declare(
    "PD113",
    ERROR,
    "An instance has one role and one name",
    cure="make one group for each role",
    source=_CONTRACT,
)
NO_PROXY = declare(
    "PD114",
    ERROR,
    "One host runs the proxy",
    cure="put the head of a prefiller into the group proxy",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md",
)
TWO_DEPLOYMENTS = declare(
    "PD118",
    ERROR,
    "A server belongs to one deployment, and so does an instance",
    cure="set pd_deployment for whole instances, and give each deployment servers of its own",
    source="docs/topologies.md",
)
NOT_ONE_ENGINE = declare(
    "PD119",
    ERROR,
    "With pd_mode colocated there is one engine, in the group decoder, and nothing else",
    cure="empty the groups prefiller and proxy, or set pd_mode to disaggregated",
    source="docs/topologies.md",
)
NO_ADDRESS = declare(
    "PD121",
    ERROR,
    "Every host has a service address",
    cure="set ansible_host or pd_node_ip to the server's IPv4 address",
    source="A@v0.13.0:docs/source/tutorials/long_sequence_context_parallel_multi_node.md (HCCL_IF_IP)",
)
NOT_IPV4 = declare(
    "PD122",
    ERROR,
    "Service addresses are IPv4 addresses that other hosts can reach",
    cure="set pd_node_ip to the server's IPv4 address on the service network",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_transfer_engine.py",
)
IPV6 = declare(
    "PD123",
    ERROR,
    "Service addresses are not IPv6",
    cure="set pd_node_ip to the server's IPv4 address",
    source="A@v0.13.0:vllm_ascend/distributed/mooncake_transfer_engine.py",
)
BAD_INSTANCE = declare(
    "PD130",
    ERROR,
    "The name of an instance can be that of a container and of a file",
    cure="give the group another name; letters, digits, dots, dashes and underscores are fine",
    source="docs/variables.md (names)",
)


@dataclass(frozen=True)
class Unreadable:
    """Stands for a variable whose expression could not be evaluated."""

    reason: str


@dataclass(frozen=True)
class RawMember:
    host: str
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class RawGroup:
    name: str
    role: Role
    members: tuple[RawMember, ...]


@dataclass(frozen=True)
class RawInventory:
    """What the planner is given: instances, the proxy's hosts, and each host's variables."""

    cluster: str
    groups: tuple[RawGroup, ...]
    proxy_hosts: tuple[str, ...]
    hosts: Mapping[str, Mapping[str, Any]]
    # Hosts that stand in a role group beside its instance groups, by role.
    stray: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupShape:
    """A group as an inventory file writes it: hosts of its own, all hosts in order, and child groups."""

    hosts: tuple[str, ...]
    all_hosts: tuple[str, ...]
    children: tuple[str, ...]


def raw_inventory(
    cluster: str,
    shapes: Mapping[str, GroupShape],
    hosts: Mapping[str, Mapping[str, Any]],
    member_variables: Callable[[str, str], Mapping[str, Any]] | None = None,
) -> RawInventory:
    """Instances from groups: each child of a role group is one; a role group without children is one itself.

    ``member_variables(instance, host)`` gives the variables as that instance sees them, where a host has
    several instances.
    """
    groups: list[RawGroup] = []
    stray: dict[str, tuple[str, ...]] = {}
    nothing = GroupShape((), (), ())
    for role in ROLES:
        shape = shapes.get(role, nothing)
        names = shape.children or ((role,) if shape.hosts else ())
        if shape.children:
            covered = {host for child in shape.children for host in shapes.get(child, nothing).all_hosts}
            lost = tuple(host for host in shape.hosts if host not in covered)
            if lost:
                stray[role] = lost
        for name in names:
            members = []
            for host in dict.fromkeys(shapes.get(name, nothing).all_hosts):
                variables = hosts.get(host, {}) if member_variables is None else member_variables(name, host)
                members.append(RawMember(host, variables))
            groups.append(RawGroup(name, role, tuple(members)))
    proxies = tuple(dict.fromkeys(shapes.get("proxy", nothing).all_hosts))
    return RawInventory(cluster, tuple(groups), proxies, hosts, stray)


def split(raw: RawInventory) -> dict[str, RawInventory]:
    """The deployments of an inventory by name, in the order of the inventory: what has another
    ``pd_deployment`` is planned for itself. An inventory without that variable is one."""
    parts: dict[str, tuple[list[RawGroup], list[str], dict[str, tuple[str, ...]]]] = {}

    def part(variables: Mapping[str, Any]) -> tuple[list[RawGroup], list[str], dict[str, tuple[str, ...]]]:
        return parts.setdefault(_deployment(variables), ([], [], {}))

    for group in raw.groups:
        if group.members:
            part(group.members[0].variables)[0].append(group)
    for host in raw.proxy_hosts:
        part(raw.hosts.get(host, {}))[1].append(host)
    for role, strays in raw.stray.items():
        for host in strays:
            stray = part(raw.hosts.get(host, {}))[2]
            stray[role] = (*stray.get(role, ()), host)
    if len(parts) < 2:
        return {next(iter(parts), DEPLOYMENT.default): raw}
    # An instance without hosts has no variables: the first deployment tells of it.
    next(iter(parts.values()))[0].extend(group for group in raw.groups if not group.members)
    return {
        name: replace(raw, groups=tuple(groups), proxy_hosts=tuple(proxies), stray=stray)
        for name, (groups, proxies, stray) in parts.items()
    }


def _deployment(variables: Mapping[str, Any]) -> str:
    """The deployment that variables name. A value that cannot be read is a finding of the reader, wherever it
    stands."""
    name = variables.get(DEPLOYMENT.name, DEPLOYMENT.default)
    return str(name) if isinstance(name, str) else DEPLOYMENT.default


def shared_servers(parts: Mapping[str, RawInventory]) -> Iterator[Finding]:
    """Servers and instances that stand in more than one deployment."""
    for raw in parts.values():
        for group in raw.groups:
            inside = dict.fromkeys(_deployment(member.variables) for member in group.members)
            if len(inside) > 1:
                yield TWO_DEPLOYMENTS.at(
                    f"the hosts of {group.name} are in the deployments {shown(', '.join(inside))}",
                    instance=group.name,
                    variable=DEPLOYMENT.name,
                    seen=", ".join(inside),
                    expected="one deployment",
                )
    owners: dict[str, list[str]] = {}
    for name, raw in parts.items():
        for host, _ in _plan_hosts(raw):
            owners.setdefault(host, []).append(name)
    for host, names in owners.items():
        if len(names) > 1:
            yield TWO_DEPLOYMENTS.at(
                f"the host is in the deployments {shown(', '.join(names))}",
                host=host,
                variable=DEPLOYMENT.name,
                seen=", ".join(names),
                expected="one deployment",
            )


@dataclass
class _Reader:
    """Collects what is wrong; the same trouble on many hosts becomes one finding."""

    # The release in whose form profiles are read.
    release: str = DEFAULT_RELEASE
    # (rule, variable, message, seen, expected, cure) -> places
    troubles: dict[
        tuple[Rule, str | None, str, str | None, str | None, str | None], list[tuple[str | None, str | None]]
    ] = field(default_factory=dict)

    def add(
        self,
        rule: Rule,
        message: str,
        *,
        host: str | None = None,
        instance: str | None = None,
        variable: str | None = None,
        seen: object = None,
        expected: str | None = None,
        cure: str | None = None,
    ) -> None:
        key = (rule, variable, message, None if seen is None else shown(seen), expected, cure)
        self.troubles.setdefault(key, []).append((host, instance))

    def findings(self) -> Iterator[Finding]:
        for (rule, variable, message, seen, expected, cure), places in self.troubles.items():
            hosts = list(dict.fromkeys(host for host, _ in places if host is not None))
            instances = list(dict.fromkeys(instance for _, instance in places if instance is not None))
            if len(hosts) > 1:
                more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
                message += f" (on {', '.join(hosts[:3])}{more})"
            yield rule.at(
                message,
                host=hosts[0] if len(hosts) == 1 else None,
                instance=instances[0] if len(instances) == 1 else None,
                variable=variable,
                seen=seen,
                expected=expected,
                cure=cure,
            )

    def value(
        self,
        variable: Variable[T],
        variables: Mapping[str, Any],
        host: str | None,
        instance: str | None,
        unread: set[str],
    ) -> T:
        """The variable's value there, its default where it is not set or cannot be read."""
        missing = object()
        raw = variables.get(variable.name, missing)
        if raw is missing or (variable.required and raw in (None, "")):
            if variable.required:
                unread.add(variable.name)
                self.add(
                    MISSING,
                    f"{variable.name} is not set",
                    host=host,
                    instance=instance,
                    variable=variable.name,
                )
            return variable.default
        if isinstance(raw, Unreadable):
            unread.add(variable.name)
            self.add(
                UNREADABLE,
                f"{variable.name} cannot be evaluated: {shown(masked(raw.reason), 300)}",
                host=host,
                instance=instance,
                variable=variable.name,
            )
            return variable.default
        try:
            value = variable.read(raw)
            if type(value) is int and isinstance(raw, str) and not variable.private:
                self.add(
                    NUMBER_AS_TEXT,
                    f"{variable.name} is text that reads as a number, and is taken for it",
                    host=host,
                    instance=instance,
                    variable=variable.name,
                    seen=repr(str(raw)),
                    expected=str(value),
                )
            return value
        except BadValue as error:
            unread.add(variable.name)
            self.add(
                BAD_VALUE,
                error.message or f"{variable.name} has a value that it cannot have",
                host=host,
                instance=instance,
                variable=variable.name,
                seen=error.seen or ("(not shown)" if variable.private else raw),
                expected=error.expected,
            )
            return variable.default


def read(raw: RawInventory) -> tuple[Declaration, list[Finding]]:
    """The inventory, typed, with every finding about values, names and groups."""
    reader = _Reader()
    _check_names(raw, reader)
    shared = _cluster_values(raw, reader)
    release = _release(shared, reader)
    reader.release = release.name
    release_known = not any(key[1] == RELEASE.name for key in reader.troubles)
    addresses = {host: _address(host, variables, reader) for host, variables in _plan_hosts(raw)}
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
        _check_colocated(raw, reader)
    else:
        _check_roles(raw, reader)
    _check_groups(raw, reader)
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
        expected_concurrency=shared["pd_expected_concurrency"],
        groups=groups,
        addresses=addresses,
        proxy_hosts=raw.proxy_hosts,
    )
    return declaration, list(reader.findings())


def _pinned(image: str) -> tuple[str, str]:
    """The name that an image has on servers, and its digest.

    An archive that is loaded keeps no name with a digest, so without a tag the image gets one made of it.
    """
    name, _, digest = image.partition("@")
    if digest and ":" not in name.rpartition("/")[2]:
        name += f":pinned-{digest.removeprefix('sha256:')[:12]}"
    return name, digest


def _joined(registry: str | None, image: str) -> str:
    return f"{registry.rstrip('/')}/{image}" if registry else image


def _plan_hosts(raw: RawInventory) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every host of the plan once, with its own variables: engines in plan order, then the proxy's."""
    names = [member.host for group in raw.groups for member in group.members]
    for host in dict.fromkeys([*names, *raw.proxy_hosts]):
        yield host, raw.hosts.get(host, {})


def _check_names(raw: RawInventory, reader: _Reader) -> None:
    for group in raw.groups:
        name = shown(group.name, 80)
        if not instance_allowed(group.name):
            reader.add(
                BAD_INSTANCE,
                f"the group {name} names containers and files, and cannot",
                instance=name,
                seen=repr(group.name),
                expected=INSTANCE_EXPECTED,
            )
    for host, variables in _plan_hosts(raw):
        for name in variables:
            if isinstance(name, str) and name.startswith("pd_") and name not in KNOWN and name not in RUNTIME:
                reader.add(
                    UNKNOWN_VARIABLE,
                    f"no variable is called {shown(name, 80)}{did_you_mean(name, KNOWN)}",
                    host=host,
                    variable=shown(name, 80),
                )


def _cluster_values(raw: RawInventory, reader: _Reader) -> dict[str, Any]:
    """The variables that a cluster has once: from the first host that sets them; another value elsewhere is
    a finding."""
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        if variable.scope != "cluster":
            continue
        result, origin = variable.default, None
        for host, variables in _plan_hosts(raw):
            if variable.name not in variables:
                continue
            unread: set[str] = set()
            value = reader.value(variable, variables, host, None, unread)
            if unread:
                continue
            if origin is None:
                result, origin = value, host
            elif value != result:
                secret = variable is API_KEY
                reader.add(
                    DIFFERS_IN_CLUSTER,
                    f"{variable.name} has another value than on {origin}",
                    host=host,
                    variable=variable.name,
                    seen="(not shown)" if secret else value,
                    expected="(not shown)" if secret else shown(result),
                )
        values[variable.name] = result
    return values


def _release(shared: Mapping[str, Any], reader: _Reader) -> Release:
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


def _profile(name: str, host: str, instance: str, unread: set[str], reader: _Reader) -> Profile:
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


def _address(host: str, variables: Mapping[str, Any], reader: _Reader) -> str | None:
    """The host's service address: pd_node_ip, else ansible_host, else its name where that is an address."""
    for variable in ("pd_node_ip", "ansible_host"):
        raw = variables.get(variable)
        if raw is None or raw == "":
            continue
        if isinstance(raw, Unreadable):
            reader.add(
                UNREADABLE,
                f"{variable} cannot be evaluated: {shown(raw.reason, 300)}",
                host=host,
                variable=variable,
            )
            return None
        return _ipv4(host, variable, raw, reader)
    if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", host):
        return _ipv4(host, None, host, reader)
    reader.add(NO_ADDRESS, "the host has no address", host=host, variable="ansible_host")
    return None


def _ipv4(host: str, variable: str | None, raw: Any, reader: _Reader) -> str | None:
    seen = str(raw) if isinstance(raw, str) else raw
    try:
        if not isinstance(raw, str):
            raise ValueError
        address = ipaddress.ip_address(str(raw).strip().strip("[]"))
    except ValueError:
        reader.add(
            NOT_IPV4,
            "the engine is given an address, and this is none",
            host=host,
            variable=variable,
            seen=seen,
            expected="an IPv4 address",
        )
        return None
    if address.version == 6:
        reader.add(
            IPV6,
            "The backend of mooncake's Ascend Direct Xfer Library currently does not support IPv6.",
            host=host,
            variable=variable,
            seen=seen,
            expected="an IPv4 address",
        )
        return None
    if (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or str(address) == "255.255.255.255"
    ):
        reader.add(
            NOT_IPV4,
            "no other host can reach this address",
            host=host,
            variable=variable,
            seen=seen,
            expected="the server's address on the service network",
        )
        return None
    return str(address)


def _settings(
    member: RawMember,
    instance: str,
    addresses: Mapping[str, str | None],
    server: Server,
    reader: _Reader,
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


def _check_roles(raw: RawInventory, reader: _Reader) -> None:
    for role in ROLES:
        if not any(group.members for group in raw.groups if group.role == role):
            other = "decoder" if role == "prefiller" else "prefiller"
            reader.add(
                NO_INSTANCES,
                f"no host is in the group {role}: a {other} alone serves nothing",
                instance=role,
                expected=f"at least one host in {role}",
            )
    if not raw.proxy_hosts:
        reader.add(NO_PROXY, "no host is in the group proxy", expected="one host in proxy")


def _check_colocated(raw: RawInventory, reader: _Reader) -> None:
    engines = [group for group in raw.groups if group.members and group.role == "decoder"]
    if len(engines) != 1:
        reader.add(
            NOT_ONE_ENGINE,
            f"the group decoder has {len(engines)} instances",
            instance="decoder",
            variable="pd_mode",
            expected="one instance in decoder",
        )
    others = [group.name for group in raw.groups if group.members and group.role == "prefiller"]
    others += ["proxy"] if raw.proxy_hosts else []
    for name in others:
        reader.add(
            NOT_ONE_ENGINE,
            f"{name} has hosts, and the one engine in decoder has no use for them",
            instance=name,
            variable="pd_mode",
            expected="hosts in decoder only",
        )


def _check_groups(raw: RawInventory, reader: _Reader) -> None:
    seen: dict[str, Role] = {}
    for group in raw.groups:
        if not group.members:
            reader.add(EMPTY_INSTANCE, f"the instance {group.name} has no hosts", instance=group.name)
        if group.name in seen:
            reader.add(
                TWO_ROLES,
                f"{group.name} is an instance of {seen[group.name]} and of {group.role}",
                instance=group.name,
            )
        seen[group.name] = group.role
    for role_name, hosts in raw.stray.items():
        for host in hosts:
            reader.add(
                STRAY_HOST,
                f"the host is in {role_name} but in none of its instances",
                host=host,
                instance=role_name,
            )
