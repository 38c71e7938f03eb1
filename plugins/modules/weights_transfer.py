#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_transfer
short_description: One server's part of bringing a model's weights to all servers
version_added: 0.2.0
description:
  - The steps of the role C(model_weights) on a server. Weights grow in a hidden directory beside O(path),
    C(.NAME.incoming), and get their name in one step when they are whole. Whatever ends a run, the next one
    goes on with what has come.
  - The servers form a chain. Each runs an rsync daemon of its own for the time of the rollout, on its
    service address, with a secret made for this run, open only to the servers behind it in the chain; it
    ends with the run, or by itself when nobody asks anything of it or takes from it for O(job.idle) seconds.
  - Needs C(rsync) on the server.
options:
  path:
    description: The model's directory on the server.
    type: path
    required: true
  state:
    description:
      - V(probed) leaves a file beside O(path) that other servers see if they share the file system.
      - V(listed) says which servers' files are to be seen, and removes none.
      - V(prepared) makes the directory in which weights grow. Weights at O(path) that are not whole become
        that directory.
      - V(started) starts to serve and, if O(job.sources) names servers, to copy, in the background.
      - V(polled) says how far that is. With O(container), how far the download in it is.
      - V(promoted) verifies what was downloaded, also by the hashes that the hub gave, and gives it its name.
      - V(stopped) ends what V(started) began and removes the secret, and what V(probed) left.
    type: str
    choices: [probed, listed, prepared, started, polled, promoted, stopped]
    required: true
  run:
    description: What distinguishes this run from others, for V(probed), V(listed) and V(stopped).
    type: str
    default: ""
  name:
    description: The server's name in the inventory.
    type: str
    default: ""
  address:
    description: Its service address; returned as it is.
    type: str
    default: ""
  damaged:
    description: Files that are known to be damaged, for V(prepared).
    type: list
    elements: str
    default: []
  hashes:
    description: SHA-256 by relative name, for V(promoted).
    type: dict
    default: {}
  container:
    description: The container that downloads, for V(polled).
    type: str
  hold:
    description: Seconds after which V(polled) answers if nothing has ended before.
    type: float
    default: 0
  job:
    description: What this server does, for V(started).
    type: dict
    suboptions:
      address:
        description: The address on which it serves.
        type: str
        required: true
      port:
        description: The port on which all servers of the chain serve.
        type: int
        required: true
      secret:
        description: The secret of this run.
        type: str
        required: true
      sources:
        description: The servers from which it takes, the nearest first. Empty on the one that has all.
        type: list
        elements: dict
        default: []
      clients:
        description: The addresses that may take from it.
        type: list
        elements: str
        default: []
      bandwidth:
        description: The most that it takes, in MB/s. V(0) is no limit.
        type: float
        default: 0
      patience:
        description: Seconds without an answer after which it turns to the next source.
        type: float
        default: 60
      idle:
        description: Seconds without a question, and without a server that takes from it, after which it ends.
        type: float
        default: 120
      hashes:
        description: SHA-256 by relative name.
        type: dict
        default: {}
attributes:
  check_mode:
    description: Changes nothing and says nothing; the role asks nothing of it in check mode.
    support: none
  diff_mode:
    description: Shows nothing.
    support: none
  platform:
    description: The target's operating system.
    platforms: posix
    support: full
author:
  - The ascend.pd_rollout authors
"""

EXAMPLES = r"""
- name: Make a place for the weights
  ascend.pd_rollout.weights_transfer:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    state: prepared

- name: Begin to take them from another server
  ascend.pd_rollout.weights_transfer:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    state: started
    name: decode1
    job:
      address: 10.0.0.13
      port: 18730
      secret: "{{ secret }}"
      sources:
        - name: prefill1
          address: 10.0.0.11

- name: Ask how far that is
  ascend.pd_rollout.weights_transfer:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    state: polled
    hold: 2
"""

RETURN = r"""
address:
  description: The service address that was given.
  returned: for V(probed)
  type: str
