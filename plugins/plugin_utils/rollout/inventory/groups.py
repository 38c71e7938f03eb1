# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of an inventory's groups and names: which groups are instances, and what they are called."""

from __future__ import annotations

from ..findings import shown
from ..model import ROLES, Role
from ..names import INSTANCE_EXPECTED, instance_allowed
from ..rules.inventory import (
    BAD_INSTANCE,
    EMPTY_INSTANCE,
    NO_INSTANCES,
    NO_PROXY,
    NOT_ONE_ENGINE,
    STRAY_HOST,
    TWO_ROLES,
    UNKNOWN_VARIABLE,
)
from ..values import did_you_mean
from ..variables import KNOWN, RUNTIME
from .raw import RawInventory, plan_hosts
from .reader import Reader


def check_names(raw: RawInventory, reader: Reader) -> None:
    for group in raw.groups:
        name = shown(group.name, 80)
        if not instance_allowed(group.name):
            reader.add(
                BAD_INSTANCE,
                f"the group name {name} is used in container and file names, but is not valid there",
                instance=name,
                seen=repr(group.name),
                expected=INSTANCE_EXPECTED,
            )
    for host, variables in plan_hosts(raw):
        for name in variables:
            if isinstance(name, str) and name.startswith("pd_") and name not in KNOWN and name not in RUNTIME:
                reader.add(
                    UNKNOWN_VARIABLE,
                    f"there is no variable {shown(name, 80)}{did_you_mean(name, KNOWN)}",
                    host=host,
                    variable=shown(name, 80),
                )


def check_roles(raw: RawInventory, reader: Reader) -> None:
    for role in ROLES:
        if not any(group.members for group in raw.groups if group.role == role):
            other = "decoder" if role == "prefiller" else "prefiller"
            reader.add(
                NO_INSTANCES,
                f"the group {role} has no hosts: a {other} alone cannot serve",
                instance=role,
                expected=f"at least one host in {role}",
            )
    if not raw.proxy_hosts:
        reader.add(NO_PROXY, "the group proxy has no hosts", expected="one host in proxy")


def check_colocated(raw: RawInventory, reader: Reader) -> None:
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
            f"{name} has hosts, but a colocated deployment uses the group decoder only",
            instance=name,
            variable="pd_mode",
            expected="hosts in decoder only",
        )


def check_groups(raw: RawInventory, reader: Reader) -> None:
    seen: dict[str, Role] = {}
    for group in raw.groups:
        if not group.members:
            reader.add(EMPTY_INSTANCE, f"the instance {group.name} has no hosts", instance=group.name)
        if group.name in seen:
            reader.add(
                TWO_ROLES,
                f"{group.name} is an instance of both {seen[group.name]} and {group.role}",
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
