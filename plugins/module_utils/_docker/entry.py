# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module docker_info, in plain Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from . import dockerd
from .client import DEFAULT_SOCKET, DockerError

INFO_ARGUMENTS = {
    "docker_socket": {"type": "path", "default": DEFAULT_SOCKET},
    "wait": {"type": "int", "default": 0},
}


def docker_info(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails. ``_check_mode`` is one of the options."""
    wait = options["wait"]
    result = {
        "changed": False,
        "check_mode": options["_check_mode"],
        "installed": dockerd.dockerd_path() is not None,
        "running": False,
        "enabled": dockerd.enabled_at_boot(),
        "python_requests": importlib.util.find_spec("requests") is not None,
    }
    try:
        info = dockerd.wait_for_info(wait, options["docker_socket"])
    except DockerError as error:
        result["reason"] = str(error)
        if wait:
            result.update(error.failure(f"The Docker Engine did not answer within {wait} s."))
    else:
        result.update(
            running=True,
            version=info["ServerVersion"],
            containers_running=info.get("ContainersRunning", 0),
            live_restore=bool(info.get("LiveRestoreEnabled")),
            root_directory=info.get("DockerRootDir", ""),
        )
    return result