seen:
  description: The servers that share the file system, this one included where it may write.
  returned: for V(listed)
  type: list
  elements: str
staging:
  description: Where the weights grow.
  returned: for V(prepared)
  type: str
status:
  description: How far the transfer is.
  returned: for V(polled) and V(stopped)
  type: dict
  contains:
    state:
      description: >-
        V(waiting), V(copying), V(verifying), V(complete), V(failed), or V(absent) without a process.
      type: str
    source:
      description: The server from which it takes.
      type: str
    done:
      description: Bytes that are there.
      type: int
    total:
      description: Bytes of the whole; null while that is not known.
      type: int
    rate:
      description: Bytes per second of late.
      type: float
    received:
      description: Bytes that came over the network in this run.
      type: int
    finding:
      description: What ended it, with code, path, seen, expected and cure.
      type: dict
    log:
      description: The last lines of the log, if it ended badly.
      type: list
      elements: str
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.client import DockerApi, DockerError
from ..module_utils._files import safe_paths
from ..module_utils._files.contents import read_json
from ..module_utils._files.private_folder import UnsafeFolder, check_name
from ..module_utils._transfer import hub, weights_copy, weights_process
from ..module_utils._transfer.weights_files import TransferError, bytes_below, staging

PROBE = weights_process.PROBE
# Seconds after which a probe of a server that this run does not know is nobody's any longer.
STALE = 24 * 3600.0
ENDED = ("complete", "failed", "absent")
# Seconds between two looks while an answer is held back.
LOOK = 0.2
LOG_LINES = 8
# Lines of a download's output in which its reason is looked for: several files' errors come at once.
READ_LINES = 400


def probe(params: dict) -> dict:
    """Leave a file beside the weights; a directory in which nothing can be written shows none."""
    parent = Path(params["path"]).parent
    remove_probes(params)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{PROBE}{params['run']}-{params['name']}").touch()
    except OSError:
        return {"address": params["address"], "writable": False}
    return {"address": params["address"], "writable": True}


def remove_probes(params: dict) -> None:
    """Remove those of this server, also of runs that were killed, and very old ones of any server."""
    for path in weights_process.probes(params["path"], params["name"]):
        with suppress(FileNotFoundError):
            path.unlink()
    for path in weights_process.probes(params["path"]):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def seen(params: dict) -> list[str]:
    start = f"{PROBE}{params['run']}-"
    parent = Path(params["path"]).parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return sorted(name[len(start) :] for name in names if name.startswith(start))


