# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run let each other know of an image, and what the screen shows of it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from ...module_utils._transfer.status import LOADING, TransferStatus
from .._run.shared_state import SharedState


class ImageState:
    """The state of the transfer of an image, shared in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self._shared = SharedState(path)

    def token(self) -> str:
        """The secret of this run, by which its servers know each other; the first worker makes it."""
        return str(self._shared.first("token", secrets.token_hex(32)))

    def publish(self, host: str, **state: Any) -> None:
        """Publish the state of a host, in place of what it was."""
        self._shared.put(f"host.{host}", {"host": host, **state})

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What has been published, by host."""
        return {state["host"]: state for state in self._shared.values("host.")}


def summary(image: str, host: str, status: TransferStatus) -> str:
    """Return what has become of the transfer of an image to a host, in one line above the finding."""
    kept = status.done if status.phase != LOADING else 0
    again = f"{kept / 1e6:.0f} MB are kept, from which the next run resumes." if kept else ""
    return f"{host} did not get {image}. {again}".rstrip()
