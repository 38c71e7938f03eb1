# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the modules deployment_info and deployment_directory, in plain Python."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .._files import safe_paths
from .._files.contents import text_sha256
from .._findings import RolloutError
from .._front import state as front_state
from .._front.catalogue import FRONT_CHECKS
from . import colours, guard_unit, history, router_modules, running
from . import nodes as deployment_nodes
from .probe import probe

DEPLOYMENT = "pd_rollout.deployment"
ROLE = "pd_rollout.role"
# The value of that label for routers.
ROUTER = "proxy"
INSTANCE = "pd_rollout.instance"
KEY = "pd_rollout.key"
# Only root may enter the directory, run the scripts, read the key.
DIRECTORY_MODE = SCRIPT_MODE = 0o700
SECRET_MODE = 0o600


def scripts_of(container: Mapping[str, Any]) -> list[str]:
    """Return the launch scripts that are mounted into a container."""
    sources = (mount.get("Source", "") for mount in container.get("Mounts", []))
    return sorted(source for source in sources if source.endswith(".sh"))


def compare(
    containers: Sequence[Mapping[str, Any]],
    roles: Sequence[str],
    planned: Sequence[Mapping[str, Any]],
    ids: Mapping[str, str],
    image_ids: Mapping[str, str],
    kept: Sequence[str] = (),
) -> dict[str, Any]:
    """Return ``strays``, ``running`` and ``broken`` of deployment_info.

    containers: the engine's list of the deployment's containers.
    roles: roles of the containers to consider.
    planned: the slices of the plan for this server.
    ids: names of the API keys, from key_ids().
    image_ids: IDs of the planned images that exist on this server.
    kept: names of further containers that are not strays.
    """
    found = {
        container["Names"][0].lstrip("/"): container
        for container in containers
        if container["Labels"].get(ROLE) in roles
    }
    names = {plan["container"] for plan in planned}
    strays = [
        {"name": name, "image": container["ImageID"], "scripts": scripts_of(container)}
        for name, container in sorted(found.items())
        if name not in names and name not in kept
    ]
    running: list[str] = []
    broken: list[str] = []
    for plan in planned:
        container = found.get(plan["container"], {"State": "missing", "Labels": {}, "ImageID": None})
        wanted = dict(plan["labels"])
        if plan.get("secret_path"):
            wanted[KEY] = ids[plan["secret_path"]]
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


def is_as_planned(path: Path, mode: int, content_digest: str | None = None, owner: int = 0) -> bool:
    """Return whether a file or directory exists with this mode, owner and, if given, SHA-256."""
    try:
        status = path.stat()
        same = content_digest is None or hashlib.sha256(path.read_bytes()).hexdigest() == content_digest
    except OSError:
        return False
    return same and stat.S_IMODE(status.st_mode) == mode and status.st_uid == owner


def outdated(
    planned: Sequence[Mapping[str, Any]], secret_digest: str, ids: Mapping[str, str], owner: int = 0
) -> list[str]:
    """Return ``outdated`` of deployment_info: files and directories that differ from the plan.

    planned: the slices of the plan for this server.
    secret_digest: SHA-256 of the API key.
    ids: names of the API keys, from key_ids().
    owner: user ID that must own them.
    """
    wanted: dict[Path, tuple[int, str | None]] = {}
    for plan in planned:
        script = Path(plan["script_path"])
        wanted[script.parent] = (DIRECTORY_MODE, None)
        wanted[script] = (SCRIPT_MODE, plan.get("script_digest") or text_sha256(plan["script"]))
        if plan.get("secret_path"):
            # The name first: a run that ends between the two leaves a key that differs, which then gets a new
            # name.
            wanted[Path(plan["secret_path"] + safe_paths.KEY_ID)] = (
                SECRET_MODE,
                text_sha256(ids[plan["secret_path"]]),
            )
            wanted[Path(plan["secret_path"])] = (SECRET_MODE, secret_digest)
    return [
        str(path) for path, (mode, content) in wanted.items() if not is_as_planned(path, mode, content, owner)
    ]