def start(params: dict) -> None:
    """Write what the process needs, and let it go on alone."""
    if shutil.which("rsync") is None:
        raise TransferError(
            "weights_rsync_missing",
            params["name"],
            "no program rsync",
            "rsync 3.1 or later on every server",
            "install the operating system's package rsync",
        )
    folder = weights_process.folder_of(params["path"])
    weights_process.stop(folder)
    weights_process.make_folder(params["path"])
    (folder / "public").mkdir(mode=0o700)
    job = weights_copy.Job(name=params["name"], path=params["path"], **params["job"])
    for name, text in (("secrets", f"{weights_copy.USER}:{job.secret}\n"), ("password", f"{job.secret}\n")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
    weights_process.detach(folder, weights_copy.Copy(job, folder).run)


def status_of(params: dict) -> dict:
    """How far the process of this server is."""
    folder = weights_process.folder_of(params["path"])
    if not folder.exists():
        return {"state": "absent", "finding": None}
    (folder / "contact").touch()
    alive = weights_process.process_of(folder) is not None
    status = read_json(folder / "status.json") or {"state": "waiting", "finding": None}
    began = folder / "process.json"
    if not alive and began.exists() and status["state"] not in ENDED:
        status["state"] = "absent"
    if status["state"] in ("failed", "absent"):
        log = folder / "log"
        status["log"] = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    return status


def download_status(params: dict, before: list) -> dict:
    """How far the download in a container is."""
    api = DockerApi()
    container = api.inspect(params["container"])
    done = bytes_below(staging(Path(params["path"])))
    status = {"state": "copying", "source": "the hub", "done": done, "total": None, "finding": None}
    now = time.monotonic()
    before.append((now, done))
    span = now - before[0][0]
    status["rate"] = (done - before[0][1]) / span if span > 0 else 0.0
    if container is None:
        status["state"] = "absent"
    elif not container["State"]["Running"]:
        code = container["State"]["ExitCode"]
        status["state"] = "complete" if code == 0 and container["State"]["Status"] == "exited" else "failed"
        if status["state"] == "failed":
            text = api.logs(params["container"], READ_LINES)
            status["log"] = hub.last_words(text)[1][-LOG_LINES:]
            status["finding"] = download_finding(params["path"], code, text)
    return status


def download_finding(path: str, code: int, text: str) -> dict:
    """Why a download ended, by what its client printed."""
    full, reason = "No space left" in text, hub.last_words(text)[0]
    return TransferError(
        "weights_disk_full" if full else "weights_download_failed",
        path,
        f"the download ended with exit code {code}: {reason or 'its log is empty'}",
        "a download that ends by itself with everything",
        "free space on the disk, and run again: it goes on where it was"
        if full
        else "look at the log lines; check the model's id, the token and the way to the hub (a proxy "
        "goes into model_weights_environment), then run again: it goes on where it was",
    ).finding


def poll(params: dict) -> dict:
    """Hold the answer back until something has ended, or the time is over."""
    end, before = time.monotonic() + params["hold"], []
    while True:
        status = download_status(params, before) if params["container"] else status_of(params)
        if status["state"] in ENDED or time.monotonic() >= end:
            return status
        time.sleep(LOOK)


def act(params: dict) -> dict:
    check_name(params["path"])
    path, state = Path(params["path"]), params["state"]
    if state == "probed":
        return {"changed": False, **probe(params)}
    if state == "listed":
        return {"changed": False, "seen": seen(params)}
    if state == "prepared":
        weights_copy.adopt(path, params["damaged"])
        return {"changed": True, "staging": str(staging(path))}
    if state == "started":
        start(params)
        return {"changed": bool(params["job"]["sources"])}
    if state == "polled":
        return {"changed": False, "status": poll(params)}
    if state == "promoted":
        hub.accept(staging(path), params["hashes"])
        weights_copy.put_in_place(staging(path), path)
        return {"changed": True}
    status = status_of(params)
    remove_probes(params)
    weights_process.stop(weights_process.folder_of(params["path"]))
    return {"changed": False, "status": status}


def main() -> None:
    job = {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "secret": {"type": "str", "required": True, "no_log": True},
        "sources": {"type": "list", "elements": "dict", "default": []},
        "clients": {"type": "list", "elements": "str", "default": []},
        "bandwidth": {"type": "float", "default": 0},
        "patience": {"type": "float", "default": 60},
        "idle": {"type": "float", "default": 120},
        "hashes": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "required": True,
                "choices": ["probed", "listed", "prepared", "started", "polled", "promoted", "stopped"],
            },
            "run": {"type": "str", "default": ""},
            "name": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "damaged": {"type": "list", "elements": "str", "default": []},
            "hashes": {"type": "dict", "default": {}},
            "container": {"type": "str"},
            "hold": {"type": "float", "default": 0},
            "job": {"type": "dict", "options": job},
        },
        required_if=[("state", "started", ["job"])],
    )
    try:
        # Weights that are not whole lose their name here: not a directory of the system.
        safe_paths.own_path(module.params["path"], "model_weights_path (pd_model_path)")
        module.exit_json(**act(module.params))
    except safe_paths.Refused as error:
        module.fail_json(msg=str(error))
    except TransferError as error:
        module.fail_json(msg=f"{error}; {error.finding['cure']}", finding=error.finding)
    except UnsafeFolder as error:
        module.fail_json(msg=str(error), finding=error.finding)
    except DockerError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}", path=module.params["path"])


if __name__ == "__main__":
    main()
