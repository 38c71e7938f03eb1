# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules deployment_state and deployment_record do once their arguments are read, as plain Python.

The nodes of an instance form one group when they start, and none can join it later: a node that runs may wait
for a group that works without it. The Docker Engine cannot tell, so each start that a rollout makes is noted
beside the launch script, with an identity that is the same on all nodes. A node whose last start is another
than the one that is noted has left its group, whoever started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from .docker_api import DockerApi, DockerError
from .health_probe import other_list

DEPLOYMENT = "pd_rollout.deployment"
ROLE = "pd_rollout.role"
INSTANCE = "pd_rollout.instance"
# Only root may enter the directory, run the scripts, read the key.
DIRECTORY_MODE = SCRIPT_MODE = 0o700
SECRET_MODE = 0o600


def scripts_of(container):
    """The launch scripts that are mounted into a container."""
    sources = (mount.get("Source", "") for mount in container.get("Mounts", []))
    return sorted(source for source in sources if source.endswith(".sh"))


def difference(plan, found, secret_labels, image_ids):
    """How the container of a slice differs from the plan by the engine's list, in words; empty: not at all.

    `found`: what the list says of it, None where there is none.
    """
    if found is None:
        return "there is no container"
    if found["State"] != "running":
        return f"its container is {found['State']}"
    if found["ImageID"] != image_ids.get(plan["image"], found["ImageID"]):
        return "its container was made from another image"
    wanted = {**plan["labels"], **(secret_labels if plan.get("secret_path") else {})}
    if any(found["Labels"].get(key) != str(value) for key, value in wanted.items()):
        return "its container was made by another plan"
    return ""


def compare(containers, roles, planned, secret_labels, image_ids):
    """Strays, running and broken, from the engine's list of containers (see RETURN)."""
    found = by_name(containers, roles)
    names = {plan["container"] for plan in planned}
    strays = [
        {"name": name, "image": container["ImageID"], "scripts": scripts_of(container)}
        for name, container in sorted(found.items())
        if name not in names
    ]
    running, broken = [], []
    for plan in planned:
        container = found.get(plan["container"])
        if container and container["State"] in ("running", "restarting", "paused"):
            running.append(plan["container"])
        if difference(plan, container, secret_labels, image_ids):
            broken.append(plan["labels"][INSTANCE])
    return {"strays": strays, "running": running, "broken": broken}


def by_name(containers, roles):
    """The containers of these roles in the engine's list."""
    return {
        container["Names"][0].lstrip("/"): container
        for container in containers
        if container["Labels"].get(ROLE) in roles
    }


def group_of(plan):
    """The hosts of the group that a slice's engine forms with others, by rank; empty where it is alone."""
    nodes = sorted((plan.get("ready") or {}).get("nodes") or [], key=lambda node: node["rank"])
    return [node["host"] for node in nodes] if len(nodes) > 1 else []


def record_path(plan):
    """Where the last start by a rollout is noted, of a node of a group."""
    return Path(plan["script_path"]).with_suffix(".started")


