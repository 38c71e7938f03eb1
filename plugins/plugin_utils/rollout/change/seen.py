# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What runs, by instance, from the looks at the servers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ....module_utils._serving.router_list import relisted
from ..model import Role
from ..plan_dict import EndpointDict, EngineDict, InstanceDict, PlanDict

# In the list of a router of which nothing is known, for all APIs (module_utils/_serving/running.py).
EVERY = "*"
# What makes an instance as planned: nothing, a start of the same container, or another container.
Mend = Literal["", "restart", "make"]


@dataclass(frozen=True)
class Part:
    """One container of an instance, on one host."""

    host: str
    container: str
    up: bool
    chips: frozenset[int] = frozenset()
    # Where it serves, as address:port; empty for a headless node.
    apis: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeenInstance:
    """One instance: as planned, and as its containers are."""

    name: str
    role: Role
    # False: an earlier plan had it.
    planned: bool
    # What is there: containers of any plan.
    parts: tuple[Part, ...]
    # What is to be there; empty if it is not planned.
    wanted: tuple[Part, ...] = ()
    mend: Mend = ""
    # Why it has to be mended.
    why: str = ""
    # Whether it is as planned and answers.
    ready: bool = False
    # Whether a router that gets requests lists it.
    listed: bool = False
    # Whether it runs as another version than the plan's, with which it must not serve.
    other_version: bool = False
    # Whether a server of it is not in this run: then it stays as it is.
    elsewhere: bool = False
    # Whether it runs with another API key than the deployment's.
    other_key: bool = False
    # The model's name in the API that it runs with; empty if that is not known.
    model: str = ""
    # Whether one of its servers is drained: then it is neither listed nor changed; and whether it is to stop.
    drained: bool = False
    to_stop: bool = False
    # What it runs, and is to run.
    release: str = ""
    planned_release: str = ""

    @property
    def silent(self) -> bool:
        """Whether it runs as planned and does not answer: it is loading, or it hangs."""
        return self.planned and self.up and not self.ready and not self.why

    @property
    def serving(self) -> bool:
        """Whether it gets requests, all of its containers run, and nothing says that it does not answer."""
        return self.listed and not self.silent and bool(self.parts) and all(part.up for part in self.parts)

    @property
    def up(self) -> bool:
        """Whether one of its containers holds chips and ports."""
        return any(part.up for part in self.parts)

    @property
    def todo(self) -> bool:
        """Whether it has to be mended, awaited or listed."""
        return self.planned and not self.drained and not (self.ready and self.listed)

    @property
    def apis(self) -> tuple[str, ...]:
        """Where it serves now."""
        return tuple(api for part in self.parts for api in part.apis)

    @property
    def planned_apis(self) -> tuple[str, ...]:
        """Where it is to serve."""
        return tuple(api for part in self.wanted for api in part.apis)

    def in_the_way_of(self, other: SeenInstance) -> bool:
        """Whether its containers hold chips or ports that another instance is to have."""
        return any(
            mine.up
            and mine.host == wanted.host
            and (not mine.chips or bool(mine.chips & wanted.chips) or bool({*mine.apis} & {*wanted.apis}))
            for mine in self.parts
            for wanted in other.wanted
        )


@dataclass(frozen=True)
class Seen:
    """The whole deployment, as a run sees it."""

    instances: tuple[SeenInstance, ...]
    # The APIs that the routers list, by role; of several routers the union.
    lists: Mapping[Role, frozenset[str]]
    # Whether a router runs.
    routed: bool
    # Whether every router is as planned, with the whole list, and none is left over.
    routers_settled: bool
    # Whether a router that runs has another script, image or list than planned.
    routers_differ: bool = False
    # Whether the files, records and restart policies of what is planned are as they must be.
    files_settled: bool = True
    # Routers' hosts that this run has not looked at.
    unseen_routers: tuple[str, ...] = ()

    @property
    def planned(self) -> tuple[SeenInstance, ...]:
        return tuple(one for one in self.instances if one.planned)

    @property
    def strays(self) -> tuple[SeenInstance, ...]:
        """What an earlier plan has left."""
        return tuple(one for one in self.instances if not one.planned)


