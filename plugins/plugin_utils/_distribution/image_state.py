# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run let each other know of an image, and what the screen shows of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._run.shared_state import SharedState

# What to do, by the kind of a failure.
CURES = {
    "down": "Look whether the registry runs and can be reached from this server, or name another"
    " (docker_registry_mirrors).",
    "login": "Give username and password by the registry's name in docker_registry_login, from a vault.",
    "tls": "Give its CA in docker_registry_ca; if it has no TLS, its name in docker_registry_insecure.",
    "missing": "Look for the image in the registry; correct pd_image, pd_release or docker_image_digest.",
    "digest": "The registry is damaged, or the tag has moved: compare its digest with docker_image_digest.",
    "changed": "Leave the archive on the controller as it is while it is copied.",
    "disk": "Make room, or take another disk (docker_image_directory).",
    "source": "Look whether the servers reach each other at their service addresses.",
    "gone": "The process that got it has ended: the server may have booted, or somebody ended it.",
}


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


def failure(image: str, host: str, status: Mapping[str, Any]) -> str:
    """Why an image did not come, and what to do."""
    kind = "gone" if status["phase"] == "gone" else status.get("kind", "")
    kept = status.get("done", 0) if status.get("phase") != "loading" else 0
    text = f"{image} did not come to {host}: {status.get('error') or 'no word of why'}."
    cure = f" {CURES[kind]}" if kind in CURES else ""
    again = (
        f" {kept / 1e6:.0f} MB are kept; run again, it goes on from there." if kept else " Then run again."
    )
    return text + cure + again
