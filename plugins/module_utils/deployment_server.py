# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the module deployment_state does once its arguments are read, as plain Python."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from . import deployment_nodes
from .docker_api import DockerApi, DockerError

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


def compare(containers, roles, planned, secret_labels, image_ids):
    """Strays, running and broken, from the engine's list of containers (see RETURN)."""
    found = {
        container["Names"][0].lstrip("/"): container
        for container in containers
        if container["Labels"].get(ROLE) in roles
    }
    names = {plan["container"] for plan in planned}
    strays = [
        {"name": name, "image": container["ImageID"], "scripts": scripts_of(container)}
        for name, container in sorted(found.items())
        if name not in names
    ]
    running, broken = [], []
    for plan in planned:
        container = found.get(plan["container"], {"State": "missing", "Labels": {}, "ImageID": None})
        wanted = {**plan["labels"], **(secret_labels if plan.get("secret_path") else {})}
        if container["State"] in ("running", "restarting", "paused"):
            running.append(plan["container"])
        as_planned = (
            container["State"] == "running"
            and container["ImageID"] == image_ids.get(plan["image"], container["ImageID"])
            and all(container["Labels"].get(key) == str(value) for key, value in wanted.items())
        )
        if not as_planned:
            broken.append(plan["labels"][INSTANCE])
    return {"strays": strays, "running": running, "broken": broken}


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
    try:
        nodes = deployment_nodes.look(docker, options["planned"], containers, result["broken"])
    except DockerError as error:
        return {"failed": True, "changed": False, "msg": f"Cannot look at the planned containers: {error}"}
    # What runs may still not be as planned.
    result["broken"] += [
        node["instance"] for node in nodes if node["why"] and node["instance"] not in result["broken"]
    ]
    return {"changed": False, "reachable": reachable, "outdated": files, "nodes": nodes, **result}
