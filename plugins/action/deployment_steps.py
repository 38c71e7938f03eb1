# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.deployment_steps; documented in plugins/modules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from ..module_utils._files.safe_paths import HISTORY
from ..module_utils._findings import Finding, RolloutError, few
from ..module_utils._serving import history
from ..plugin_utils._checks.results import deployment_looks
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils._run.screen import show
from ..plugin_utils._serving import guards, revisions
from ..plugin_utils._serving.catalogue import CHANGE_CHECKS
from ..plugin_utils._serving.groups import decide
from ..plugin_utils.rollout.change.execution import execution, lists_of, members, whole
from ..plugin_utils.rollout.change.seen import Seen, seen
from ..plugin_utils.rollout.change.steps import Change, Options, steps
from ..plugin_utils.rollout.change.table import reasons, table
from ..plugin_utils.rollout.plan_dict import PlanDict


class ActionModule(ControllerAction):
    """Computes the steps for all hosts at once, on the controller, and prints them."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "result": {"type": "str", "required": True},
        "accept_outage": {"type": "bool", "default": False},
        "max_unavailable": {"type": "int", "default": 1},
        "restart": {"type": "list", "elements": "str", "default": []},
        "only": {"type": "list", "elements": "str", "default": []},
        "drain": {"type": "list", "elements": "str", "default": []},
        "drain_stop": {"type": "bool", "default": False},
        "undrain": {"type": "list", "elements": "str", "default": []},
        "engines": {"type": "bool", "default": True},
        "routers": {"type": "bool", "default": True},
        "quiet": {"type": "bool", "default": False},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        plan = cast("PlanDict", options["plan"])
        looks = deployment_looks(task_vars, options["servers"], options["result"])
        decision = decide(looks, options["servers"])
        unknown = list(_unknown(plan, options))
        if unknown:
            return RolloutError(unknown).failure()
        now = seen(plan, looks, decision.why, options["restart"], _marks(options))
        only = _only(plan, options)
        if options["undrain"] and not now.routed:
            # Nothing serves: what is in service comes back together.
            only = None
        refused = [*_incomplete(now, decision.refusals, looks, only), *_mixed(now, only)]
        if refused and options["engines"]:
            return RolloutError(refused).failure()
        change = steps(
            now,
            Options(
                front=plan["proxy"]["front"],
                colocated=not plan["proxy"]["prefillers"],
                unavailable=options["max_unavailable"],
                engines=options["engines"],
                routers=options["routers"],
                only=only,
            ),
        )
        # Where a part of the deployment alone may change, the guards stay: they know the whole plan.
        unguarded = [] if only is not None else guards.unsettled(plan, looks)
        if (change.steps or unguarded) and not options["quiet"]:
            _show(change, _seconds(looks), unguarded)
        if change.outage and not options["accept_outage"] and not self._task.check_mode:
            return RolloutError([_outage(change)]).failure()
        kept = history.newest(Path(options["plan"]["directory"], HISTORY))
        stored = [look.get("revision") for look in looks.values()]
        known = revisions.newest([kept, *stored], plan["deployment"])
        whole_run = (
            looks.keys() >= plan["hosts"].keys()
            and only is None
            and options["engines"]
            and options["routers"]
        )
        names = [one.name for one in change.target]
        execute = whole if self._task.check_mode else execution
        return {
            "steps": execute(plan, change, looks, engines=options["engines"]),
            "outages": list(change.outages),
            "lists": lists_of(change.target, names),
            # The slices may hold secrets, and are long.
            "_ansible_verbose_override": True,
            "canary": members(plan, change.target, names),
            "known": revisions.known_texts(plan, looks, known),
            "keep": whole_run and revisions.due(plan, looks, known, kept, changes=bool(change.steps)),
            "guarded": not unguarded,
            # A server's mark is written even where nothing has to change.
            "settled": not change.steps and not unguarded and not options["drain"] and not options["undrain"],
        }


def _unknown(plan: PlanDict, options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each name that the plan does not have."""
    instances = [instance["name"] for instance in plan["instances"]]
    for what, variable, known, given in (
        ("instance", "instance", instances, [*options["restart"], *options["only"]]),
        ("server", "server", list(plan["hosts"]), [*options["drain"], *options["undrain"]]),
    ):
        for name in dict.fromkeys(name for name in given if name not in known):
            yield CHANGE_CHECKS.finding(
                "change-unknown",
                f"there is no {what} {name!r} in deployment {plan['deployment']}",
                variable=variable,
                seen=name,
                expected=few(known),
            )


def _only(plan: PlanDict, options: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the instances that may be changed; None for all."""
    servers = {*options["drain"], *options["undrain"]}
    if not servers and not options["only"]:
        return None
    there = [one["name"] for one in plan["instances"] if servers & {*one["nodes"]}]
    return frozenset((*options["only"], *there))


def _marks(options: Mapping[str, Any]) -> dict[str, str]:
    """Return which hosts are to be drained or stopped, or neither."""
    mark = "stopped" if options["drain_stop"] else "drained"
    return {**dict.fromkeys(options["drain"], mark), **dict.fromkeys(options["undrain"], "")}


def _incomplete(
    now: Seen,
    refusals: Iterable[Finding],
    looks: Mapping[str, Mapping[str, Any]],
    only: Collection[str] | None,
) -> Iterator[Finding]:
    """Yield those findings about instances with servers outside of this run that keep it from beginning: not
    of what it leaves alone, or of what no router lists."""
    known = {one.name: one for one in now.planned}
    marked = {node["instance"] for look in looks.values() if look.get("drained") for node in look["nodes"]}
    for refusal in refusals:
        name = refusal.instance or ""
        left_alone = name in marked or (only is not None and name not in only)
        if not left_alone and (known or now.unseen_routers) and not _unlisted(now, name):
            yield refusal


def _unlisted(now: Seen, name: str) -> bool:
    """Return whether the routers are known, serve, and do not list an instance."""
    listed = {one.name for one in now.instances if one.listed}
    return now.routed and not now.unseen_routers and bool(listed) and name not in listed


def _mixed(now: Seen, only: Collection[str] | None) -> Iterator[Finding]:
    """Yield a finding for each instance that would be started beside others of another version."""
    if only is None or not any(
        one.serving and one.other_version for one in now.planned if one.name not in only
    ):
        return
    for one in now.planned:
        if one.name in only and one.todo and one.mend:
            yield CHANGE_CHECKS.finding(
                "change-other-version",
                f"{one.name} would start as the plan says, beside others of the version before",
                instance=one.name,
                seen=f"{one.release or one.planned_release}, as before the change of the inventory",
            )


def _seconds(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return how long the last start of each instance took: of several nodes, the longest."""
    found: dict[str, float] = {}
    for look in looks.values():
        for node in look["nodes"]:
            if node.get("seconds") is not None:
                found[node["instance"]] = max(found.get(node["instance"], 0.0), node["seconds"])
    return found


def _show(change: Change, seconds: Mapping[str, float], unguarded: Sequence[str]) -> None:
    lines = [*table(change, seconds), "", *dict.fromkeys(reasons(change))] if change.steps else []
    if unguarded:
        lines += [f"The guard is installed, updated, started or removed on {few(unguarded)}."]
    show("\n".join(["", *lines, ""]))


def _outage(change: Change) -> Finding:
    """Return the finding about a change that interrupts the service without consent."""
    return CHANGE_CHECKS.finding(
        "change-outage",
        "the change interrupts the service, and nothing was changed",
        variable="deploy_accept_outage",
        seen="; ".join(change.outages),
    )