def key_ids(planned: Sequence[Mapping[str, Any]], secret_digest: str, owner: int = 0) -> dict[str, str]:
    """Return a random name for the content of each API key file, by the path of the file.

    The name is in a file beside the key, and in a label of the containers that have read the key. A changed
    key gets a new name, so that the containers are recreated. Nothing about the key can be learned from it.
    """
    found = {}
    for path in {plan["secret_path"] for plan in planned if plan.get("secret_path")}:
        known = ""
        if is_as_planned(Path(path + safe_paths.KEY_ID), SECRET_MODE, None, owner) and same_content(
            Path(path), secret_digest
        ):
            known = Path(path + safe_paths.KEY_ID).read_text().strip()
        found[path] = known if KEY_ID.fullmatch(known) else secrets.token_hex(8)
    return found


KEY_ID = re.compile("[0-9a-f]{16}")


def same_content(path: Path, content_digest: str) -> bool:
    """Return whether a file has this SHA-256."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == content_digest
    except OSError:
        return False


def refused(options: Mapping[str, Any]) -> safe_paths.Refused | None:
    """Return the error if this call would reach beyond the deployment directory, or None. Needs no server."""
    try:
        safe_paths.name(options["deployment"], "container_deployment (pd_deployment)")
        if options.get("directory") is None:
            return None
        directory = safe_paths.directory(
            options["directory"], "container_directory (pd_host_dir and pd_deployment)"
        )
        for plan in options.get("planned") or []:
            for key in ("script_path", "secret_path"):
                if plan.get(key):
                    safe_paths.inside(plan[key], directory, f"{key} of {plan.get('container')}")
            if plan.get("runtime"):
                path = plan["runtime"]["path"]
                safe_paths.inside(path, directory, f"runtime of {plan.get('container')}")
    except safe_paths.Refused as error:
        return error
    return None


def reduced(planned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return slices without environment and script, since a server's logs contain a module's arguments."""
    return [
        {
            **{key: value for key, value in plan.items() if key not in ("argv", "env", "ranks", "script")},
            **({"script_digest": text_sha256(plan["script"])} if "script" in plan else {}),
        }
        for plan in planned
    ]


