# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the results of the NPU network checks of all servers together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils._findings import Finding, ordered
from . import hccn_cluster as between
from .results import first_registered, own_findings, registered, servers_of


@dataclass(frozen=True)
class Verdict:
    """The servers that have chips, the findings of all servers, and the number of pings."""

    servers: Sequence[between.Server]
    findings: Sequence[Finding]
    pings: int

    @property
    def chips(self) -> int:
        return sum(len(server.chips) for server in self.servers)

    @property
    def fabric(self) -> str:
        return between.fabric_of(self.servers)

    @property
    def table(self) -> list[str]:
        return between.table(self.servers) if self.servers else []


def judge(
    task_vars: Mapping[str, Any],
    names: Sequence[str],
    *,
    result: str,
    pings: Sequence[str],
    mesh: str,
    plan: Mapping[str, Any] | None,
) -> Verdict:
    """Return the evaluation of all servers.

    ``names``: the servers; ``result``: the variable in which they registered the result of hccn_check;
    ``pings``: those in which they may have registered that of hccn_ping; ``mesh``: the kind of mesh, as for
    hccn_mesh; ``plan``: which servers have to reach each other, or None.
    """
    servers, missing = servers_of(task_vars, names, result)
    found = {server.name: registered(task_vars, server.name, result) or {} for server in servers}
    findings = own_findings(found)
    findings += between.not_checked(missing, missing)
    findings += between.compare(servers)
    count = 0
    if mesh != "none":
        answers = {
            server.name: answer
            for server in servers
            if (answer := first_registered(task_vars, server.name, pings)) is not None
        }
        count = sum(int(answer.get("count", 0)) for answer in answers.values())
        findings += between.judge_mesh(
            between.mesh(servers, mesh), answers, _peers(plan), between.fabric_of(servers)
        )
    return Verdict(servers, ordered(between.superseded(findings)), count)


def asked(task_vars: Mapping[str, Any], names: Sequence[str], result: str) -> bool:
    """Return whether any of the servers was checked at all."""
    return any(registered(task_vars, name, result) is not None for name in names)


def _peers(plan: Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    hosts = (plan or {}).get("hosts")
    return {name: list(host.get("peers") or ()) for name, host in hosts.items()} if hosts else None
