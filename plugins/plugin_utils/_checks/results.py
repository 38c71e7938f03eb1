# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the results that each server registered from the variables of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from ...module_utils._findings import Finding
from .hccn_cluster import Server

#: The task variable that caches the variables of servers for the duration of the task.
GATHERED = "__pd_rollout_gathered"


def registered(task_vars: Mapping[str, Any], name: str, variable: str) -> Mapping[str, Any] | None:
    """Return the result that a server registered; None if it has none, or if its task was skipped.

    ``name``: the server; ``variable``: the variable, with a dot before the key of a result in a result.
    """
    value: Any = _variables(task_vars, name)
    for key in variable.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) and not value.get("skipped") else None


def deployment_looks(
    task_vars: Mapping[str, Any], names: Iterable[str], variable: str
) -> dict[str, Mapping[str, Any]]:
    """Return the results of deployment_info that servers registered, by server; without those that failed."""
    found = {name: registered(task_vars, name, variable) for name in names}
    return {name: look for name, look in found.items() if look is not None and "nodes" in look}


def first_registered(
    task_vars: Mapping[str, Any], name: str, variables: Iterable[str]
) -> Mapping[str, Any] | None:
    """Return the first result that a server registered in any of the variables, as ``registered``."""
    found = (registered(task_vars, name, variable) for variable in variables)
    return next((result for result in found if result is not None), None)


def _variables(task_vars: Mapping[str, Any], name: str) -> Any:
    """Return all variables of a server, gathered once in each task and not templated.

    Ansible assembles them from the inventory's files on every access; for hundreds of servers that takes
    longer than evaluating their results.
    """
    if not isinstance(task_vars, MutableMapping):
        return task_vars["hostvars"].raw_get(name)
    gathered = task_vars.setdefault(GATHERED, {})
    if name not in gathered:
        gathered[name] = task_vars["hostvars"].raw_get(name)
    return gathered[name]


def servers_of(
    task_vars: Mapping[str, Any], names: Iterable[str], variable: str
) -> tuple[list[Server], dict[str, str]]:
    """Return the servers with a result that have chips, and the reasons why others have no result."""
    servers: list[Server] = []
    missing: dict[str, str] = {}
    for name in names:
        result = registered(task_vars, name, variable)
        if result is None:
            missing[name] = ""
        elif "chips" not in result:
            missing[name] = str(result.get("msg", "the check itself failed"))
        elif result["chips"]:
            servers.append(Server.of(name, result))
    return servers, missing


def own_findings(results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return the findings of each server's own checks, with its name as the place."""
    return [
        replace(Finding.from_dict(finding), host=name)
        for name, result in results.items()
        for finding in result.get("findings") or ()
    ]