def seen(
    plan: PlanDict,
    looks: Mapping[str, Mapping[str, Any]],
    whys: Mapping[str, str],
    again: Collection[str] = (),
    drained: Mapping[str, str] | None = None,
) -> Seen:
    """Return what runs.

    plan: what is planned.
    looks: results of deployment_info by host, for engines and routers together.
    whys: why an instance has to be started, by its name, from ``groups.decide``.
    again: instances that are to be restarted though nothing differs.
    drained: whether hosts are to be ``drained`` or ``stopped``, or neither, where that is to differ from what
        they are.
    """
    marks = {host: str(look.get("drained") or "") for host, look in looks.items()} | {**(drained or {})}
    lists = _lists(looks)
    routers = {host for host, share in plan["hosts"].items() if share["routers"]}
    # Whatever runs is listed, as far as is known: without routers, with one that this run does not reach.
    colocated = not plan["proxy"]["prefillers"] or bool(routers - looks.keys())
    found = {host: list(look.get("containers") or ()) for host, look in looks.items()}
    names = {(host, engine["container"]) for host, engine in _engines(plan)}
    looked_at = {
        instance["name"]: _planned(
            plan, instance, looks, found, lists, whys, again, marks, colocated=colocated
        )
        for instance in plan["instances"]
        if all(host in looks for host in instance["nodes"])
    }
    every = looked_at | _elsewhere(plan, looked_at, lists, marks, all_listed=colocated)
    instances = [every[one["name"]] for one in plan["instances"] if one["name"] in every]
    taken = {(part.host, part.container) for one in instances for part in one.parts}
    versions = {engine["labels"]["pd_rollout.version"] for _, engine in _engines(plan)}
    instances.extend(_strays(found, names | taken, lists, versions, colocated=colocated))
    wanted = [one for one in instances if one.planned and not one.drained]
    hashes = _hashes(plan, wanted)
    drains = any(one.drained for one in instances)
    return Seen(
        tuple(instances),
        lists,
        routed=any(look["routers_up"] for look in looks.values()) or bool(routers - looks.keys()),
        routers_settled=all(
            _settled(look, plan["hosts"].get(host), hashes if drains else None)
            for host, look in looks.items()
        ),
        routers_differ=any(
            router["hash"] not in hashes for look in looks.values() for router in look["routers_up"]
        ),
        files_settled=not any(
            _untidy(look, _router_scripts(plan, drains), {one.name for one in instances if one.drained})
            for look in looks.values()
        ),
        unseen_routers=tuple(sorted(routers - looks.keys())),
    )


def _hashes(plan: PlanDict, wanted: Iterable[SeenInstance]) -> set[str]:
    """Return the hashes of the planned routers with a list of these instances alone."""
    lists: dict[Role, list[EndpointDict]] = {"prefiller": [], "decoder": []}
    for one in wanted:
        lists[one.role] += [endpoint(place) for place in one.planned_apis]
    return {
        relisted(router, plan["proxy"], lists["prefiller"], lists["decoder"])["labels"]["pd_rollout.hash"]
        for share in plan["hosts"].values()
        for router in share["routers"]
    }


def endpoint(place: str) -> EndpointDict:
    """Return an API from ``address:port``."""
    host, _, port = place.rpartition(":")
    return {"host": host, "port": int(port)}


