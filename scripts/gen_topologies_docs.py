#!/usr/bin/env python3
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/topologies.md with its pictures, from the shipped inventories' plans.

With --check: only say whether they are current.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from doc_generator import ROOT, main

_AnsibleCollectionFinder(paths=[str(ROOT / ".collections"), sysconfig.get_paths()["purelib"]])._install()

from ansible_collections.ascend.pd_rollout.plugins.action.plan import read_inventory  # noqa: E402
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import diagram, plan  # noqa: E402
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.ports import span  # noqa: E402

# What each shipped inventory is for.
INVENTORIES = {
    "guide_1p1d": "The long-sequence guide of v0.13.0 to the letter, for study.",
    "atlas_a3_1p1d": "The same cluster as we recommend it: long prompts, a prefiller on two servers.",
    "atlas_a3_2p1d_external_dp": "Many requests at once: two prefillers, one decoder of two servers, "
    "an API server for each data-parallel rank.",
    "atlas_a3_1p1d_dp2": "The smallest cluster for a model of DeepSeek-V3.1's size: a server for each role, "
    "two data-parallel ranks on each.",
    "atlas_a3_single_server": "Both roles on one server, eight chips each, for a model that fits into eight.",
    "atlas_a3_2p2d": "Long prompts and more of them: two prefillers of two servers each, two decoders.",
}

HEAD = ROOT / "scripts" / "topologies_head.md"


def planned(name: str) -> dict[str, Any]:
    """The plan of a shipped inventory."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(ROOT / "inventory" / name)])
    variables = VariableManager(loader=loader, inventory=inventory)
    made: dict[str, Any] = plan.make(
        read_inventory({"hostvars": HostVars(inventory, variables, loader)})
    ).to_dict()
    return made


def drawn(made: Mapping[str, Any]) -> str:
    """The diagram of a plan, without its hash, which changes with every flag."""
    text: str = diagram.svg({**made, "hash": ""})
    return text


def documents() -> dict[str, str]:
    """The page and its pictures."""
    plans = {name: planned(name) for name in INVENTORIES}
    lines = [HEAD.read_text(encoding="utf-8")]
    for name, made in plans.items():
        lines.extend(_section(name, made))
    return {
        "docs/topologies.md": "\n".join(lines).rstrip() + "\n",
        **{f"docs/topologies/{name}.svg": drawn(made) for name, made in plans.items()},
    }


def _section(name: str, made: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield f"{INVENTORIES[name]} [`inventory/{name}`](../inventory/{name})"
    yield ""
    yield f"![{made['topology']}](topologies/{name}.svg)"
    yield ""
    yield "| instance | role | sizes | servers | engine ids |"
    yield "|---|---|---|---|---|"
    for one in made["instances"]:
        yield (
            "| "
            + " | ".join(
                (
                    one["name"],
                    one["role"],
                    diagram.sizes(one["parallel"]),
                    ", ".join(one["nodes"]),
                    ", ".join(one["engine_ids"]),
                )
            )
            + " |"
        )
    yield ""
    yield "| server | port | who listens | instance |"
    yield "|---|---|---|---|"
    for row in made["ports"]:
        if row["bound"]:
            ports = span(row["first"], row["last"])
            yield f"| {row['host']} | {ports} | {row['purpose']} | {row['instance'] or ''} |"
    yield ""


if __name__ == "__main__":
    sys.exit(main(documents))
