# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run let each other know of an image, and what the screen shows of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...module_utils._findings import Finding
from ...module_utils._transfer.catalogue import TRANSFER_CHECKS
from .._run.shared_state import SharedState


class ImageState:
    """The state of the transfer of an image, shared in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self._shared = SharedState(path)

    def token(self) -> str:
        """The secret of this run, by which its servers know each other; the first worker makes it."""
        return str(self._shared.first("token", secrets.token_hex(32)))

    def post(self, host: str, **what: Any) -> None:
        """Publish the state of a host, in place of what it was."""
        self._shared.put(f"host.{host}", {"host": host, **what})

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What has been published, by host."""
        return {one["host"]: one for one in self._shared.values("host.")}


def progress(status: Mapping[str, Any]) -> str:
    """61 %, 9216 of 15100 MB from registry.example, 112 MB/s, 52 s left."""
    phase, done, total, rate = status["phase"], status["done"], status["total"], status["rate"]
    share = f"{100 * done // total} %, " if total else ""
    of = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
    speed = f", {rate / 1e6:.0f} MB/s" if rate else ""
    left = f", {(total - done) / rate:.0f} s left" if rate and total and total >= done else ""
    if phase == "getting":
        origin = f" from {status['from']}" if status["from"] else ""
        return f"{share}{of}{origin}{speed}{left}"
    if phase == "loading" and done == total:
        return f"the Docker Engine unpacks {done / 1e6:.0f} MB"
    if phase == "loading":
        return f"loading, {share}{of}{speed}{left}"
    return str(phase)


def failure(host: str, status: Mapping[str, Any]) -> Finding:
    """Why a server did not get the image; a process that left no result is gone."""
    if status["phase"] == "gone" or not status.get("finding"):
        return TRANSFER_CHECKS.finding("image-transfer-gone", host=host, seen="no process, and no result")
    return replace(Finding.from_dict(status["finding"]), host=host)


def summary(image: str, host: str, status: Mapping[str, Any]) -> str:
    """What has become of it, in one line above the finding."""
    kept = status.get("done", 0) if status.get("phase") != "loading" else 0
    again = f"{kept / 1e6:.0f} MB are kept, from which the next run resumes." if kept else ""
    return f"{host} did not get {image}. {again}".rstrip()
