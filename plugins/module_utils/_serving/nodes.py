# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a running node is in the group with which it was started, and the record from which this is known.

The nodes of an instance form one group when they start, and none can join it later: a running node may be
waiting for a group that works without it. The Docker Engine does not know this, so each start by a rollout is
recorded beside the launch script, with an ID that is the same on all nodes. A node whose last start differs
from the recorded one has left its group, whoever started it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .._findings import text_of
from .catalogue import ENGINE_CHECKS
from .probe import other_list

INSTANCE = "pd_rollout.instance"
# Identifies the file as one of this collection.
UNRECORDED = "The starts of this run cannot be recorded."
MARK = "Written by ascend.pd_rollout: the last start of this node by a rollout."


def group_of(plan: Mapping[str, Any]) -> list[str]:
    """Return the hosts of the group of a slice's engine, by rank; empty if it is alone."""
    nodes = sorted((plan.get("ready") or {}).get("nodes") or [], key=lambda node: node["rank"])
    return [node["host"] for node in nodes] if len(nodes) > 1 else []


def record_path(plan: Mapping[str, Any]) -> Path:
    """Return the path of the record of a node's last start by a rollout."""
    return Path(plan["script_path"]).with_suffix(".started")


def read_record(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a node, or None."""
    try:
        found = json.loads(record_path(plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def start_of(details: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies a start of a container."""
    return {"container": details["Id"], "started_at": details["State"]["StartedAt"]}


def left_group(details: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    """Return why a running node cannot be in the group that its rollout formed; empty if it can.

    details: the container's data from the Docker Engine.
    record: the record of its start. Without one, as after a rollout by an earlier release, only restarts by
        the Docker Engine are known.
    """
    restarts = details.get("RestartCount") or 0
    if restarts:
        return f"the Docker Engine has restarted its container ({restarts} time{'s' * (restarts > 1)})"
    if record is not None and any(record.get(key) != value for key, value in start_of(details).items()):
        return f"its container was started outside of a rollout, at {details['State']['StartedAt'][:19]}Z"
    return ""


def other_backends(plan: Mapping[str, Any]) -> str:
    """Return how the list of a running proxy differs from the plan's; empty if it does not."""
    expected = plan.get("expected") or {}
    seen = other_list(plan["health_url"], expected) if expected and plan.get("health_url") else None
    if seen is None:
        return ""
    counts = ", ".join(
        f"{key} {_value(seen[key])} instead of {_value(expected[key])}"
        for key in sorted(expected)
        if not isinstance(expected[key], list) or seen[key] != sorted(expected[key])
    )
    return f"its list of backends has been changed: {counts}"


def _value(value: Any) -> str:
    """Return a number, or a list of URLs, for a sentence."""
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


MAKE, RESTART = "make", "restart"


def difference(container: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return how a container differs from the plan, given its entry in the engine's list, or None; and what
    mends it, MAKE or RESTART."""
    if container is None:
        return "there is no container", MAKE
    if container["State"] != "running":
        return f"its container is {container['State']}", RESTART
    return "its container was created from another plan or another image", MAKE


def look(
    docker: DockerApi,
    planned: Sequence[Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]],
    broken: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the ``nodes`` of deployment_info.

    docker: the Docker Engine.
    planned: the slices of the plan for this server.
    containers: the engine's list of containers.
    broken: instances that differ from the plan according to that list.

    Raises DockerError.
    """
    found = {container["Names"][0].lstrip("/"): container for container in containers}
    return [
        look_at_node(
            docker,
            plan,
            difference(found.get(plan["container"])) if plan["labels"][INSTANCE] in broken else ("", ""),
        )
        for plan in planned
    ]


def look_at_node(docker: DockerApi, plan: Mapping[str, Any], differs: tuple[str, str]) -> dict[str, Any]:
    """Return the entry of one node. ``differs``: how it does according to the engine's list, and what mends
    it."""
    why, mend = differs
    group = group_of(plan)
    known = read_record(plan)
    record = known if group else None
    node: dict[str, Any] = {
        "container": plan["container"],
        "instance": plan["labels"][INSTANCE],
        "group": group,
        "why": why,
        "mend": mend,
        "started_at": None,
        "noted": record is not None,
        "generation": (record or {}).get("generation") or "",
        "pending": bool(why),
        "seconds": (known or {}).get("seconds"),
    }
    details = None if why else docker.inspect(plan["container"])
    if details is not None:
        node["started_at"] = details["State"]["StartedAt"]
        node["why"] = left_group(details, record) if group else other_backends(plan)
        # The only option that can be changed while it is running: `docker update --restart`.
        policy = details["HostConfig"]["RestartPolicy"]["Name"]
        node["mend"] = RESTART if node["why"] else ""
        node["pending"] = bool(node["why"]) or plan.get("restart_policy", policy) != policy
    return node


RECORD_ARGUMENTS = {
    "planned": {"type": "list", "elements": "dict", "required": True},
    "before": {"type": "list", "elements": "dict", "default": []},
    "generation": {"type": "str", "default": ""},
    "seconds": {"type": "dict", "default": {}},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def record(options: Mapping[str, Any]) -> dict[str, Any]:
    """Record the starts of nodes that are in groups, or how long starts took; return the result of
    deployment_record."""
    docker = DockerApi(options["docker_socket"])
    before = {node["container"]: node["started_at"] for node in options["before"]}
    durations = options.get("seconds") or {}
    started: list[str] = []
    noted: list[str] = []
    if options["_check_mode"]:
        return {"changed": False, "started": started, "noted": noted}
    try:
        for plan in options["planned"]:
            details = docker.inspect(plan["container"])
            if details is None:
                continue
            start = start_of(details)
            if durations:
                if plan["container"] in durations:
                    seconds = {"seconds": durations[plan["container"]]}
                    write_record(plan, {**(read_record(plan) or {}), **start, **seconds})
                    noted.append(plan["container"])
                continue
            if start["started_at"] != before.get(plan["container"]):
                started.append(plan["container"])
            is_ours = plan["container"] in started
            if group_of(plan) and (is_ours or read_record(plan) is None):
                # For a node that was running before, it is unknown which peers started with it.
                generation = options["generation"] if is_ours else ""
                write_record(plan, {**_seconds(read_record(plan)), "generation": generation, **start})
                noted.append(plan["container"])
    except DockerError as error:
        return {**error.failure(UNRECORDED), "changed": bool(noted)}
    except OSError as error:
        finding = ENGINE_CHECKS.finding(
            "engine-start-unrecorded",
            path=str(record_path(plan).parent),
            seen=error.strerror or str(error),
        )
        msg = text_of([finding], UNRECORDED)
        return {"failed": True, "changed": bool(noted), "findings": [finding.to_dict()], "msg": msg}
    return {"changed": bool(noted), "started": started, "noted": noted}


def _seconds(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how long the last start took, from a record of it."""
    seconds = (record or {}).get("seconds")
    return {} if seconds is None else {"seconds": seconds}


def write_record(plan: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    path = record_path(plan)
    handle, draft = tempfile.mkstemp(prefix="." + path.name, dir=str(path.parent))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"_": MARK, **content}, file)
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise
