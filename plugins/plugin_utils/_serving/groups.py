# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Decides which containers are stopped before a deployment starts: all nodes of a group, or none.

The nodes of an instance form one group when they start, and none can join it later. If one of them is
missing, was created by another plan or has been started since, the others are of no use: all of them are
stopped before any is started. Pure functions; they run on the controller, once for all servers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils._findings import Finding
from ...module_utils._serving.catalogue import ENGINE_CHECKS


@dataclass
class Group:
    """An instance, with those of its nodes that this run has seen: (host, node) pairs."""

    instance: str
    hosts: Sequence[str]
    seen: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def why(self) -> str:
        """Return why its nodes cannot work together; empty if they can."""
        for host, node in self.seen:
            if node["why"]:
                return f"{host}: {node['why']}"
        known = {node["generation"]: host for host, node in self.seen if node["generation"]}
        if len(known) > 1:
            return f"{' and '.join(sorted(known.values()))} were started by different rollouts"
        return ""

    def absent(self, play: Iterable[str]) -> list[str]:
        """Return its hosts that are not in this run."""
        present = set(play)
        return [host for host in self.hosts if host not in present]


@dataclass(frozen=True)
class Decision:
    """``stop``: the containers to stop, by host; ``reasons``: lines for the screen; ``refusals``: why nothing
    may be stopped, one finding for each instance; ``why``: why an instance has to be started, by its name."""

    stop: dict[str, list[str]]
    reasons: list[str]
    refusals: tuple[Finding, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)


def decide(looks: Mapping[str, Mapping[str, Any]], play: Sequence[str]) -> Decision:
    """Return which containers to stop.

    ``looks``: the result of deployment_info by host; ``play``: the hosts of this run.
    """
    groups: dict[str, Group] = {}
    stop: dict[str, list[str]] = defaultdict(list)
    reasons: list[str] = []
    whys: dict[str, str] = {}
    for host, look in looks.items():
        for node in look.get("nodes") or ():
            if node["group"]:
                groups.setdefault(node["instance"], Group(node["instance"], node["group"])).seen.append(
                    (host, node)
                )
            elif node["why"]:
                whys[node["instance"]] = node["why"]
            if not node["group"] and node["why"] and node["container"] in look["running"]:
                stop[host].append(node["container"])
                reasons.append(f"{host} {node['instance']} is restarted: {node['why']}.")
    refusals = []
    for group in groups.values():
        why = group.why()
        if not why:
            continue
        whys[group.instance] = why
        absent = group.absent(play)
        if absent:
            refusals.append(_refusal(group, why, absent))
        running = [(host, node) for host, node in group.seen if node["container"] in looks[host]["running"]]
        for host, node in running:
            stop[host].append(node["container"])
        if running:
            reasons.append(f"All nodes of {group.instance} are stopped and started together. {why}.")
    return Decision(dict(stop), reasons, tuple(refusals), whys)


def _refusal(group: Group, why: str, absent: Sequence[str]) -> Finding:
    """Return the finding about a group that must be started but has hosts outside this run."""
    return ENGINE_CHECKS.finding(
        "engine-group-incomplete",
        f"{group.instance} must be started, and its nodes can only start together, but {', '.join(absent)}"
        f" {'is' if len(absent) == 1 else 'are'} not in this run; nothing was stopped",
        host=", ".join(absent),
        instance=group.instance,
        seen=why,
        expected=f"{', '.join(group.hosts)} in this run",
        hosts=",".join(group.hosts),
    )
