# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is as it should be while servers are drained, or the guard has taken instances out of a list. Pure
functions; they run on the controller.

A drained server says so itself, and nothing of its engines. But the other nodes of an instance stop with it,
and routers leave its instances out: what these servers find is no fault. The guard says itself what it has
taken out, and then the router that lacks it is not another finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...module_utils._findings import ERROR, WARNING, Finding

_STOPPED, _SILENT, _APART = "host-deployed-stopped", "host-deployed-silent", "host-deployed-apart"
_DEPLOYED = frozenset({_STOPPED, _SILENT, _APART})
# Of instances, as the guard sees them.
_GUARDED = frozenset({"host-guard-gave-up", "host-guard-left-out"})


def unexplained(
    findings: Iterable[Finding], plan: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    """Return the findings of servers without those that drained servers or the guard explain.

    ``findings``: each of one server; ``plan``: the whole plan; ``results``: the results of host_check by
    server.
    """
    facts = {name: result.get("facts") or {} for name, result in results.items()}
    marked = {name for name, found in facts.items() if found.get("drained")}
    left_out = _instances(plan, lambda node: node in marked)
    # Whether a server without a result is drained is not known.
    unsure = _instances(plan, lambda node: node not in facts)
    taken = {name: frozenset((found.get("guard") or {}).get("out") or ()) for name, found in facts.items()}
    if not (left_out | unsure or any(taken.values())):
        return list(findings)
    must, may = _apis(plan, left_out), _apis(plan, unsure)
    roles = {instance["role"] for instance in plan["instances"]}
    kept = {instance["role"] for instance in plan["instances"] if instance["name"] not in left_out}

    def explained(finding: Finding) -> bool:
        if finding.code not in _DEPLOYED | _GUARDED:
            return False
        if finding.instance is not None:
            return finding.instance in left_out
        if kept != roles:
            # With nothing to ask in one role the routers are ended.
            return finding.code == _STOPPED
        lists = facts.get(finding.host or "", {}).get("lists")
        if lists is None or finding.code != _SILENT:
            return False
        out = _apis(plan, taken.get(finding.host or "", ()))
        return _fits(plan, lists, must, may | out)

    return [finding for finding in findings if not explained(finding)]


def eased(findings: Iterable[Finding], results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return findings, those that are about drained servers alone as warnings: nothing is changed there.

    ``results``: the results of host_check by server.
    """
    marked = {name for name, found in results.items() if (found.get("facts") or {}).get("drained")}
    return [
        replace(finding, severity=WARNING)
        if finding.severity == ERROR and finding.hosts and marked.issuperset(finding.hosts)
        else finding
        for finding in findings
    ]


def _instances(plan: Mapping[str, Any], concerned: Callable[[str], bool]) -> frozenset[str]:
    """Return the names of the instances with a node on one of the servers."""
    return frozenset(
        instance["name"] for instance in plan["instances"] if any(map(concerned, instance["nodes"]))
    )


def _apis(plan: Mapping[str, Any], instances: Iterable[str]) -> frozenset[str]:
    """Return the APIs of instances, as ``address:port``."""
    names = frozenset(instances)
    return frozenset(
        api
        for share in plan["hosts"].values()
        for engine in share["engines"]
        if engine["instance"] in names
        for api in engine["labels"]["pd_rollout.apis"].split(",")
        if api
    )


def _fits(
    plan: Mapping[str, Any],
    lists: Mapping[str, Iterable[str]],
    must: frozenset[str],
    may: frozenset[str],
) -> bool:
    """Return whether a router's lists are the planned ones, less what ``must`` and what ``may`` be absent."""
    for key in ("prefillers", "decoders"):
        planned = {f"{api['host']}:{api['port']}" for api in plan["proxy"][key]}
        listed = {*lists[key]}
        if not planned - must - may <= listed <= planned - must:
            return False
    return True
