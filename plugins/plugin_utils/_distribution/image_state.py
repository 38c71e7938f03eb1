# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run tell each other while an image goes round, and what the screen shows.

They share a folder below the run's temporary directory, which nobody else can read and which is gone with the
run.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


class ImageBoard:
    """The folder `path`; every write is atomic."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def token(self) -> str:
        """The secret of this run; who comes first makes it."""
        mark, own = self._path / "token", self._path / f".token.{os.getpid()}"
        own.write_text(secrets.token_hex(32), encoding="utf-8")
        own.chmod(0o600)
        with contextlib.suppress(FileExistsError):
            os.link(own, mark)
        own.unlink()
        return mark.read_text(encoding="utf-8")

    def post(self, host: str, **what: Any) -> None:
        """Tell about a host, in place of what was told before."""
        draft = self._path / f".{host}.{os.getpid()}"
        draft.write_text(json.dumps({"host": host, **what}), encoding="utf-8")
        draft.replace(self._path / f"{host}.host")

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What was told, by host."""
        told = (json.loads(path.read_text(encoding="utf-8")) for path in self._path.glob("*.host"))
        return {one["host"]: one for one in told}


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
