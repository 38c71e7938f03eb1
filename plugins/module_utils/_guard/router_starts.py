# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which router has to be started, because the Docker Engine does not do so itself.

Their restart policy is unless-stopped. A Docker Engine that is restarted while containers take their time to
end stops them at its next start, and takes them for stopped on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from .._front import files
from .._serving.running import UP
from .config import Config, Instance
from .routers import LISTS

# Seconds for the Docker Engine to start it.
PATIENCE = 3.0


class RouterStarts:
    """Watches the router of a server that is to serve."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = {api: one for one in config.instances.values() for api in one.apis}
        self._ended_at: float | None = None

    def due(
        self,
        containers: Mapping[str, Mapping[str, Any]],
        serves: Callable[[Instance], bool],
        now: float,
    ) -> str:
        """Return the container to start; empty if there is none.

        containers: the Docker Engine's list by name.
        serves: whether an instance is up and in service. Without one of each role a rollout ends the routers,
            and clients are told more by a port that refuses them than by a router without engines.
        """
        found = containers.get(self._serving())
        if found is None or found["State"] in UP or not self._has_engines(found["Labels"], serves):
            self._ended_at = None
            return ""
        if self._ended_at is None:
            self._ended_at = now
        if now - self._ended_at < PATIENCE:
            return ""
        # Not at the next look again, whatever comes of it.
        self._ended_at = now
        return self._serving()

    def _serving(self) -> str:
        """Return the container of the router that is to serve; empty without one."""
        routers = self._config.routers
        if self._config.front is None:
            return str(routers[0]["container"]) if len(routers) == 1 else ""
        active = files.active(Path(self._config.front["directory"]))
        return next((str(one["container"]) for one in routers if one["colour"] == active), "")

    def _has_engines(self, labels: Mapping[str, str], serves: Callable[[Instance], bool]) -> bool:
        """Return whether of each role it lists an instance that serves."""
        listed = [labels.get(f"pd_rollout.{role}", "").split(",") for role in LISTS]
        return all(any(api in self._names and serves(self._names[api]) for api in apis) for apis in listed)
