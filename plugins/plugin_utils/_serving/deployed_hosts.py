# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which servers a deployment was launched on, noted beside its plan.

A server that is taken out of the inventory keeps its containers, and no playbook reaches it any longer: only
this note still knows it. stop.yml takes a server out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "deployed.json"

_KEYS = {"address", "directory", "containers"}

Hosts = dict[str, dict[str, Any]]


def of_plan(plan: Mapping[str, Any]) -> Hosts:
    """The hosts of a plan that have containers."""
    return {
        name: {"address": share["address"], "directory": share["directory"], "containers": containers}
        for name, share in plan["hosts"].items()
        if (containers := [part["container"] for part in (*share["engines"], share["proxy"]) if part])
    }


def read(directory: Path) -> Hosts:
    """What is noted there; where nothing is, as by earlier releases, the hosts of the last plan."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        noted = json.loads((directory / FILE).read_text(encoding="utf-8"))["hosts"]
        return {name: entry for name, entry in noted.items() if entry.keys() >= _KEYS}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        planned = of_plan(json.loads((directory / "plan.json").read_text(encoding="utf-8")))
        return {name: {**entry, "launched": False} for name, entry in planned.items()}
    return {}


def outside(known: Hosts, plan: Mapping[str, Any]) -> Hosts:
    """Those that the plan does not have. A server under another name is still there, and is looked after."""
    addresses = {share["address"] for share in plan["hosts"].values()}
    return {
        name: entry
        for name, entry in known.items()
        if name not in plan["hosts"] and entry.get("address") not in addresses
    }


def unnoted(directory: Path, plan: Mapping[str, Any]) -> list[str]:
    """The hosts of a plan that are not noted, or otherwise than in this plan."""
    known = read(directory) if (directory / FILE).exists() else {}
    return [name for name, entry in of_plan(plan).items() if known.get(name) != entry]


def note(directory: Path, plan: Mapping[str, Any], hosts: Iterable[str], left: Hosts) -> bool:
    """Add hosts of the plan, and those that are known to be outside of it; whether that changes anything."""
    here = set(hosts)
    launched = {name: entry for name, entry in of_plan(plan).items() if name in here}
    known = read(directory) if (directory / FILE).exists() else {}
    return _write(directory, known, {**known, **left, **launched})


def forget(directory: Path, hosts: Iterable[str]) -> bool:
    """Take hosts out of the note; whether that changes anything."""
    if not (directory / FILE).exists():
        return False
    known, gone = read(directory), set(hosts)
    return _write(directory, known, {name: entry for name, entry in known.items() if name not in gone})


def _write(directory: Path, before: Hosts, after: Hosts) -> bool:
    if before == after:
        return False
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"{FILE}.part"
    part.write_text(
        json.dumps({"version": 1, "hosts": after}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    part.chmod(0o600)
    part.replace(directory / FILE)
    return True
