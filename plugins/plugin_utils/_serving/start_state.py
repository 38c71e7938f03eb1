# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run let each other know while they wait for their engines.

A failure on one host ends the wait of all, and the head of an instance can say which of its peers is missing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .._run.shared_state import SharedState


class StartState:
    """The state of the start of a deployment, shared in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self._shared = SharedState(path)

    def begun(self, now: float | None = None) -> float:
        """Seconds of the clock at which the first host of this wait came here: one deadline holds for all."""
        return float(self._shared.first("begun", time.time() if now is None else now))

    def post(self, instance: str, rank: int, **state: Any) -> None:
        """Publish the state of one node of an instance."""
        self._shared.put(f"node.{instance}.{rank}", {"instance": instance, "rank": rank, **state})

    def nodes(self, instance: str) -> dict[int, dict[str, Any]]:
        """The states published so far, by node rank."""
        # Names of instances may begin alike: prefiller.b is none of prefiller's nodes.
        found = self._shared.values(f"node.{instance}.")
        return {state["rank"]: state for state in found if state["instance"] == instance}

    def abort(self, why: str) -> None:
        """End the wait of every host; the first reason stays."""
        self._shared.first("aborted", why)

    def aborted(self) -> str | None:
        """Why the wait of every host ends; None while it goes on."""
        why = self._shared.get("aborted")
        return None if why is None else str(why)
