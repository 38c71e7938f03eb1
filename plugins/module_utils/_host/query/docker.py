# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Queries the Docker Engine of this server and its components."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..._docker import dockerd
from ..._docker.client import DockerError, get
from ..._hccn.parsers import version_key

# Older engines refuse clone3, see host-docker-old.
DOCKER_MINIMUM = "20.10.10"


@dataclass(frozen=True)
class Docker:
    """The Docker Engine, if ``installed``. ``problem``: why it does not answer, or None."""

    installed: bool
    problem: str | None = None
    version: str | None = None
    driver: str | None = None
    cgroup: str | None = None
    root: str | None = None
    image_architecture: str | None = None
    has_image: bool = False
    # Of an old one: whether clone3 is in the seccomp list of the program that runs (None: it cannot be read);
    # whose build it is; which runc it starts; and whether it is another product behind the same socket.
    clone3: bool | None = None
    runc: str | None = None
    product: str = ""
    # Of which seccomp profile its containers get: default or builtin, a file, unconfined; empty: of none.
    seccomp: str = "default"


def container_name(listed: Mapping[str, Any]) -> str:
    """Return the name of a container from the engine's list."""
    return str((listed.get("Names") or ["?"])[0]).lstrip("/")


def inspect_docker(image: str, socket_path: str) -> tuple[Docker, list[dict[str, Any]]]:
    """Return the Docker Engine, with what it knows of the image, and its running containers."""
    installed = dockerd.dockerd_path() is not None
    try:
        info = dockerd.info(socket_path)
        containers = json.loads(get("/containers/json", socket_path, dockerd.ANSWER_SECONDS))
    except DockerError as error:
        return Docker(installed, str(error) if installed else None), []
    except ValueError:
        return Docker(installed, "its answers are no JSON"), []
    version = info.get("ServerVersion") or ""
    clone3, runc, product = None, None, ""
    if version_key(version) < version_key(DOCKER_MINIMUM):
        clone3 = knows_clone3(version)
        runc, product = components(socket_path)
    details: dict[str, Any] = {}
    if image:
        with suppress(DockerError, ValueError):
            details = json.loads(get(f"/images/{quote(image)}/json", socket_path, dockerd.ANSWER_SECONDS))
    return (
        Docker(
            True,
            None,
            info.get("ServerVersion"),
            info.get("Driver"),
            info.get("CgroupDriver"),
            info.get("DockerRootDir"),
            details.get("Architecture") or None,
            bool(details),
            clone3,
            runc,
            product,
            seccomp_profile(info.get("SecurityOptions")),
        ),
        containers,
    )


def seccomp_profile(options: object) -> str:
    """Return the profile from ``name=seccomp,profile=default`` in the security options; empty: no seccomp."""
    if not isinstance(options, list):
        return "default"
    for option in options:
        values = dict(pair.partition("=")[::2] for pair in str(option).split(","))
        if values.get("name") == "seccomp" or option == "seccomp":
            return values.get("profile") or "default"
    return ""


def knows_clone3(version: str) -> bool | None:
    """Return whether the engine's program contains clone3, as builds with it in their seccomp list do.

    None if the program cannot be read, or is not the running one (after an update without a restart).
    """
    pid = dockerd.daemon_pid()
    path = f"/proc/{pid}/exe" if pid else dockerd.dockerd_path()
    try:
        with (Path(path or "/")).open("rb") as handle:
            program = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        with program:
            return program.find(b"clone3") >= 0 if program.find(version.encode()) >= 0 else None
    except (OSError, ValueError):
        return None


def components(socket_path: str) -> tuple[str | None, str]:
    """Return the version of runc, and ``Podman Engine`` if Podman answers in place of the Docker Engine."""
    try:
        listed = json.loads(get("/version", socket_path, dockerd.ANSWER_SECONDS)).get("Components") or ()
    except (DockerError, ValueError):
        return None, ""
    versions = {str(component.get("Name")): str(component.get("Version") or "") for component in listed}
    return versions.get("runc"), next((name for name in versions if "podman" in name.lower()), "")
