# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.revision_choice; documented in plugins/modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..module_utils._files.safe_paths import HISTORY
from ..module_utils._findings import WARNING, Finding, RolloutError, few, render_text
from ..module_utils._serving import history
from ..plugin_utils._checks.results import registered
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import COLOURS, show
from ..plugin_utils._serving import revisions
from ..plugin_utils._serving.catalogue import CHANGE_CHECKS
from .plan import deployment_folder, names_of_deployments, servers_of


class ActionModule(ControllerAction):
    """Chooses the revision to go back to, or only lists what there is."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "revision": {"type": "str", "default": ""},
        "list_only": {"type": "bool", "default": False},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        servers, hostvars = options["servers"], task_vars["hostvars"]
        deployments = names_of_deployments(hostvars, servers)
        if len(deployments) > 1:
            raise AnsibleActionFail(
                f"the servers belong to the deployments {', '.join(deployments)}; select one with --limit, by"
                " its hosts or a group of them"
            )
        found = {
            name: one
            for name in servers
            if (one := registered(task_vars, name, options["result"])) is not None and "revisions" in one
        }
        directory = deployment_folder(hostvars, servers[0], deployments[0])
        own = history.records(directory / HISTORY)
        stores = [own, *(one["revisions"] for one in found.values())]
        known = revisions.merged(stores, deployments[0])
        table = revisions.lines(known) if known else [f"no revision of deployment {deployments[0]}"]
        if options["list_only"]:
            show("\n".join(["", *table, ""]))
            return {"revisions": known}
        record = _wanted(known, found, options["revision"])
        if record is None:
            return RolloutError(_unknown(known, options["revision"], table)).failure("\n".join(table))
        lacking = revisions.missing_servers(record, list(servers_of(hostvars)))
        if lacking:
            return RolloutError(_lacking(record, lacking)).failure()
        show(f"\nBack to revision {record['revision']} of {record['when']}.\n")
        warnings = list(_other_images(record, found))
        if warnings:
            show("\n".join(render_text(warnings)), color=COLOURS[WARNING])
        number = record["revision"]
        return {
            "revisions": known,
            "revision": number,
            "directory": str(directory),
            "folder": str(history.folder_of(directory / HISTORY, number)),
            "at": _place(number, directory, found),
        }


def _wanted(
    known: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], named: str
) -> Mapping[str, Any] | None:
    """Return the named revision, or else the one before; None if there is none."""
    if not named:
        return revisions.before(known, found)
    return next((one for one in known if str(one["revision"]) == (named.lstrip("0") or named)), None)


def _unknown(known: Sequence[Mapping[str, Any]], named: str, table: Sequence[str]) -> Finding:
    """Return the finding about a revision that is not there; of an empty name, that there is none before."""
    numbers = few(str(one["revision"]) for one in known)
    message = f"there is no revision {named}" if named else "there is no revision to go back to"
    return CHANGE_CHECKS.finding(
        "change-revision-unknown",
        f"{message}; nothing was changed",
        variable="revision",
        seen=named or None,
        expected=f"one of {numbers}" if known else table[0],
    )


def _lacking(record: Mapping[str, Any], lacking: Mapping[str, str]) -> Finding:
    """Return the finding about servers of a revision that the inventory lacks."""
    return CHANGE_CHECKS.finding(
        "change-revision-servers",
        f"revision {record['revision']} has servers that the inventory lacks; nothing was changed",
        host=", ".join(lacking),
        seen=few(f"{host} ({address})" for host, address in lacking.items()),
    )


def _other_images(record: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield a finding for each server on which the image's name stands for another image than then."""
    reference, ids = record["image"]["reference"], record["image"]["ids"]
    for host, one in found.items():
        now = one["images"].get(reference)
        if now and ids and now not in ids:
            yield CHANGE_CHECKS.finding(
                "change-revision-image",
                f"{reference} is another image than in revision {record['revision']}",
                host=host,
                seen=now,
                expected=", ".join(ids),
            )


def _place(number: int, directory: Path, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the server from which the plan is read; empty if the controller has it."""
    if history.read(directory / HISTORY, number) is not None:
        return ""
    return next(
        host for host, one in found.items() if any(kept["revision"] == number for kept in one["revisions"])
    )
