# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What each host does in each step: slices of the plan, containers, routers with the step's list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from ....module_utils._serving.router_list import relisted
from ..model import Role
from ..plan_dict import EndpointDict, EngineDict, ListsDict, PlanDict, ProxyDict
from .seen import Part, SeenInstance, endpoint
from .steps import Change, Step


class StopDict(TypedDict):
    """Containers that are stopped: first those with an API, then the other nodes."""

    heads: list[str]
    others: list[str]


class DrainDict(TypedDict):
    """An engine that must have finished its requests."""

    container: str
    instance: str
    role: Role
    apis: list[str]


class StrayDict(TypedDict):
    """A container that is removed, with its launch scripts."""

    name: str
    scripts: list[str]


class HostStepDict(TypedDict):
    """What one host does in one step."""

    routers: list[ProxyDict]
    drain: list[DrainDict]
    stop: StopDict
    remove: list[StrayDict]
    engines: list[EngineDict]
    # Containers of the deployment that stay as they are.
    kept: list[str]


class MemberDict(TypedDict):
    """An instance and its APIs, for the canary."""

    instance: str
    apis: list[EndpointDict]


class MembersDict(TypedDict):
    """The instances of each role."""

    prefillers: list[MemberDict]
    decoders: list[MemberDict]


class CanaryDict(MembersDict):
    """Who is compared with whom; ``only``: pairs with one of these."""

    only: list[str]


class StepDict(TypedDict):
    """One step, as the roles take it."""

    number: int
    title: str
    # None: the routers' list stays; empty lists: the front is closed.
    lists: ListsDict | None
    # The model's name in the API of what is listed.
    model: str
    closed: bool
    outage: bool
    changes: bool
    canary: CanaryDict | None
    hosts: dict[str, HostStepDict]


Looks = Mapping[str, Mapping[str, Any]]


def execution(plan: PlanDict, change: Change, looks: Looks, *, engines: bool = True) -> list[StepDict]:
    """Return the steps as the roles take them.

    looks: results of deployment_info by host.
    engines: whether the last step, in which all are listed, also puts the files of the engines in order.
    """
    found: list[StepDict] = []
    changed = {one.name for one in change.target if one.ready and one.planned_apis == one.apis}
    for number, step in enumerate(change.steps, 1):
        # Only of what is as planned by then: the role engine makes anew what is not.
        tidied = changed & {one.name for one in change.tidied} if engines else set[str]()
        found.append(_step(plan, number, step, looks, tidied, changed))
        changed |= {one.name for one in step.changed}
    return found


def whole(plan: PlanDict, change: Change, looks: Looks, *, engines: bool = True) -> list[StepDict]:
    """Return all steps as one, for a run that only shows what would change."""
    removed = tuple(one for step in change.steps for one in step.removed)
    changed = tuple(one for step in change.steps for one in step.changed)
    step = Step(change.target, removed, changed, change.target)
    if all(step.listed is None for step in change.steps):
        step = replace(step, listed=None)
    return execution(plan, replace(change, steps=(step,) if change.steps else ()), looks, engines=engines)


def _step(
    plan: PlanDict,
    number: int,
    step: Step,
    looks: Looks,
    tidied: Collection[str],
    changed: Collection[str],
) -> StepDict:
    """Return one step. ``changed``: what is as planned when it begins."""
    names = {one.name for one in step.changed} or ({*tidied} if not step.removed else set[str]())
    lists = None if step.listed is None else lists_of(step.listed, changed)
    hosts = {host: _host(plan, step, names, lists, host, look) for host, look in looks.items()}
    return {
        "number": number,
        "title": "; ".join(step.titles),
        "lists": lists,
        "model": _model(plan, step, changed),
        "closed": step.closed,
        "outage": step.outage,
        "changes": bool(names or step.removed),
        "canary": _canary(plan, step, changed),
        "hosts": hosts,
    }


def lists_of(listed: Sequence[SeenInstance], changed: Collection[str] = ()) -> ListsDict:
    """Return the APIs of instances: where one serves now, else where it is to serve.

    changed: the names of those that are as planned by then.
    """
    return {
        "prefillers": [api for one in listed if one.role == "prefiller" for api in _endpoints(one, changed)],
        "decoders": [api for one in listed if one.role == "decoder" for api in _endpoints(one, changed)],
    }


