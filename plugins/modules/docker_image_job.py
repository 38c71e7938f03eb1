#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_job
short_description: One server's part in bringing an image to many
version_added: 0.1.0
description:
  - Starts, watches and ends the process that gets an image's archive, hands it on to other servers while it
    still comes in, and loads it. M(ascend.pd_rollout.docker_image_transfer) uses it, and shows the progress.
options:
  state:
    description: What to do with the process. V(watched) waits for news of it.
    type: str
    choices: [started, watched, stopped]
    required: true
  directory:
    description: Where it keeps its things.
    type: path
    default: /var/lib/pd_rollout/image
  kind:
    description: Where it gets the archive.
    type: str
    choices: [registry, archive, controller, engine, take]
    default: take
  image:
    description: The name that the image has with the engine.
    type: str
    default: ""
  address:
    description: The address of this server at which it serves.
    type: str
    default: 127.0.0.1
  token:
    description: What the servers of one run know.
    type: str
    default: ""
  archive:
    description: The file, for V(archive).
    type: path
  digest:
    description: The digest that the manifest must have, for V(registry).
    type: str
    default: ""
  places:
    description: Registries in the order in which they are tried, for V(registry).
    type: list
    elements: dict
    default: []
    suboptions:
      base:
        description: Scheme, name and port, of a mirror also a path.
        type: str
        required: true
      username:
        description: Who logs in.
        type: str
        default: ""
      password:
        description: The password.
        type: str
        default: ""
      ca:
        description: Certificates (PEM) to trust besides the system's.
        type: str
        default: ""
  hashes:
    description: SHA-256 of the archive's chunks, for V(controller).
    type: list
    elements: str
    default: []
  size:
    description: Bytes of the archive, for V(controller).
    type: int
    default: 0
  packed:
    description: Whether the archive is compressed, for V(controller).
    type: bool
    default: false
  incoming:
    description: A file on this server with a piece of the archive from the controller. For V(watched).
    type: path
  number:
    description: The chunk with which the piece begins.
    type: int
    default: -1
  idle:
    description: Seconds after which it ends if nobody has asked.
    type: int
    default: 300
  patience:
    description: Seconds without news from any other server.
    type: int
    default: 60
  load_timeout:
    description: Seconds without progress of the Docker Engine's loading.
    type: int
    default: 1800
  sources:
    description: Name, address and port of servers to take from, best first. For V(watched).
    type: list
    elements: list
  hold:
    description: Seconds to wait for news. For V(watched).
    type: float
    default: 2.0
  keep_part:
    description: Keep what has come, so that the next run goes on from there. For V(stopped).
    type: bool
    default: false
attributes:
  check_mode:
    description: Not for check mode; the action does not come here then.
    support: none
  diff_mode:
    description: An archive is nothing to show.
    support: none
author:
  - The ascend.pd_rollout authors
"""

EXAMPLES = r"""
- name: End what an interrupted transfer left
  ascend.pd_rollout.docker_image_job:
    state: stopped
"""

RETURN = r"""
status:
  description: What the process told last.
  returned: always
  type: dict
  contains:
    phase:
      description: One of starting, getting, loading, ready, failed, gone.
      type: str
    done:
      description: Bytes.
      type: int
    total:
      description: Bytes, null while unknown.
      type: int
    rate:
      description: Bytes a second.
      type: float
    kept:
      description: Bytes that were there from an earlier run.
      type: int
    fetched:
      description: Bytes that came from a registry, or an engine.
      type: int
    served:
      description: Bytes that went to other servers.
      type: int
    wanted:
      description: The chunk that it waits for, from the controller.
      type: int
    error:
      description: Why it failed.
      type: str
removed:
  description: Whether there was something to remove.
  returned: with O(state=stopped)
  type: bool
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._files.private_folder import UnsafeFolder
from ..module_utils._transfer import image_job
from ..module_utils._transfer.image_folder import DIRECTORY, Folder, JobError
from ..module_utils._transfer.registry import Place, reference

KINDS = ["registry", "archive", "controller", "engine", "take"]
_PLACE = {
    "base": {"type": "str", "required": True},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "ca": {"type": "str", "default": ""},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "watched", "stopped"], "required": True},
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
        },
    )
    options = module.params
    folder = Folder(options["directory"])
    try:
        if options["state"] == "started":
            module.exit_json(changed=False, status=image_job.start(_order(options)))
        if options["state"] == "watched":
            module.exit_json(changed=False, status=_watch(folder, options))
        # Nothing is read or ended where others could have put it.
        status = folder.end_job() if folder.is_ours() else {}
        module.exit_json(changed=False, status=status, removed=folder.clear(options["keep_part"]))
    except UnsafeFolder as error:
        module.fail_json(msg=f"docker_image_directory: {error}", finding=error.finding)
    except (JobError, OSError) as error:
        module.fail_json(msg=f"{options['directory']}: {error}")


def _order(options: dict) -> image_job.Order:
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


def _watch(folder: Folder, options: dict) -> dict:
    """The status once it has another phase or wants another piece, or after a while."""
    if not folder.is_ours():
        return {"phase": "gone"}
    folder.touch(options["sources"])
    if options["incoming"]:
        folder.receive(options["incoming"], options["number"])
    first = folder.read()
    deadline = time.monotonic() + options["hold"]
    while True:
        status = folder.read()
        if status.get("phase") in ("ready", "failed"):
            return status
        if status.get("phase") == "getting" and status.get("wanted", -1) > options["number"]:
            return status
        if not folder.running():
            return {**status, "phase": "gone"}
        if status.get("phase") != first.get("phase") or time.monotonic() >= deadline:
            return status
        time.sleep(0.1)


if __name__ == "__main__":
    main()
