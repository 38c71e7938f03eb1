# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The revisions of a deployment: what was deployed and answered, on the servers and on the controller alike.

Each is a folder with a number: revision.json says what, when and by whom (``record``), plan.json is the plan.
Both may only be read by their owner, since a plan may hold secrets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .._files import safe_paths
from .._files.contents import sha256
from .._findings import text_of
from . import running
from .catalogue import ENGINE_CHECKS

PLAN = "plan.json"
# How many are kept.
KEPT = 10
MARK = "Written by ascend.pd_rollout: a revision, for playbooks/rollback.yml."
# The list of hashes beside the weights.
SUMS = "SHA256SUMS"


def folder_of(history: Path, number: int) -> Path:
    """Return the folder of a revision."""
    return history / f"{number:04d}"


def numbers(history: Path) -> list[int]:
    """Return the numbers of the revisions in a folder, the highest last; empty if it is not there.

    Raises OSError if it cannot be read.
    """
    try:
        names = [entry.name for entry in history.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if safe_paths.REVISION.fullmatch(name))


def read(history: Path, number: int) -> dict[str, Any] | None:
    """Return the record of a revision; None if there is none that can be read."""
    try:
        found = json.loads((folder_of(history, number) / safe_paths.RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("revision") == number else None


def records(history: Path) -> list[dict[str, Any]]:
    """Return the records of all revisions, the newest last; without those that cannot be read."""
    try:
        found = [read(history, number) for number in numbers(history)]
    except OSError:
        return []
    return [record for record in found if record is not None]


def newest(history: Path) -> dict[str, Any] | None:
    """Return the record of the newest revision; None if there is none."""
    try:
        found = (read(history, number) for number in reversed(numbers(history)))
    except OSError:
        return None
    return next((record for record in found if record is not None), None)


def write(history: Path, record: Mapping[str, Any], plan: str) -> bool:
    """Write a revision unless it is there, and remove the oldest; return whether that changed anything.

    It gets its name when it is complete: a run that is interrupted leaves a draft, which the next one
    removes. Raises OSError.
    """
    number = record["revision"]
    existed = folder_of(history, number).exists()
    if not existed:
        history.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in history.glob(".*"):
            shutil.rmtree(str(draft))
        draft = history / f".{number:04d}"
        draft.mkdir(mode=0o700)
        _write(draft / PLAN, plan)
        _write(draft / safe_paths.RECORD, json.dumps({"_": MARK, **record}, ensure_ascii=False))
        draft.rename(folder_of(history, number))
    return _removed_oldest(history) or not existed


def _write(path: Path, text: str) -> None:
    handle = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _removed_oldest(history: Path) -> bool:
    """Remove revisions until so many are left as are kept; return whether there were more."""
    gone = numbers(history)[:-KEPT]
    for number in gone:
        # Without its name it is a draft, if this does not get to its end.
        old = history / f".{number:04d}"
        folder_of(history, number).rename(old)
        shutil.rmtree(str(old))
    return bool(gone)


def weights(model_path: str) -> str:
    """Return the SHA-256 of the list of hashes beside the weights; empty without one."""
    try:
        return sha256(Path(model_path, SUMS))
    except OSError:
        return ""


INFO_ARGUMENTS: dict[str, Any] = {
    "deployment": {"type": "str", "required": True},
    "directory": {"type": "str", "required": True},
    "revision": {"type": "int", "default": 0},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def refused(options: Mapping[str, Any]) -> safe_paths.Refused | None:
    """Return the error if a module would reach beyond the deployment's directory, or None."""
    try:
        if options.get("deployment") is not None:
            safe_paths.name(options["deployment"], "pd_deployment")
        safe_paths.directory(options.get("directory"), "directory (pd_host_dir and pd_deployment)")
    except safe_paths.Refused as error:
        return error
    return None


def info(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of revision_info."""
    refusal = refused(options)
    if refusal is not None:
        return refusal.failure()
    directory = Path(options["directory"])
    history = directory / safe_paths.HISTORY
    result: dict[str, Any] = {"changed": False, "revisions": [], "plan": ""}
    if options["revision"]:
        try:
            text = (folder_of(history, options["revision"]) / PLAN).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            return {**result, "failed": True, "msg": f"revision {options['revision']}: {error}"}
        return {**result, "plan": text}
    found = records(history)
    docker = DockerApi(options["docker_socket"])
    containers: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    try:
        containers = docker.containers({"pd_rollout.deployment": options["deployment"]})
        for reference in sorted({record["image"]["reference"] for record in found}):
            identity = docker.image_id(reference)
            if identity:
                images[reference] = identity
    except DockerError:
        # What runs is not known: the steps, which come later, say why.
        containers = []
    return {
        **result,
        "revisions": found,
        "images": images,
        "containers": running.made_of(containers),
        "front": _front(directory),
        "drained": running.drained(str(directory)),
    }


def _front(directory: Path) -> str:
    """Return the SHA-256 of the front's configuration; empty without one."""
    try:
        return sha256(directory / "front" / "haproxy.cfg")
    except OSError:
        return ""


ARGUMENTS: dict[str, Any] = {
    "directory": {"type": "str", "required": True},
    "record": {"type": "dict", "required": True},
    "folder": {"type": "str", "required": True},
    # A value that holds secrets is named in no log.
    "plan": {"type": "str", "default": "", "no_log": True},
}


def keep(options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a revision on this server; return the result of revision."""
    refusal = refused(options)
    if refusal is not None:
        return refusal.failure()
    history = Path(options["directory"], safe_paths.HISTORY)
    if options["_check_mode"]:
        return {"changed": not folder_of(history, options["record"]["revision"]).exists()}
    try:
        safe_paths.existing(options["directory"], "directory (pd_host_dir and pd_deployment)")
        return {"changed": write(history, options["record"], options["plan"])}
    except safe_paths.Refused as error:
        return error.failure()
    except OSError as error:
        finding = ENGINE_CHECKS.finding(
            "engine-revision-unwritten", path=str(history), seen=error.strerror or str(error)
        )
        return {
            "failed": True,
            "changed": False,
            "findings": [finding.to_dict()],
            "msg": text_of([finding]),
        }
