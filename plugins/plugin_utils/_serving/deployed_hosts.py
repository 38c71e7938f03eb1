# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The record of the servers on which a deployment was launched, beside its plan.

A server that is removed from the inventory keeps its containers, and no playbook reaches it any longer. Only
this record still lists it. stop.yml removes a server from the record.
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
    """Return the hosts of a plan that have containers."""
    return {
        name: {"address": share["address"], "directory": share["directory"], "containers": containers}
        for name, share in plan["hosts"].items()
        if (containers := [part["container"] for part in (*share["engines"], *_routers(share)) if part])
    }


def _routers(share: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the routers of a host; plans of earlier releases have one at most."""
    return list(share.get("routers") or ([share["proxy"]] if share.get("proxy") else []))


def read(directory: Path) -> Hosts:
    """Return the record in a directory; without one, as with earlier releases, the hosts of the last plan."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        noted = json.loads((directory / FILE).read_text(encoding="utf-8"))["hosts"]
        return {name: entry for name, entry in noted.items() if entry.keys() >= _KEYS}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        planned = of_plan(json.loads((directory / "plan.json").read_text(encoding="utf-8")))
        return {name: {**entry, "launched": False} for name, entry in planned.items()}
    return {}


def outside(known: Hosts, plan: Mapping[str, Any]) -> Hosts:
    """Return known hosts that are not in the plan. A server that was only renamed is in the plan."""
    addresses = {share["address"] for share in plan["hosts"].values()}
    return {
        name: entry
        for name, entry in known.items()
        if name not in plan["hosts"] and entry.get("address") not in addresses
    }


def unnoted(directory: Path, plan: Mapping[str, Any]) -> list[str]:
    """Return the hosts of a plan that are not recorded, or recorded with other data."""
    known = read(directory) if (directory / FILE).exists() else {}
    return [name for name, entry in of_plan(plan).items() if known.get(name) != entry]


def note(directory: Path, plan: Mapping[str, Any], hosts: Iterable[str], left: Hosts) -> bool:
    """Add hosts to the record; return whether that changes anything.

    directory: directory of the plan.
    plan: the plan.
    hosts: hosts of the plan to add.
    left: known hosts that are not in the plan, which are kept.
    """
    here = set(hosts)
    launched = {name: entry for name, entry in of_plan(plan).items() if name in here}
    known = read(directory) if (directory / FILE).exists() else {}
    return _write(directory, known, {**known, **left, **launched})


def forget(directory: Path, hosts: Iterable[str]) -> bool:
    """Remove hosts from the record; return whether that changes anything."""
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
