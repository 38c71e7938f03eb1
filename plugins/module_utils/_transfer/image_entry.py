# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the module docker_image_info does once its arguments are read, as plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._docker.client import DEFAULT_SOCKET, DockerError
from .._docker.entry import docker_info
from .._docker.images import Images, file_system, is_shared, old_names
from .image_folder import DIRECTORY, Folder

ARGUMENTS = {
    "image": {"type": "str", "required": True},
    "digest": {"type": "str", "default": ""},
    "kinds": {
        "type": "list",
        "elements": "str",
        "choices": ["repository", "id"],
        "default": ["repository", "id"],
    },
    "archive": {"type": "path"},
    "directory": {"type": "path", "default": DIRECTORY},
    "keep": {"type": "int", "default": -1},
    "docker": {"type": "bool", "default": False},
}


def state(options: Mapping[str, Any]) -> dict[str, Any]:
    """The module's result, with `failed` where it fails. Option `_check_mode`: whether it is on."""
    if not options["docker"]:
        return image_state(options)
    check_mode = options["_check_mode"]
    docker = docker_info({"docker_socket": DEFAULT_SOCKET, "wait": 0, "_check_mode": check_mode})
    if not docker["running"] or not options["image"]:
        return {"changed": False, "image": options["image"], "docker": docker}
    return {**image_state(options), "docker": docker}


def image_state(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the image, by a Docker Engine that answers; `failed` where none does."""
    images = Images()
    try:
        found = images.inspect(options["image"]) or {}
        image_id = found.get("Id", "")
        digests = []
        if "repository" in options["kinds"] and found:
            named = [name.partition("@")[2] for name in found.get("RepoDigests") or []]
            digests += list(dict.fromkeys(named + images.recorded(image_id)))
        if "id" in options["kinds"] and found:
            digests.append(image_id)
        old = []
        if options["keep"] >= 0 and found:
            old = old_names(images.listed(), images.in_use(), options["image"], image_id, options["keep"])
    except DockerError as error:
        why = f"{error}. Is the Docker Engine running, and this root (become: true)?"
        return {"failed": True, "changed": False, "msg": why}
    archive = None
    if options["archive"]:
        path = options["archive"]
        archive = {"exists": Path(path).is_file(), "shared": is_shared(file_system(path))}
    return {
        "changed": False,
        "image": options["image"],
        "id": image_id,
        "size": found.get("Size", 0),
        "digests": digests,
        "right": bool(found) and options["digest"] in ("", *digests),
        "archive": archive,
        "leftover": bool(Folder(options["directory"]).left()),
        "old": old,
    }
