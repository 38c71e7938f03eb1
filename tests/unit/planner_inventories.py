# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Inventories for the tests: a good one in a few lines, and the shipped ones as Ansible reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.ascend.pd_rollout.plugins.action.plan import read_inventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import Finding, PlanError
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    RawInventory,
    raw_inventory,
)

ROOT = Path(__file__).resolve().parents[2]

EVERYWHERE: dict[str, Any] = {
    "pd_image": "registry.example/vllm-ascend:v0.13.0-a3",
    "pd_model_path": "/weights/model",
    "pd_served_model_name": "model",
}
PREFILLER = {"pd_parallel": {"tensor": 16, "prefill_context": 2, "decode_context": 8}}
DECODER = {"pd_parallel": {"tensor": 16}}


def small(
    everywhere: Mapping[str, Any] | None = None,
    prefiller: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    hosts: Mapping[str, Mapping[str, Any]] | None = None,
    proxy: tuple[str, ...] = ("p1",),
) -> RawInventory:
    """The guide's topology on p1, p2 and d1, with changes; a value ... takes a variable away."""

    def variables(
        host: str, number: int, role: Mapping[str, Any], changes: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        merged = {
            "ansible_host": f"198.51.100.{number}",
            **EVERYWHERE,
            **role,
            **(everywhere or {}),
            **(changes or {}),
            **(hosts or {}).get(host, {}),
        }
        return {name: value for name, value in merged.items() if value is not ...}

    return raw_inventory(
        "small",
        {
            "prefiller": GroupShape(("p1", "p2"), ("p1", "p2"), ()),
            "decoder": GroupShape(("d1",), ("d1",), ()),
            "proxy": GroupShape(proxy, proxy, ()),
        },
        {
            "p1": variables("p1", 1, PREFILLER, prefiller),
            "p2": variables("p2", 2, PREFILLER, prefiller),
            "d1": variables("d1", 3, DECODER, decoder),
        },
    )


def many(
    instances: Mapping[str, list[tuple[str, list[str], Mapping[str, Any]]]],
    hosts: Mapping[str, Mapping[str, Any]] | None = None,
    everywhere: Mapping[str, Any] | None = None,
    *,
    proxy: bool = True,
) -> RawInventory:
    """Instances by role, each a name, hosts and variables; a host may be in several."""
    shapes: dict[str, GroupShape] = {}
    own: dict[str, Mapping[str, Any]] = {}
    names: dict[str, None] = {}
    for role, listed in instances.items():
        shapes[role] = GroupShape(
            (), tuple(h for _, hs, _ in listed for h in hs), tuple(n for n, _, _ in listed)
        )
        for name, members, variables in listed:
            shapes[name] = GroupShape(tuple(members), tuple(members), ())
            own[name] = variables
            names.update(dict.fromkeys(members))
    first = next(iter(names))
    proxies = (first,) if proxy else ()
    shapes["proxy"] = GroupShape(proxies, proxies, ())
    base = {
        host: {
            "ansible_host": f"10.{1 + i // 62500}.{i // 250 % 250}.{1 + i % 250}",
            **EVERYWHERE,
            **(everywhere or {}),
            **(hosts or {}).get(host, {}),
        }
        for i, host in enumerate(names)
    }
    return raw_inventory("many", shapes, base, lambda instance, host: {**base[host], **own[instance]})


def findings(raw: RawInventory, topology: str | None = None) -> tuple[Finding, ...]:
    """Every finding, whether they stop the plan or not."""
    try:
        return planner.make(raw, topology).findings
    except PlanError as error:
        return tuple(error.findings)


def codes(raw: RawInventory, topology: str | None = None) -> set[str]:
    return {finding.code for finding in findings(raw, topology)}


def shipped(name: str) -> RawInventory:
    """One of the inventories of the collection, as the action plugin reads it."""
    return from_files(ROOT / "inventory" / name)


def from_files(source: Path) -> RawInventory:
    """An inventory's file or directory, as the action plugin reads it."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(source)])
    variables = VariableManager(loader=loader, inventory=inventory)
    return read_inventory({"hostvars": HostVars(inventory, variables, loader)})
