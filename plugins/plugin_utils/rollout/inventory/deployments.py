# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The deployments of an inventory: each is planned separately, on its own servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..findings import Finding, shown
from ..rules.inventory import TWO_DEPLOYMENTS
from ..variables import DEPLOYMENT
from .raw import RawGroup, RawInventory, plan_hosts


def split(raw: RawInventory) -> dict[str, RawInventory]:
    """Split an inventory into its deployments, by name and in the inventory's order.

    Instances with different values of ``pd_deployment`` are planned separately. An inventory without that
    variable is one deployment.
    """
    parts: dict[str, tuple[list[RawGroup], list[str], dict[str, tuple[str, ...]]]] = {}

    def part(variables: Mapping[str, Any]) -> tuple[list[RawGroup], list[str], dict[str, tuple[str, ...]]]:
        return parts.setdefault(deployment_of(variables), ([], [], {}))

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
    # An instance without hosts has no variables: it is reported with the first deployment.
    next(iter(parts.values()))[0].extend(group for group in raw.groups if not group.members)
    return {
        name: replace(raw, groups=tuple(groups), proxy_hosts=tuple(proxies), stray=stray)
        for name, (groups, proxies, stray) in parts.items()
    }


def deployment_of(variables: Mapping[str, Any]) -> str:
    """Return the deployment that the variables name, or the default if the value is not text; the reader
    reports such values."""
    name = variables.get(DEPLOYMENT.name, DEPLOYMENT.default)
    return str(name) if isinstance(name, str) else DEPLOYMENT.default


def shared_servers(parts: Mapping[str, RawInventory]) -> Iterator[Finding]:
    """Yield a finding for each server and instance that is in more than one deployment."""
    for raw in parts.values():
        for group in raw.groups:
            inside = dict.fromkeys(deployment_of(member.variables) for member in group.members)
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
        for host, _ in plan_hosts(raw):
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
