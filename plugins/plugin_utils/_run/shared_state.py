# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""State that the workers of one run share.

Ansible runs the task of each host in a separate process on the controller. These processes share a folder
below the run's temporary directory, which no other user can read, and which Ansible creates for each run and
removes at its end. A controller that is killed leaves only the folder behind.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

_SUFFIX = ".json"


class SharedState:
    """Named entries in the folder ``path``. Every write is atomic: readers see all of it or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, name: str, value: Any) -> None:
        """Set an entry to a JSON value, replacing the previous one."""
        draft = self._draft(name, value)
        draft.replace(self._path / f"{name}{_SUFFIX}")

    def first(self, name: str, value: Any) -> Any:
        """Set an entry unless a worker has already set it; return its value."""
        draft = self._draft(name, value)
        with contextlib.suppress(FileExistsError):
            os.link(draft, self._path / f"{name}{_SUFFIX}")
        draft.unlink()
        return self.get(name)

    def get(self, name: str) -> Any:
        """Return the value of an entry, or None."""
        try:
            return json.loads((self._path / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def values(self, prefix: str) -> list[Any]:
        """Return the values of all entries whose names begin with the prefix."""
        paths = sorted(self._path.glob(f"{prefix}*{_SUFFIX}"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def _draft(self, name: str, value: Any) -> Path:
        draft = self._path / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        return draft