def _settled(look: Mapping[str, Any], share: Any, hashes: Collection[str] | None) -> bool:
    """Return whether the routers of a host are as planned; without planned ones, whether none is left.

    hashes: what they are made from if a part of the instances is drained.
    """
    routers, front = look.get("routers"), look.get("front") or {}
    if not front.get("settled", True):
        return False
    up = look["routers_up"]
    if share is None or not share["routers"]:
        return not up
    if hashes is not None:
        return len(up) == 1 and all(router["hash"] in hashes for router in up)
    names = {router["container"] for router in share["routers"]}
    nodes = [node for node in look["nodes"] if node["container"] in names]
    switched = routers is None or (routers["serve"] == routers["active"] and not routers["retire"])
    return switched and all(node["answers"] for node in nodes)


def _router_scripts(plan: PlanDict, drains: bool) -> frozenset[str]:
    """Return the scripts of routers that need not be the plan's: with drained instances, the list is not."""
    shares = plan["hosts"].values() if drains else ()
    return frozenset(router["script_path"] for share in shares for router in share["routers"])


def _untidy(look: Mapping[str, Any], ignored: Collection[str], drained: Collection[str]) -> bool:
    """Return whether files or records of a host have to be written or removed, or restart policies set.

    ignored: files that may differ.
    drained: instances that stay as they are.
    """
    unnoted = any(node["group"] and not node["noted"] for node in look["nodes"])
    outdated = [path for path in look["outdated"] if path not in ignored]
    # What differs otherwise is started, or made anew, with its policy.
    policies = any(
        node["pending"] and not node["why"] and node["instance"] not in drained for node in look["nodes"]
    )
    return bool(outdated or look["leftovers"] or unnoted or policies)


def _lists(looks: Mapping[str, Mapping[str, Any]]) -> dict[Role, frozenset[str]]:
    every = [look["lists"] for look in looks.values() if look.get("lists")]
    return {
        "prefiller": frozenset(api for one in every for api in one["prefillers"]),
        "decoder": frozenset(api for one in every for api in one["decoders"]),
    }


def _engines(plan: PlanDict) -> Iterator[tuple[str, EngineDict]]:
    for host, share in plan["hosts"].items():
        for engine in share["engines"]:
            yield host, engine


def _planned(
    plan: PlanDict,
    instance: InstanceDict,
    looks: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, list[Mapping[str, Any]]],
    lists: Mapping[Role, frozenset[str]],
    whys: Mapping[str, str],
    again: Collection[str],
    marks: Mapping[str, str],
    *,
    colocated: bool,
) -> SeenInstance:
    name, role = instance["name"], instance["role"]
    slices = [(host, engine) for host, engine in _engines(plan) if engine["instance"] == name]
    nodes = [
        node
        for host, engine in slices
        for node in looks[host]["nodes"]
        if node["container"] == engine["container"]
    ]
    wanted = tuple(_wanted(host, engine) for host, engine in slices)
    places = {(part.host, part.container) for part in wanted}
    here = [(host, one) for host, one in _every(found) if (host, one["name"]) in places]
    if any(one["up"] for _, one in here):
        # A node on a server that the plan has taken from the instance belongs to the engine that runs.
        here += [
            (host, one)
            for host, one in _every(found)
            if one["instance"] == name and (host, one["name"]) not in places
        ]
    known = {(part.host, part.container): part.apis for part in wanted}
    parts = tuple(_part(host, one, known.get((host, one["name"]), ())) for host, one in here)
    secrets = {engine["container"]: engine["secret_path"] for _, engine in slices}
    why = whys.get(name, "")
    mends = {node["mend"] for node in nodes}
    mend: Mend = "make" if "make" in mends else "restart" if why else ""
    if not why and name in again:
        why, mend = "it is to be restarted", "restart"
    versions = {engine["container"]: engine["labels"]["pd_rollout.version"] for _, engine in slices}
    return SeenInstance(
        name,
        role,
        planned=True,
        parts=parts,
        wanted=wanted,
        mend=mend,
        why=why,
        ready=not why and bool(nodes) and all(node["answers"] for node in nodes),
        listed=_is_listed(parts, role, lists, colocated=colocated),
        other_version=any(
            one["up"] and (one["version"] != versions.get(one["name"]) or one["other_image"])
            for _, one in here
        ),
        other_key=any(
            one["up"] and one["key"] != _key(looks[host], secrets.get(one["name"])) for host, one in here
        ),
        model=next((one["model"] for _, one in here), ""),
        drained=any(marks.get(host) for host, _ in slices),
        to_stop=any(marks.get(host) == "stopped" for host, _ in slices),
        release=next((one["release"] for _, one in here), ""),
        planned_release=plan["release"]["name"],
    )


