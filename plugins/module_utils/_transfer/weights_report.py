# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a server reports of its copy of the weights, to the controller and to the servers behind it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._files.contents import write_json
from .._findings import Finding
from .status import FAILED, Rate, WeightsStatus
from .weights_files import FileState, arrived, write_manifest

# Seconds over which the rate is averaged.
WINDOW = 10.0


class Report:
    """The status of a server's copy, and the manifest of the weights as the first server has them."""

    def __init__(self, folder: Path, staging: Path) -> None:
        """Start a report.

        folder: of the process; other servers may read what is in its folder ``public``.
        staging: the directory in which the weights grow.
        """
        self.status = WeightsStatus(received=0)
        self.manifest: Mapping[str, FileState] = {}
        # When the weights were last measured: seconds since the epoch.
        self.measured_at = time.time()
        self._folder = folder
        self._public = folder / "public"
        self._staging = staging
        self._rate = Rate(WINDOW)

    @property
    def size(self) -> int:
        """The bytes of all files in the manifest."""
        return sum(state.size for state in self.manifest.values())

    def make_public_folder(self) -> None:
        """Create the folder that other servers may read."""
        self._public.mkdir(mode=0o700, exist_ok=True)

    def update(self, **changes: Any) -> None:
        """Change fields of the status and write it; another phase and a finding also go to the log."""
        before, self.status = self.status, replace(self.status, **changes)
        status = self.status.to_dict()
        if self.status.phase != before.phase or changes.get("finding"):
            print(time.strftime("%H:%M:%S"), {name: status[name] for name in changes}, flush=True)
        write_json(self._folder / "status.json", status)
        write_json(self._public / "status.json", status)

    def measure(self) -> None:
        """Update how much has arrived, and how fast it arrives."""
        done = arrived(self._staging)
        self.measured_at = time.time()
        self.update(done=done, rate=self._rate.at(done))

    def count_received(self, count: int) -> None:
        """Add bytes that were received over the network."""
        self.update(received=(self.status.received or 0) + count)

    def fail(self, finding: Finding) -> None:
        """Report why the copy has failed."""
        self.update(phase=FAILED, finding=finding)

    def publish(self, manifest: Mapping[str, FileState]) -> None:
        """Set the manifest; once it is known, the servers behind this one see it too."""
        self.manifest = manifest
        if manifest:
            write_manifest(self._public / "manifest.json", manifest)