def _model(plan: PlanDict, step: Step, changed: Collection[str]) -> str:
    """Return the model's name in the API of what a step lists: of two versions, that of the one before."""
    before = [one.model for one in step.listed or () if one.name not in changed and one.serving]
    return next((model for model in before if model), plan["model"]["served_name"])


def members(plan: PlanDict, instances: Iterable[SeenInstance], changed: Collection[str]) -> MembersDict:
    """Return the planned ones of instances in the plan's order, with where they serve.

    changed: the names of those that are as planned by then.
    """
    planned = {one.name: one for one in instances if one.planned}
    ordered = [planned[instance["name"]] for instance in plan["instances"] if instance["name"] in planned]

    def side(role: Role) -> list[MemberDict]:
        return [
            {"instance": one.name, "apis": _endpoints(one, changed)} for one in ordered if one.role == role
        ]

    return {"prefillers": side("prefiller"), "decoders": side("decoder")}


def _endpoints(one: SeenInstance, changed: Collection[str]) -> list[EndpointDict]:
    return [endpoint(place) for place in _apis(one, changed)]


def _apis(one: SeenInstance, changed: Collection[str]) -> tuple[str, ...]:
    """Return where an instance serves: as planned once it was changed, else where it does now."""
    as_planned = one.planned and (one.name in changed or not one.serving)
    return one.planned_apis if as_planned else one.apis


def _host(
    plan: PlanDict,
    step: Step,
    names: Collection[str],
    lists: ListsDict | None,
    host: str,
    look: Mapping[str, Any],
) -> HostStepDict:
    share = plan["hosts"].get(host)
    ended = [*step.removed, *(one for one in step.changed if one.mend)]
    parts = [(one, part) for one in ended for part in one.parts if part.host == host and part.up]
    engines = [] if share is None else [e for e in share["engines"] if e["instance"] in names]
    removed = _removed(step, host, engines)
    touched = {engine["container"] for engine in engines} | removed
    every = {one["name"] for one in look.get("containers") or ()}
    planned = set() if share is None else {engine["container"] for engine in share["engines"]}
    routers = [] if share is None else share["routers"]
    return {
        "routers": routers if lists is None else _routers(plan, routers, lists),
        "drain": [
            {
                "container": part.container,
                "instance": one.name,
                "role": one.role,
                "apis": list(part.apis),
            }
            for one, part in parts
            if part.apis
        ],
        "stop": {
            "heads": sorted({part.container for _, part in parts if part.apis}),
            "others": sorted({part.container for _, part in parts if not part.apis}),
        },
        "remove": [
            {"name": stray["name"], "scripts": list(stray["scripts"])}
            for stray in look["strays"]
            if stray["name"] in removed
        ],
        "engines": engines,
        "kept": sorted((every | planned) - touched),
    }


def _removed(step: Step, host: str, engines: Collection[EngineDict]) -> set[str]:
    """Return the containers of a host that are removed: of what is not planned, and nodes that an instance
    no longer has here."""
    planned = {engine["container"] for engine in engines}
    ended = [one for one in step.removed if not one.planned]
    gone = [part for one in ended for part in one.parts if part.host == host]
    left = [part for one in step.changed for part in one.parts if _is_left(part, host, planned)]
    return {part.container for part in (*gone, *left)}


def _is_left(part: Part, host: str, planned: Collection[str]) -> bool:
    return part.host == host and part.container not in planned


def _routers(plan: PlanDict, routers: Iterable[ProxyDict], lists: ListsDict) -> list[ProxyDict]:
    """Return routers with a step's list; none while the front is closed."""
    prefillers, decoders = lists["prefillers"], lists["decoders"]
    if not prefillers and not decoders:
        return []
    return [relisted(router, plan["proxy"], prefillers, decoders) for router in routers]


def _canary(plan: PlanDict, step: Step, before: Collection[str]) -> CanaryDict | None:
    """Return who is compared before the changed instances are listed."""
    if not step.changed:
        return None
    names = {one.name for one in step.changed}
    compared = members(plan, (*step.partners, *step.changed), {*before, *names})
    return {**compared, "only": sorted(names)}
