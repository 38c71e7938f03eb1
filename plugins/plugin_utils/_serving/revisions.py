# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a revision says of a deployment, how revisions differ, and which of them runs.

A revision is a record (``of_plan``) beside the plan; module_utils/_serving/history.py keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...module_utils._findings import few
from ...module_utils._front.files import CONFIG, digests
from ..rollout.plan_dict import EngineDict, PlanDict
from .canary import askers

HASH, VERSION = "pd_rollout.hash", "pd_rollout.version"
HEADINGS = ("revision", "when", "who", "release", "topology", "what changed")

Record = Mapping[str, Any]
Looks = Mapping[str, Mapping[str, Any]]


def of_plan(
    plan: PlanDict, looks: Looks, texts: Mapping[str, Sequence[str]], *, who: str, when: str
) -> dict[str, Any]:
    """Return the record of what is deployed, without its number.

    looks: results of deployment_info by host, from after the change.
    texts: what each pair has answered, as the module canary returns them.
    who: user and controller.
    when: time of the end of the change, ISO 8601.
    """
    return {
        "hash": plan["hash"],
        "deployment": plan["deployment"],
        "when": when,
        "who": who,
        "release": plan["release"]["name"],
        "topology": plan["topology"],
        "image": {"reference": plan["image"], "ids": image_ids(looks)},
        "weights": weights(looks),
        **deployed(plan),
        "servers": {host: share["address"] for host, share in plan["hosts"].items() if occupied(share)},
        "seconds": seconds(looks),
        "texts": dict(texts),
    }


def deployed(plan: PlanDict) -> dict[str, Any]:
    """Return what a plan deploys: the engines, routers and fronts, by the hashes of what they are made of.

    It is the same for two inventories that differ in their names alone.
    """
    known = versions(plan)
    return {
        "instances": {
            instance["name"]: {
                "role": instance["role"],
                "version": known[instance["name"]],
                "engines": _engines(plan, instance["name"]),
            }
            for instance in plan["instances"]
        },
        "routers": {
            host: sorted(router["labels"][HASH] for router in share["routers"])
            for host, share in plan["hosts"].items()
            if share["routers"]
        },
        "fronts": {
            host: digests({CONFIG: share["front"]["config"]})[CONFIG]
            for host, share in plan["hosts"].items()
            if share["front"]
        },
    }


def occupied(share: Mapping[str, Any]) -> bool:
    """Return whether a slice of a plan has something that runs."""
    return bool(share["engines"] or share["routers"])


def versions(plan: PlanDict) -> dict[str, str]:
    """Return the versions of the instances, which must not be paired with others."""
    return {
        engine["instance"]: engine["labels"][VERSION]
        for share in plan["hosts"].values()
        for engine in share["engines"]
    }


def _engines(plan: PlanDict, instance: str) -> dict[str, dict[str, str]]:
    """Return what the containers of an instance are made from: host → container → hash."""

    def mine(engines: Iterable[EngineDict]) -> dict[str, str]:
        return {one["container"]: one["labels"][HASH] for one in engines if one["instance"] == instance}

    every = {host: mine(share["engines"]) for host, share in plan["hosts"].items()}
    return {host: engines for host, engines in every.items() if engines}


def image_ids(looks: Looks) -> list[str]:
    """Return the IDs of the images from which the engines run; not on drained servers, which stay as they
    are."""
    return sorted(
        {
            one["image"]
            for look in looks.values()
            if not look.get("drained")
            for one in look.get("containers") or ()
            if one["up"]
        }
    )


def weights(looks: Looks) -> str:
    """Return the SHA-256 of the list of hashes beside the weights; empty if it is unknown, or not the same
    everywhere."""
    found = {look["weights"] for look in looks.values() if look.get("weights")}
    return found.pop() if len(found) == 1 else ""


def seconds(looks: Looks) -> dict[str, dict[str, float]]:
    """Return how long the last start of each node took: instance → host → seconds."""
    found: dict[str, dict[str, float]] = {}
    for host, look in looks.items():
        for node in look["nodes"]:
            if node.get("seconds") is not None:
                found.setdefault(node["instance"], {})[host] = node["seconds"]
    return found


def same(record: Record, other: Record) -> bool:
    """Return whether two revisions deploy the same. Weights that one of them does not know are no
    difference."""
    known = {one["weights"] for one in (record, other) if one["weights"]}
    images = [set(one["image"]["ids"]) for one in (record, other)]
    alike = all(record[part] == other[part] for part in ("instances", "routers", "fronts"))
    return alike and images[0] == images[1] and len(known) < 2


def newest(records: Iterable[Record | None], deployment: str) -> Record | None:
    """Return the newest of the revisions of a deployment."""
    mine = [one for one in records if one is not None and one["deployment"] == deployment]
    return max(mine, key=lambda one: int(one["revision"]), default=None)


def keepers(plan: PlanDict) -> list[str]:
    """Return the servers on which revisions are kept: those of the routers, else of the decoders' heads."""
    return askers(plan)


def due(plan: PlanDict, looks: Looks, known: Record | None, kept: Record | None, *, changes: bool) -> bool:
    """Return whether a run that succeeds has a revision to keep, or to add where it is missing.

    known: the newest revision anywhere.
    kept: the newest one on the controller.
    changes: whether the run changes anything.
    """
    if known is None or changes:
        return True
    where = [look.get("revision") for host, look in looks.items() if host in keepers(plan)]
    if any(one is None or one["revision"] != known["revision"] for one in (*where, kept)):
        return True
    now = {**deployed(plan), "image": {"ids": image_ids(looks)}, "weights": weights(looks)}
    return not same(known, now)


