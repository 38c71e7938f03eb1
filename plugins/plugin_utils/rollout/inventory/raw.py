# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The planner's input: groups and each host's variables, as the inventory has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model import ROLES, Role


@dataclass(frozen=True)
class Unreadable:
    """Placeholder for a variable whose expression could not be evaluated."""

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
    """The planner's input: instances, the proxy's hosts, and each host's variables."""

    cluster: str
    groups: tuple[RawGroup, ...]
    proxy_hosts: tuple[str, ...]
    hosts: Mapping[str, Mapping[str, Any]]
    # Hosts that are in a role group but in none of its instance groups, by role.
    stray: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupShape:
    """A group as in an inventory file: its own hosts, all hosts in order, and its child groups."""

    hosts: tuple[str, ...]
    all_hosts: tuple[str, ...]
    children: tuple[str, ...]


def raw_inventory(
    cluster: str,
    shapes: Mapping[str, GroupShape],
    hosts: Mapping[str, Mapping[str, Any]],
    member_variables: Callable[[str, str], Mapping[str, Any]] | None = None,
) -> RawInventory:
    """Build the planner's input from groups: each child group of a role group is an instance; a role group
    without child groups is one itself.

    ``member_variables(instance, host)`` returns the variables as that instance sees them, for hosts with
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


def plan_hosts(raw: RawInventory) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every host of the plan once, with its own variables: engines in plan order, then the proxy's."""
    names = [member.host for group in raw.groups for member in group.members]
    for host in dict.fromkeys([*names, *raw.proxy_hosts]):
        yield host, raw.hosts.get(host, {})