ARGUMENTS = {
    "deployment": {"type": "str", "required": True},
    "directory": {"type": "str"},
    "roles": {"type": "list", "elements": "str", "required": True},
    "planned": {"type": "list", "elements": "dict", "default": []},
    "kept": {"type": "list", "elements": "str", "default": []},
    "secret_digest": {"type": "str", "default": "", "no_log": True},
    "front": {"type": "dict"},
    "front_digests": {"type": "dict", "default": {}, "no_log": True},
    "guard": {"type": "dict"},
    "require_engine": {"type": "bool", "default": True},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def state(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of deployment_info. The option ``_check_mode`` is whether check mode is on."""
    refusal = refused(options)
    if refusal is not None:
        return refusal.failure()
    directory = options.get("directory")
    try:
        if directory is not None:
            safe_paths.existing(
                safe_paths.directory(directory, "container_directory"), "container_directory (pd_host_dir)"
            )
    except safe_paths.Refused as error:
        return error.failure()
    docker = DockerApi(options["docker_socket"])
    reachable = True
    containers: list[dict[str, Any]] = []
    image_ids: dict[str, str] = {}
    warnings: list[str] = []
    try:
        containers = docker.containers({DEPLOYMENT: options["deployment"]})
        for image in {plan["image"] for plan in options["planned"]}:
            identity = docker.image_id(image)
            if identity:
                image_ids[image] = identity
    except DockerError as error:
        if options["require_engine"] and not options["_check_mode"]:
            return error.failure(f"The containers of deployment {options['deployment']} cannot be listed.")
        reachable = False
        if not options["require_engine"] and (
            shutil.which("dockerd") or Path(options["docker_socket"]).exists()
        ):
            # Without an engine there are no containers; but an engine that is down restarts them later.
            warnings = [
                f"The containers of deployment {options['deployment']}, if any, were not removed: {error}. "
                "Start the Docker Engine (systemctl start docker), and run the playbook again."
            ]
    ids = key_ids(options["planned"], options["secret_digest"])
    seen = Seen(options, docker, containers, ids, image_ids)
    try:
        front, routers, planned = _routers(seen)
        result = seen.compared(planned)
        nodes = deployment_nodes.look(docker, planned, containers, result["broken"])
        for node, plan in zip(nodes, planned):
            node["answers"] = not node["why"] and serving([plan])
    except DockerError as error:
        return error.failure("The planned containers cannot be inspected.")
    except colours.Held as error:
        return _port_held(error).failure()
    for stray in result["strays"]:
        # Other mounted scripts are kept.
        stray["scripts"] = [path for path in stray["scripts"] if safe_paths.is_launch_script(path)]
    files = outdated(planned, options["secret_digest"], ids) + incomplete_modules(planned)
    left = leftover_modules(options)
    if routers is not None:
        routers["retire"] = colours.retiring(seen.pair, result["strays"], seen.held, seen.front_at)
        names = {router["name"] for router in routers["retire"]}
        result["strays"] = [stray for stray in result["strays"] if stray["name"] not in names]
        if names:
            # A router that still serves may use them.
            routers["leftovers"], left = left, []
    guard = {"settled": True} if directory is None else guard_unit.look(options.get("guard"), directory)
    # Running containers may differ from the plan, too.
    result["broken"] += [
        node["instance"] for node in nodes if node["why"] and node["instance"] not in result["broken"]
    ]
    found = {"changed": False, "reachable": reachable, "outdated": files, "key_ids": ids, "leftovers": left}
    differs = files or left or result["strays"] or any(node["pending"] for node in nodes)
    settled = reachable and not differs and front["settled"] and (routers is None or colours.settled(routers))
    settled = settled and guard["settled"]
    return {
        **found,
        "nodes": nodes,
        "front": front,
        "guard": guard,
        "routers": routers,
        "settled": settled and all(node["answers"] for node in nodes),
        "containers": running.containers(
            containers,
            {plan["container"]: image_ids[plan["image"]] for plan in planned if plan["image"] in image_ids},
        ),
        "lists": running.lists(containers, routers),
        "drained": running.drained(directory),
        "routers_up": running.routers_up(containers),
        "revision": _revision(directory),
        "weights": _weights(planned),
        **result,
        **({"warnings": warnings} if warnings else {}),
    }


def _revision(directory: str | None) -> dict[str, Any] | None:
    """Return the record of the newest revision on this server."""
    return None if directory is None else history.newest(Path(directory, safe_paths.HISTORY))


def _weights(planned: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of the list of hashes beside the weights of the engines; empty without one."""
    paths = {plan["model_path"] for plan in planned if plan.get("model_path")}
    return next((found for found in map(history.weights, sorted(paths)) if found), "")


def _text(path: str) -> str:
    """Return the text of a launch script; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def incomplete_modules(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the directories with a router's modules that are not complete."""
    runtimes = [plan["runtime"] for plan in planned if plan.get("runtime")]
    return [
        runtime["path"]
        for runtime in runtimes
        if not router_modules.is_complete(
            runtime["path"], runtime["wheels"].get(platform.machine()) or {}, os.geteuid()
        )
    ]


def leftover_modules(options: Mapping[str, Any]) -> list[str]:
    """Return the directories with modules of routers that are no longer planned."""
    if options.get("directory") is None or ROUTER not in options["roles"]:
        return []
    wanted = [plan["runtime"]["path"] for plan in options["planned"] if plan.get("runtime")]
    return router_modules.leftovers(options["directory"], wanted)


@dataclass(frozen=True)
class Seen:
    """What a server has, for comparisons with slices of the plan."""

    options: Mapping[str, Any]
    docker: DockerApi
    containers: Sequence[Mapping[str, Any]]
    # From key_ids(), and the IDs of the planned images.
    ids: Mapping[str, str]
    image_ids: Mapping[str, str]

    @property
    def pair(self) -> list[Mapping[str, Any]]:
        """The slices of the two routers behind a front."""
        return [plan for plan in self.options["planned"] if plan.get("colour")]

    @property
    def held(self) -> dict[str, list[str]]:
        """Where each router that runs listens, by the name of its container, as its launch script says."""
        return {
            container["Names"][0].lstrip("/"): [
                at for script in scripts_of(container) for at in colours.listens(_text(script))
            ]
            for container in self.containers
            if container["Labels"].get(ROLE) == ROUTER
            and container["State"] in ("running", "restarting", "paused")
        }

    @property
    def front_at(self) -> str:
        """Where the front is to listen."""
        front = self.options.get("front") or {}
        return f"{front.get('host')}:{front.get('port')}"

    def compared(self, planned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the result of compare() for these slices."""
        options = self.options
        return compare(
            self.containers, options["roles"], planned, self.ids, self.image_ids, options.get("kept") or []
        )

    def as_planned(self, planned: Sequence[Mapping[str, Any]]) -> set[str]:
        """Return the names of the containers that run as these slices say. Raises DockerError."""
        broken = self.compared(planned)["broken"]
        looks = deployment_nodes.look(self.docker, planned, self.containers, broken)
        return {node["container"] for node in looks if not node["why"]}


def _port_held(error: colours.Held) -> RolloutError:
    """Return the error for a router that cannot be started beside the one that serves."""
    return RolloutError(
        FRONT_CHECKS.finding(
            "front-router-port-held",
            f"the {error.plan['colour']} router of the plan needs a port of the router that serves",
            variable="pd_proxy_port",
            seen=str(error),
        )
    )


def _routers(
    seen: Seen,
) -> tuple[dict[str, Any], dict[str, Any] | None, list[Mapping[str, Any]]]:
    """Return the state of the front, the choice between two routers, and the slices without the other one.

    The choice is None if there is one router, or none. Raises DockerError.
    """
    planned: list[Mapping[str, Any]] = list(seen.options["planned"])
    if seen.options.get("directory") is None:
        return {"settled": True}, None, planned
    folder = Path(seen.options["directory"], "front")
    if ROUTER not in seen.options["roles"]:
        return {"present": folder.is_dir(), "settled": True}, None, planned
    front = front_state.look(seen.options.get("front"), seen.options.get("front_digests") or {}, folder)
    pair = seen.pair
    if not pair:
        return front, None, planned
    chosen = colours.choose(pair, front["active"], seen.as_planned(pair), seen.held)
    kept = [plan for plan in planned if not plan.get("colour") or plan is chosen]
    choice = {"serve": chosen["colour"], "active": front["active"], "retire": [], "leftovers": []}
    return front, choice, kept


def serving(planned: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the health checks of these slices of the plan answer as they must."""
    return all(
        probe(check["url"], check["expect"])[0] for part in planned for check in part.get("health") or ()
    )


def folder(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of deployment_directory. The option ``_check_mode`` is whether check mode is on."""
    wanted, state_, variable = options["path"], options["state"], options["variable"]
    check_mode = options["_check_mode"]
    left: list[str] = []
    refusal = folder_refused(options)
    if refusal is not None:
        return refusal.failure()
    if state_ == "named":
        return {"changed": False, "path": wanted, "left": []}
    try:
        wanted = safe_paths.directory(wanted, variable)
        if state_ == "present":
            changed = safe_paths.make(wanted, variable, check_mode)
        else:
            changed, left = safe_paths.remove(wanted, variable, check_mode)
    except safe_paths.Refused as error:
        return error.failure()
    except OSError as error:
        why = f"{error.filename or wanted}: {error.strerror}"
        return {"failed": True, "changed": False, "msg": why}
    result: dict[str, Any] = {"changed": changed, "path": wanted, "left": left}
    if left:
        result["msg"] = (
            f"{wanted} was kept, because it contains {safe_paths.listed(left)}, which no deployment has "
            "written. Check the content and remove it yourself."
        )
        result["warnings"] = [result["msg"]]
    return result


FOLDER_ARGUMENTS = {
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["named", "present", "absent"], "default": "present"},
    "variable": {"type": "str", "default": "path"},
    "deployment": {"type": "str"},
}


def folder_refused(options: Mapping[str, Any]) -> safe_paths.Refused | None:
    """Return the error if the module deployment_directory would refuse, or None. Needs no server."""
    variable = options.get("variable") or "path"
    try:
        if options.get("deployment") is not None:
            safe_paths.name(options["deployment"], "pd_deployment")
        elif options.get("state") == "named":
            safe_paths.own_path(options.get("path"), variable)
            return None
        safe_paths.directory(options.get("path"), variable)
    except safe_paths.Refused as error:
        return error
    return None