def _key(look: Mapping[str, Any], path: str | None) -> str:
    """Return the name of the API key that the label of a container must have; empty without a key."""
    return str((look.get("key_ids") or {}).get(path, "")) if path else ""


def _elsewhere(
    plan: PlanDict,
    looked_at: Collection[str],
    lists: Mapping[Role, frozenset[str]],
    marks: Mapping[str, str],
    *,
    all_listed: bool,
) -> dict[str, SeenInstance]:
    """Return the other instances that a router lists, with a server that this run has not looked at, by name.

    They stay as they are, and listed.
    """
    found: dict[str, SeenInstance] = {}
    for instance in plan["instances"]:
        name, role = instance["name"], instance["role"]
        if name in looked_at:
            continue
        parts = tuple(_wanted(host, e) for host, e in _engines(plan) if e["instance"] == name)
        if all_listed or _is_listed(parts, role, lists, colocated=False):
            found[name] = SeenInstance(
                name,
                role,
                planned=True,
                parts=parts,
                wanted=parts,
                ready=True,
                listed=True,
                elsewhere=True,
                drained=any(marks.get(host) for host in instance["nodes"]),
                planned_release=plan["release"]["name"],
            )
    return found


def _wanted(host: str, engine: EngineDict) -> Part:
    return Part(host, engine["container"], True, frozenset(engine["chips"]), _apis(engine))


def _apis(engine: EngineDict) -> tuple[str, ...]:
    return tuple(api for api in engine["labels"]["pd_rollout.apis"].split(",") if api)


def _part(host: str, one: Mapping[str, Any], otherwise: tuple[str, ...] = ()) -> Part:
    """Return a container as a part. ``otherwise``: its APIs, if its labels do not say them."""
    apis = otherwise if one["apis"] is None else tuple(one["apis"])
    return Part(host, one["name"], one["up"], frozenset(one["chips"]), apis)


def _every(found: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for host, containers in found.items():
        for one in containers:
            yield host, one


def _is_listed(
    parts: Iterable[Part], role: Role, lists: Mapping[Role, frozenset[str]], *, colocated: bool
) -> bool:
    """Return whether a router lists one of the APIs; without routers, whether there is one."""
    apis = {api for part in parts for api in part.apis}
    if colocated or EVERY in lists[role]:
        return any(part.up for part in parts)
    return not apis.isdisjoint(lists[role])


def _strays(
    found: Mapping[str, list[Mapping[str, Any]]],
    taken: set[tuple[str, str]],
    lists: Mapping[Role, frozenset[str]],
    versions: Collection[str],
    *,
    colocated: bool,
) -> Iterator[SeenInstance]:
    """Yield the instances that the plan does not have. ``versions``: those of the plan."""
    groups: dict[tuple[Role, str], list[Part]] = {}
    labels: dict[tuple[Role, str], Mapping[str, Any]] = {}
    for host, one in _every(found):
        if (host, one["name"]) not in taken:
            key = (one["role"], one["instance"])
            groups.setdefault(key, []).append(_part(host, one))
            labels[key] = one
    for (role, name), parts in groups.items():
        yield SeenInstance(
            name,
            role,
            planned=False,
            parts=tuple(parts),
            listed=_is_listed(parts, role, lists, colocated=colocated),
            other_version=labels[role, name]["version"] not in versions,
            model=labels[role, name]["model"],
            release=labels[role, name]["release"],
        )
