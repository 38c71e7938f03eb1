# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what a front needs of a server, and whether one runs: HAProxy, the package manager, systemd."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..._commands import Answer, Command, Runner
from ..requirements import PlannedFront

_SECONDS = 10.0
# Beside the directories of PATH: that of the root user may lack it.
_SBIN = "/usr/sbin/"
_UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class Front:
    """The state of a front, or of a server that is to have one.

    ``version``: of the installed HAProxy; None if there is none. ``offered``: the version that the package
    manager would install, if it knows one. ``unknown``: packages that are not installed and that the package
    manager does not know. ``systemd``: whether it runs here. ``stopped``: deployed units that do not run.
    """

    version: str | None = None
    offered: str | None = None
    unknown: tuple[str, ...] = ()
    systemd: bool = True
    stopped: tuple[str, ...] = ()


def inspect_front(runner: Runner, planned: PlannedFront | None) -> Front | None:
    """Return the state of the front of this server; None if none is planned."""
    if planned is None:
        return None
    version = parse_haproxy(runner.run(Command("haproxy", "version", [f"{_SBIN}haproxy", "-v"], _SECONDS)))
    missing = [name for name in planned.packages if not Path(_SBIN, name).exists()]
    offered = {name: _offered(runner, name) for name in missing}
    return Front(
        version=version,
        offered=offered.get("haproxy") or None,
        unknown=tuple(name for name, found in offered.items() if found == ""),
        # sd_booted(3)
        systemd=Path("/run/systemd/system").is_dir(),
        stopped=tuple(unit for unit in planned.units if not _runs(runner, unit)),
    )


def _runs(runner: Runner, unit: str) -> bool:
    """Return whether a unit runs; one that was never deployed need not."""
    if not Path(_UNITS, f"{unit}.service").is_file():
        return True
    words = ["systemctl", "is-active", f"{unit}.service"]
    return runner.run(Command("systemctl", "is-active", words, _SECONDS)).status == 0


def _offered(runner: Runner, package: str) -> str | None:
    """Ask the package manager for what it knows already; nothing is fetched. Empty if it knows none."""
    answer = runner.run(Command("apt-cache", "policy", ["apt-cache", "policy", package], _SECONDS))
    if answer.problem != "missing":
        return parse_apt(answer)
    query = ["dnf", "-q", "-C", "repoquery", "--queryformat", "%{version}\n", package]
    return parse_dnf(runner.run(Command("dnf", "repoquery", query, _SECONDS)))


def parse_haproxy(answer: Answer) -> str | None:
    """Return the version that ``haproxy -v`` says."""
    match = re.search(r"(?:HAProxy|HA-Proxy) version (\d+(?:\.\d+)+)", answer.text)
    return match.group(1) if match and answer.problem is None else None


def parse_apt(answer: Answer) -> str | None:
    """Return the candidate of ``apt-cache policy``: empty without one, None if there is no answer."""
    if answer.problem is not None or answer.status != 0:
        return None
    match = re.search(r"^\s*Candidate: (?:\d+:)?(\d+(?:\.\d+)+)", answer.text, re.MULTILINE)
    return match.group(1) if match else ""


def parse_dnf(answer: Answer) -> str | None:
    """Return the newest version of ``dnf repoquery``; None without one: its lists may not be fetched yet."""
    if answer.problem is not None or answer.status != 0:
        return None
    found = re.findall(r"^(\d+(?:\.\d+)+)$", answer.text, re.MULTILINE)
    return max(found, key=version) if found else None


def version(text: str) -> tuple[int, ...]:
    """Return a version for comparison."""
    return tuple(int(part) for part in text.split("."))