def known_texts(plan: PlanDict, looks: Looks, record: Record | None) -> dict[str, list[str]]:
    """Return what pairs answered in a revision, if the plan has both instances in the same version.

    None if the weights have been replaced since, or the image behind its name: then answers may differ.
    """
    if record is None or _replaced(looks, record):
        return {}
    now = versions(plan)
    as_before = {
        name for name, instance in record["instances"].items() if now.get(name) == instance["version"]
    }
    return {pair: texts for pair, texts in record["texts"].items() if as_before.issuperset(pair.split())}


def _replaced(looks: Looks, record: Record) -> bool:
    now = weights(looks)
    others = (one["other_image"] for look in looks.values() for one in look.get("containers") or ())
    return any(others) or bool(now and record["weights"] and now != record["weights"])


def runs(record: Record, found: Looks) -> bool:
    """Return whether a revision is what runs.

    found: results of revision_info by host. What is on drained servers, or on servers that were not reached,
        does not count.
    """
    here = {host: one for host, one in found.items() if not one["drained"]}
    wanted = {
        (host, container, value)
        for instance in record["instances"].values()
        for host, engines in instance["engines"].items()
        for container, value in engines.items()
        if host in here
    }
    up = [(host, one) for host, look in here.items() for one in look["containers"]]
    engines = [(host, one) for host, one in up if one["role"] in ("prefiller", "decoder")]
    if {(host, one["name"], one["hash"]) for host, one in engines} != wanted:
        return False
    if not {one["image"] for _, one in engines} <= {*record["image"]["ids"]}:
        return False
    if len(here) < len(found):
        # The routers' list is another one while a server is drained.
        return True
    return all(_routed(record, host, look) for host, look in here.items())


def _routed(record: Record, host: str, look: Mapping[str, Any]) -> bool:
    """Return whether the routers and the front of a host are those of a revision."""
    up = {one["hash"] for one in look["containers"] if one["role"] == "proxy"}
    wanted = set(record["routers"].get(host, ()))
    routed = bool(up) == bool(wanted) and up <= wanted
    return routed and bool(look["front"] == record["fronts"].get(host, ""))


def before(records: Sequence[Record], found: Looks) -> Record | None:
    """Return the revision to go back to: the newest that is not what runs; None if there is none.

    records: all revisions, the newest last.
    found: results of revision_info by host.
    """
    if not records:
        return None
    last = records[-1]
    if not runs(last, found):
        return last
    return next((one for one in reversed(records) if not same(one, last)), None)


def merged(stores: Iterable[Iterable[Record]], deployment: str) -> list[Record]:
    """Return the revisions of a deployment from all places where they are kept, the newest last."""
    found = {one["revision"]: one for store in stores for one in store if one["deployment"] == deployment}
    return [found[number] for number in sorted(found)]


def lines(records: Sequence[Record]) -> list[str]:
    """Return a table of revisions, the newest first."""
    befores: list[Record | None] = [None, *records]
    rows = [
        (
            str(one["revision"]),
            one["when"][:16].replace("T", " "),
            one["who"],
            one["release"],
            one["topology"],
            difference(one, other),
        )
        for one, other in zip(records, befores, strict=False)
    ]
    table = [HEADINGS, *reversed(rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def difference(record: Record, other: Record | None) -> str:
    """Return what has changed in a revision against the one before, in a line."""
    if other is None:
        return "-"
    return "; ".join(_differences(record, other)) or "other settings of the plan"


def _differences(record: Record, other: Record) -> Iterator[str]:
    if record["release"] != other["release"]:
        yield f"{other['release']} to {record['release']}"
    if record["image"] != other["image"]:
        yield "image"
    if record["weights"] != other["weights"] and record["weights"] and other["weights"]:
        yield "weights"
    now, then = record["instances"], other["instances"]
    shared = [name for name in now if name in then]
    for what, names in (
        ("added", [name for name in now if name not in then]),
        ("removed", [name for name in then if name not in now]),
        ("changed", [name for name in shared if now[name] != then[name]]),
    ):
        if names:
            yield f"{what} {few(names)}"
    if record["routers"] != other["routers"] and now == then:
        yield "routers"
    if record["fronts"] != other["fronts"]:
        yield "front"


def missing_servers(record: Record, inventory: Collection[str]) -> dict[str, str]:
    """Return the servers of a revision that the inventory lacks, with their addresses."""
    return {host: address for host, address in record["servers"].items() if host not in inventory}


def with_servers(plan: PlanDict, servers: Mapping[str, str]) -> dict[str, Any]:
    """Return a revision's plan in which exactly the servers of the inventory, by their addresses, have a
    slice: an empty one where the plan has nothing for them."""
    hosts = {host: share for host, share in plan["hosts"].items() if host in servers or occupied(share)}
    directory = next(share["directory"] for share in plan["hosts"].values())
    empty: dict[str, Any] = {
        host: {
            "address": address,
            "interface": None,
            "directory": directory,
            **{key: [] for key in ("chips", "ports", "peers", "engines", "routers")},
            **dict.fromkeys(("proxy", "front", "guard", "entry")),
        }
        for host, address in servers.items()
        if host not in hosts
    }
    # A plan of an earlier release knows of no guard.
    known = {host: {"guard": None, **share} for host, share in hosts.items()}
    return {**plan, "hosts": {**known, **empty}}
