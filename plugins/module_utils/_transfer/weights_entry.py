# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules weights_probe, weights_directory, weights_transfer and weights_transfer_info do once their
arguments are read, as plain Python."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi
from .._files import safe_paths
from .._files.contents import read_json
from .._files.private_folder import check_name
from .._findings import Finding, RolloutError
from . import hub, weights_copy, weights_install, weights_process, weights_rsync
from . import status as phases
from .catalogue import TRANSFER_CHECKS, TransferError
from .status import WeightsStatus
from .weights_files import bytes_below, staging

PATH = {"type": "path", "required": True}
PROBE_ARGUMENTS = {
    "path": PATH,
    "run": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "default": ""},
}
DIRECTORY_ARGUMENTS = {
    "path": PATH,
    "state": {"type": "str", "choices": ["staged", "present"], "required": True},
    "damaged": {"type": "list", "elements": "str", "default": []},
    "hashes": {"type": "dict", "default": {}},
}
JOB = {
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
TRANSFER_ARGUMENTS = {
    "path": PATH,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "name": {"type": "str", "required": True},
    "job": {"type": "dict", "options": JOB},
}
INFO_ARGUMENTS = {
    "path": PATH,
    "container": {"type": "str"},
    "hold": {"type": "float", "default": 0},
}

PROBE = weights_process.PROBE
# Seconds after which a probe of a server that this run does not know is nobody's any longer.
STALE = 24 * 3600.0
# Seconds between two looks while an answer is held back.
POLL_INTERVAL = 0.2
LOG_LINES = 8
# Lines of a download's output in which its reason is looked for: several files' errors come at once.
READ_LINES = 400


def leave_probe(params: dict[str, Any]) -> bool:
    """Leaves a file of this server beside the weights; whether that is possible there."""
    own = Path(params["path"]).parent / f"{PROBE}{params['run']}-{params['name']}"
    # Not the one of this run: other servers may be looking for it.
    remove_probes(params, own)
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
    except OSError:
        return False
    return True


def remove_probes(params: dict[str, Any], kept: Path | None = None) -> None:
    """Removes those of this server, also of runs that were killed, and very old ones of any server."""
    for path in weights_process.probes(params["path"], params["name"]):
        with suppress(FileNotFoundError):
            if path != kept:
                path.unlink()
    for path in weights_process.probes(params["path"]):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def seen(params: dict[str, Any]) -> list[str]:
    """The servers of this run whose files are beside the weights as this server sees them."""
    start = f"{PROBE}{params['run']}-"
    parent = Path(params["path"]).parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return sorted(name[len(start) :] for name in names if name.startswith(start))


def job_of(name: str, path: str, options: Mapping[str, Any]) -> weights_rsync.Job:
    """Return a server's part of the copy.

    name: the server's name in the inventory.
    path: of the weights.
    options: those of JOB.
    """
    return weights_rsync.Job(
        name=name,
        path=path,
        address=options["address"],
        port=options["port"],
        secret=options["secret"],
        sources=[weights_rsync.Peer(source["name"], source["address"]) for source in options["sources"]],
        clients=options["clients"],
        bandwidth=options["bandwidth"],
        stall_timeout=options["patience"],
        idle_timeout=options["idle"],
        hashes=options["hashes"],
    )


def start(params: dict[str, Any]) -> None:
    """Write what the process needs, and let it go on alone."""
    if shutil.which("rsync") is None:
        raise TransferError(
            TRANSFER_CHECKS.finding("weights-rsync-missing", host=params["name"], seen="no program rsync")
        )
    folder = weights_process.folder_of(params["path"])
    weights_process.stop(folder)
    weights_process.make_folder(params["path"])
    (folder / "public").mkdir(mode=0o700)
    job = job_of(params["name"], params["path"], params["job"])
    for name, text in (("secrets", f"{weights_rsync.USER}:{job.secret}\n"), ("password", f"{job.secret}\n")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
    weights_process.detach(folder, weights_copy.Copy(job, folder).run)


def status_of(params: dict[str, Any]) -> WeightsStatus | None:
    """Return the status of this server's process; None if none was started."""
    folder = weights_process.folder_of(params["path"])
    if not folder.exists():
        return None
    (folder / "contact").touch()
    alive = weights_process.process_of(folder) is not None
    written = read_json(folder / "status.json")
    status = WeightsStatus.from_dict(written) if written else WeightsStatus()
    began = folder / "process.json"
    if not alive and began.exists() and status.phase not in phases.ENDED:
        status = replace(status, phase=phases.GONE)
    if status.phase in (phases.FAILED, phases.GONE):
        log = folder / "log"
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        status = replace(status, log=lines)
    return status


def download_status(params: dict[str, Any], samples: list[tuple[float, int]]) -> WeightsStatus:
    """Return the status of the download in a container.

    params: of the module; ``container`` is that container's name.
    samples: times and bytes of earlier calls, from which the rate is computed; this one is added.
    """
    api = DockerApi()
    container = api.inspect(params["container"])
    done = bytes_below(staging(Path(params["path"])))
    now = time.monotonic()
    samples.append((now, done))
    since, before = samples[0]
    rate = (done - before) / (now - since) if now > since else 0.0
    status = WeightsStatus(phases.FETCHING, "the hub", done, rate=rate)
    if container is None:
        return replace(status, phase=phases.GONE)
    if container["State"]["Running"]:
        return status
    code = container["State"]["ExitCode"]
    if code == 0 and container["State"]["Status"] == "exited":
        return replace(status, phase=phases.COMPLETE)
    text = api.logs(params["container"], READ_LINES)
    return replace(
        status,
        phase=phases.FAILED,
        log=hub.last_words(text)[1][-LOG_LINES:],
        finding=download_finding(params["path"], code, text),
    )


def download_finding(path: str, code: int, text: str) -> Finding:
    """Return why a download ended.

    path: of the weights.
    code: with which its client exited.
    text: what the client printed.
    """
    full, reason = "No space left" in text, hub.last_words(text)[0]
    return TRANSFER_CHECKS.finding(
        "weights-disk-full" if full else "weights-download-failed",
        path=path,
        seen=f"the download ended with exit code {code}: {reason or 'its log is empty'}",
    )


def poll(params: dict[str, Any]) -> WeightsStatus | None:
    """Return the status once the transfer has ended, or after ``hold`` seconds; None if none was started."""
    end = time.monotonic() + params["hold"]
    samples: list[tuple[float, int]] = []
    while True:
        status = download_status(params, samples) if params["container"] else status_of(params)
        if status is None or status.phase in phases.ENDED or time.monotonic() >= end:
            return status
        time.sleep(POLL_INTERVAL)


def as_json(status: WeightsStatus | None) -> dict[str, Any]:
    """Return a status, or None where no transfer was started, as the modules report it."""
    return status.to_dict() if status else {"phase": phases.GONE, "finding": None}


def with_findings(
    work: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """That function, with what it raises as the result of a task that failed."""

    @functools.wraps(work)
    def result(params: dict[str, Any]) -> dict[str, Any]:
        try:
            # Weights that are not whole lose their name here: not a directory of the system.
            safe_paths.own_path(params["path"], "model_weights_path (pd_model_path)")
            check_name(params["path"])
            return work(params)
        except RolloutError as error:
            return error.failure()
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            return {"failed": True, "changed": False, "msg": why, "path": params["path"]}

    return result


@with_findings
def probe(params: dict[str, Any]) -> dict[str, Any]:
    """Result of the module weights_probe."""
    writable = leave_probe(params)
    return {"changed": False, "address": params["address"], "writable": writable, "seen": seen(params)}


@with_findings
def directory(params: dict[str, Any]) -> dict[str, Any]:
    """Result of the module weights_directory."""
    path = Path(params["path"])
    if params["state"] == "staged":
        weights_install.adopt(path, params["damaged"])
    else:
        hub.accept(staging(path), params["hashes"])
        weights_install.put_in_place(staging(path), path)
    return {"changed": True, "staging": str(staging(path))}


@with_findings
def transfer(params: dict[str, Any]) -> dict[str, Any]:
    """Result of the module weights_transfer."""
    if params["state"] == "present":
        if not params["job"]:
            return {"failed": True, "changed": False, "msg": "state is present but job is missing"}
        start(params)
        return {"changed": bool(params["job"]["sources"])}
    status = status_of(params)
    remove_probes(params)
    weights_process.stop(weights_process.folder_of(params["path"]))
    return {"changed": False, "status": as_json(status)}


@with_findings
def transfer_info(params: dict[str, Any]) -> dict[str, Any]:
    """Result of the module weights_transfer_info."""
    return {"changed": False, "status": as_json(poll(params))}