def read_record(plan):
    """What is noted of a node, or None."""
    try:
        found = json.loads(record_path(plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def start_of(details):
    """What tells a start of a container from every other start."""
    return {"container": details["Id"], "started_at": details["State"]["StartedAt"]}


def left_group(details, record):
    """Why a running node cannot be in the group that its rollout formed, in words; empty: it can.

    `record`: what is noted of it. Without one, as after a rollout by an earlier release, only restarts by the
    Docker Engine can be known.
    """
    restarts = details.get("RestartCount") or 0
    if restarts:
        return f"the Docker Engine has restarted its container ({restarts} time{'s' * (restarts > 1)})"
    if record is not None and any(record.get(key) != value for key, value in start_of(details).items()):
        return f"its container was started outside of a rollout, at {details['State']['StartedAt'][:19]}Z"
    return ""


def other_backends(plan):
    """How the list of a running proxy differs from the plan's, in words; empty where it does not."""
    expected = plan.get("expected") or {}
    seen = other_list(plan["health_url"], expected) if expected and plan.get("health_url") else None
    if seen is None:
        return ""
    counts = ", ".join(f"{key} {seen[key]} instead of {expected[key]}" for key in sorted(expected))
    return f"its list of backends has been changed: {counts}"


def look_at_node(docker, plan, why):
    """One entry of RV(nodes). `why`: how it differs from the plan by the engine's list."""
    group = group_of(plan)
    record = read_record(plan) if group else None
    node = {
        "container": plan["container"],
        "instance": plan["labels"][INSTANCE],
        "group": group,
        "why": why,
        "started_at": None,
        "noted": record is not None,
        "generation": (record or {}).get("generation") or "",
    }
    details = None if why else docker.inspect(plan["container"])
    if details is not None:
        node["started_at"] = details["State"]["StartedAt"]
        node["why"] = left_group(details, record) if group else other_backends(plan)
    return node


def digest(text):
    """SHA-256 of a text as it is written to a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_as_planned(path, mode, content_digest=None, owner=0):
    """Whether a file (with the content) or a directory (without) is there, root's, with this mode."""
    try:
        status = path.stat()
        same = content_digest is None or hashlib.sha256(path.read_bytes()).hexdigest() == content_digest
    except OSError:
        return False
    return same and stat.S_IMODE(status.st_mode) == mode and status.st_uid == owner


def outdated(planned, secret_digest, owner=0):
    """Paths of files and directories that are not as planned (see RETURN)."""
    wanted = {}
    for plan in planned:
        script = Path(plan["script_path"])
        wanted[script.parent] = (DIRECTORY_MODE, None)
        wanted[script] = (SCRIPT_MODE, digest(plan["script"]))
        if plan.get("secret_path"):
            wanted[Path(plan["secret_path"])] = (SECRET_MODE, secret_digest)
    return [
        str(path) for path, (mode, content) in wanted.items() if not is_as_planned(path, mode, content, owner)
    ]


ARGUMENTS = {
    "deployment": {"type": "str", "required": True},
    "roles": {"type": "list", "elements": "str", "required": True},
    "planned": {"type": "list", "elements": "dict", "default": []},
    "secret_labels": {"type": "dict", "default": {}, "no_log": False},
    "secret_digest": {"type": "str", "default": "", "no_log": False},
    "require_engine": {"type": "bool", "default": True},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def state(options):
    """The module's result, with `failed` where it fails. Option `_check_mode`: whether it is on."""
    docker = DockerApi(options["docker_socket"])
    reachable, containers, image_ids = True, [], {}
    try:
        containers = docker.containers({DEPLOYMENT: options["deployment"]})
        for image in {plan["image"] for plan in options["planned"]}:
            identity = docker.image_id(image)
            if identity:
                image_ids[image] = identity
    except DockerError as error:
        if options["require_engine"] and not options["_check_mode"]:
            why = f"Cannot list the containers of deployment {options['deployment']}: {error}"
            return {"failed": True, "changed": False, "msg": why}
        reachable = False
    result = compare(containers, options["roles"], options["planned"], options["secret_labels"], image_ids)
    files = outdated(options["planned"], options["secret_digest"])
    nodes = []
    found = by_name(containers, options["roles"])
    for plan in options["planned"]:
        why = difference(plan, found.get(plan["container"]), options["secret_labels"], image_ids)
        try:
            node = look_at_node(docker, plan, why)
        except DockerError as error:
            return {"failed": True, "changed": False, "msg": f"Cannot look at {plan['container']}: {error}"}
        nodes.append(node)
        if node["why"] and node["instance"] not in result["broken"]:
            result["broken"].append(node["instance"])
    return {"changed": False, "reachable": reachable, "outdated": files, "nodes": nodes, **result}


RECORD_ARGUMENTS = {
    "planned": {"type": "list", "elements": "dict", "required": True},
    "before": {"type": "list", "elements": "dict", "default": []},
    "generation": {"type": "str", "default": ""},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def record(options):
    """Note the starts of the nodes of groups; the result of deployment_record."""
    docker = DockerApi(options["docker_socket"])
    before = {node["container"]: node["started_at"] for node in options["before"]}
    started, noted = [], []
    if options["_check_mode"]:
        return {"changed": False, "started": started, "noted": noted}
    try:
        for plan in options["planned"]:
            details = docker.inspect(plan["container"])
            if details is None:
                continue
            start = start_of(details)
            if start["started_at"] != before.get(plan["container"]):
                started.append(plan["container"])
            is_ours = plan["container"] in started
            if group_of(plan) and (is_ours or read_record(plan) is None):
                # Which of its peers started with one that was there before is not known.
                write_record(plan, {"generation": options["generation"] if is_ours else "", **start})
                noted.append(plan["container"])
    except (DockerError, OSError) as error:
        why = f"Cannot note what this run has started: {error}"
        return {"failed": True, "changed": bool(noted), "msg": why}
    return {"changed": bool(noted), "started": started, "noted": noted}


def write_record(plan, content):
    path = record_path(plan)
    handle, draft = tempfile.mkstemp(prefix="." + path.name, dir=str(path.parent))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise
