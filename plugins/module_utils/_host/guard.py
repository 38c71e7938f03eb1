# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the guard of a deployment runs, and reports what it has said of itself.

Nothing is said of a guard where nothing of its deployment was ever deployed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import _systemd as systemd
from .._files.contents import read_json
from .._findings import Finding
from .._serving import running
from .._serving.guard_unit import STATUS
from .catalogue import HOST_CHECKS
from .health import is_deployed
from .requirements import HostRequirements, PlannedGuard

# Of what the guard writes.
FORMAT = 1
# sd_booted(3)
BOOTED = "/run/systemd/system"


@dataclass(frozen=True)
class Guard:
    """What a guard that runs has said: the instances that it no longer starts, those that it has taken out of
    the routers' list, each with the reason, and why it has closed the front; empty if it has not.

    ``stopped``: how its unit is instead; empty if it runs.
    """

    stopped: str = ""
    given_up: Mapping[str, str] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    closed: str = ""

    def facts(self) -> dict[str, Any]:
        """Return it as facts of the server."""
        return {
            "active": not self.stopped,
            "given_up": dict(self.given_up),
            "out": dict(self.out),
            "closed": self.closed,
        }


def inspect(requirements: HostRequirements) -> Guard | None:
    """Return the state of the guard of this server; None if none is planned, or nothing is deployed here."""
    planned = requirements.guard
    if planned is None or not any(map(is_deployed, requirements.serving)):
        return None
    unit = f"{planned.unit}.service"
    if not systemd.unit_path(planned.unit).is_file():
        return Guard(f"there is no {unit}")
    if not systemd.is_active(planned.unit):
        return Guard(f"{unit} is not active")
    return said(read_json(Path(planned.run, STATUS)))


def said(status: Any) -> Guard:
    """Return what a guard has written in its status; nothing if that is of another format."""
    if not isinstance(status, dict) or status.get("format") != FORMAT:
        return Guard()
    lists = _mapping(status.get("lists"))
    return Guard(
        given_up={
            name: str(node.get("why") or "")
            for name, node in _mappings(status.get("nodes"))
            if node.get("given_up")
        },
        out={
            name: f"{entry.get('why') or ''}{_since(entry.get('since'))}"
            for name, entry in _mappings(lists.get("out"))
        },
        closed=str(lists.get("closed") or ""),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return those items of a mapping that are mappings themselves."""
    return [(name, item) for name, item in _mapping(value).items() if isinstance(item, dict)]


def _since(value: Any) -> str:
    """Return a Unix time for the end of a sentence."""
    try:
        return f", since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(value))}"
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def findings(requirements: HostRequirements, guard: Guard | None) -> list[Finding]:
    """Return findings about the guard of this server; ``guard``: from inspect()."""
    planned = requirements.guard
    if planned is None:
        return []
    if not Path(BOOTED).is_dir():
        # The check of the front says the same.
        return [] if requirements.front else [_no_systemd()]
    return [] if guard is None else list(_findings(requirements, planned, guard))


def _no_systemd() -> Finding:
    return HOST_CHECKS.finding(
        "host-systemd-absent",
        "the guard is a unit of systemd, which does not run here",
        seen="no systemd",
    )


def _findings(requirements: HostRequirements, planned: PlannedGuard, guard: Guard) -> Iterable[Finding]:
    if guard.stopped:
        yield HOST_CHECKS.finding(
            "host-guard-stopped", "the guard is not running", seen=guard.stopped, unit=planned.unit
        )
    # Of a drained server nothing is said of its engines.
    drained = running.drained(requirements.directory)
    for name, why in guard.given_up.items() if not drained else ():
        yield HOST_CHECKS.finding(
            "host-guard-gave-up",
            f"the guard no longer starts {name}",
            instance=name,
            seen=why or "no reason given",
            container=next((one.container for one in requirements.serving if one.instance == name), name),
        )
    for name, why in guard.out.items():
        yield HOST_CHECKS.finding(
            "host-guard-left-out",
            f"the guard has taken {name} out of the routers' list",
            instance=name,
            seen=why or "no reason given",
        )
    if guard.closed:
        yield HOST_CHECKS.finding(
            "host-guard-alarm", "nothing of a role serves, as the guard sees it", seen=guard.closed
        )
