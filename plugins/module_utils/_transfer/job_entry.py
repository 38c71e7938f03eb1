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
from .registry import Place, reference

KINDS = ["registry", "archive", "controller", "engine", "take"]
_PLACE = {
    "base": {"type": "str", "required": True},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "ca": {"type": "str", "default": ""},
}
ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait": {"type": "bool", "default": False},
    "directory": {"type": "path", "default": DIRECTORY},
    "kind": {"type": "str", "choices": KINDS, "default": "take"},
    "image": {"type": "str", "default": ""},
    "address": {"type": "str", "default": "127.0.0.1"},
    "token": {"type": "str", "default": "", "no_log": True},
    "archive": {"type": "path"},
    "digest": {"type": "str", "default": ""},
    "places": {"type": "list", "elements": "dict", "default": [], "options": _PLACE},
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
            status = _wait(folder, options) if options["wait"] else image_job.start(_order(options))
            return {"changed": False, "status": status}
        # Nothing is read or ended where others could have put it.
        status = folder.end_job() if folder.is_ours() else {}
        return {"changed": False, "status": status, "removed": folder.clear(options["keep_part"])}
    except UnsafeFolder as error:
        return error.failure("docker_image_directory cannot be used.")
    except TransferError as error:
        return error.failure()
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"{options['directory']}: {error}"}


def _order(options: dict[str, Any]) -> image_job.Order:
    return image_job.Order(
        kind=options["kind"],
        image=options["image"],
        address=options["address"],
        token=options["token"],
        folder=options["directory"],
        idle=options["idle"],
        patience=options["patience"],
        load_timeout=options["load_timeout"],
        archive=options["archive"] or "",
        digest=options["digest"],
        places=[Place(**one) for one in options["places"]],
        reference=reference(options["image"], options["digest"]) if options["kind"] == "registry" else None,
        hashes=options["hashes"],
        size=options["size"],
        packed=options["packed"],
    )


def _wait(folder: Folder, options: dict[str, Any]) -> dict[str, Any]:
    """The status once it has another phase or wants another piece, or after a while."""
    if not folder.is_ours():
        return {"phase": phases.GONE}
    folder.touch(options["sources"])
    if options["incoming"]:
        folder.receive(options["incoming"], options["number"])
    first = folder.read()
    deadline = time.monotonic() + options["hold"]
    while True:
        status = folder.read()
        if status.get("phase") in (phases.COMPLETE, phases.FAILED):
            return status
        if status.get("phase") == phases.FETCHING and status.get("wanted", -1) > options["number"]:
            return status
        if not folder.running():
            return {**status, "phase": phases.GONE}
        if status.get("phase") != first.get("phase") or time.monotonic() >= deadline:
            return status
        time.sleep(0.1)
