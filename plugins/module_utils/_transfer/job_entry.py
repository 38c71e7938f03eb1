# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the module docker_image_job does once its arguments are read, as plain Python."""

from __future__ import annotations

import time
from typing import Any

from .._files.private_folder import UnsafeFolder
from . import image_job
from . import status as phases
from .catalogue import TransferError
from .image_folder import DIRECTORY, Folder
from .registry import Endpoint, reference
from .status import ImageStatus

KINDS = ["registry", "archive", "controller", "docker", "peers"]
_ENDPOINT = {
    "base": {"type": "str", "required": True},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "ca": {"type": "str", "default": ""},
}
ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait": {"type": "bool", "default": False},
    "directory": {"type": "path", "default": DIRECTORY},
    "kind": {"type": "str", "choices": KINDS, "default": "peers"},
    "image": {"type": "str", "default": ""},
    "address": {"type": "str", "default": "127.0.0.1"},
    "token": {"type": "str", "default": "", "no_log": True},
    "archive": {"type": "path"},
    "digest": {"type": "str", "default": ""},
    "places": {"type": "list", "elements": "dict", "default": [], "options": _ENDPOINT},
    "hashes": {"type": "list", "elements": "str", "default": []},
    "size": {"type": "int", "default": 0},
    "packed": {"type": "bool", "default": False},
    "incoming": {"type": "path"},
    "number": {"type": "int", "default": -1},
    "idle": {"type": "int", "default": 300},
    "patience": {"type": "int", "default": 60},
    "load_timeout": {"type": "int", "default": 1800},
    "sources": {"type": "list", "elements": "list"},
    "hold": {"type": "float", "default": 2.0},
    "keep_part": {"type": "bool", "default": False},
}


def job(options: dict[str, Any]) -> dict[str, Any]:
    """The module's result, with `failed` where it fails."""
    folder = Folder(options["directory"])
    try:
        if options["state"] == "present":
            if options["wait"]:
                return {"changed": False, "status": _wait(folder, options)}
            return {"changed": False, "status": image_job.start(_spec(options)).to_dict()}
        # Nothing is read or ended where others could have put it.
        status = _json(folder.end_job()) if folder.is_ours() else {}
        return {"changed": False, "status": status, "removed": folder.clear(options["keep_part"])}
    except UnsafeFolder as error:
        return error.failure("docker_image_directory cannot be used.")
    except TransferError as error:
        return error.failure()
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"{options['directory']}: {error}"}


def _spec(options: dict[str, Any]) -> image_job.Spec:
    return image_job.Spec(
        kind=options["kind"],
        image=options["image"],
        address=options["address"],
        token=options["token"],
        folder=options["directory"],
        idle_timeout=options["idle"],
        stall_timeout=options["patience"],
        load_timeout=options["load_timeout"],
        archive=options["archive"] or "",
        digest=options["digest"],
        endpoints=[Endpoint(**endpoint) for endpoint in options["places"]],
        reference=reference(options["image"], options["digest"]) if options["kind"] == "registry" else None,
        hashes=options["hashes"],
        size=options["size"],
        packed=options["packed"],
    )


def _wait(folder: Folder, options: dict[str, Any]) -> dict[str, Any]:
    """Return the status once it has another phase or wants another piece, or after a while; as JSON."""
    if not folder.is_ours():
        return {"phase": phases.GONE}
    folder.touch(options["sources"])
    if options["incoming"]:
        folder.receive(options["incoming"], options["number"])
    first = _phase(folder.read_status())
    deadline = time.monotonic() + options["hold"]
    while True:
        status = folder.read_status()
        if status and (
            status.phase in (phases.COMPLETE, phases.FAILED) or status.wants_after(options["number"])
        ):
            return status.to_dict()
        if not folder.running():
            return {**_json(status), "phase": phases.GONE}
        if _phase(status) != first or time.monotonic() >= deadline:
            return _json(status)
        time.sleep(0.1)


def _phase(status: ImageStatus | None) -> str:
    return status.phase if status else ""


def _json(status: ImageStatus | None) -> dict[str, Any]:
    return status.to_dict() if status else {}
