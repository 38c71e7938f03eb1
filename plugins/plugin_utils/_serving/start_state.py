# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""State that the workers of one run share while they wait for their engines.

A failure on one host ends the wait of all, and the head of an instance can say which of its peers is missing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .._run.shared_state import SharedState


class StartState:
    """The state of the start of a deployment, shared in the folder ``path``."""

    def __init__(self, path: Path) -> None:
        self._shared = SharedState(path)

    def begun(self, now: float | None = None) -> float:
        """Return the time at which the first host began to wait, so that all have the same deadline."""
        return float(self._shared.first("begun", time.time() if now is None else now))

    def post(self, instance: str, rank: int, **state: Any) -> None:
        """Publish the state of one node of an instance."""
        self._shared.put(f"node.{instance}.{rank}", {"instance": instance, "rank": rank, **state})

    def nodes(self, instance: str) -> dict[int, dict[str, Any]]:
        """Return the states published so far, by node rank."""
        # Names of instances may share a prefix: prefiller.b is not a node of prefiller.
        found = self._shared.values(f"node.{instance}.")
        return {state["rank"]: state for state in found if state["instance"] == instance}

    def abort(self, why: str) -> None:
        """End the wait of all hosts; the first reason is kept."""
        self._shared.first("aborted", why)

    def aborted(self) -> str | None:
        """Return why the wait of all hosts ends; None while it continues."""
        why = self._shared.get("aborted")
        return None if why is None else str(why)
