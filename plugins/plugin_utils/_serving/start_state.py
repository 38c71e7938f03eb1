# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the hosts' workers of one run tell each other while they wait for their engines.

Every host waits in a process of its own on the controller. They share a folder below the run's temporary
directory, which
Ansible makes anew for each run and removes at its end: a failure seen on one host ends the wait of all,
and the head of an
instance can say which of its peers has not come. A controller that is killed leaves the folder and nothing
else.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class StartBoard:
    """The folder C(path); every write is atomic, so that a reader sees all of it or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def begun(self, now: float | None = None) -> float:
        """Seconds of the clock at which the first host of this wait came here: one deadline holds for all."""
        mark = self._path / "begun"
        own = self._path / f"begun.{os.getpid()}"
        own.write_text(repr(time.time() if now is None else now), encoding="utf-8")
        try:
            os.link(own, mark)
        except FileExistsError:
            pass
        finally:
            own.unlink()
        return float(mark.read_text(encoding="utf-8"))

    def post(self, instance: str, rank: int, **state: Any) -> None:
        """Tell the state of one node of an instance."""
        self._write(f"{instance}.{rank}.node", json.dumps({"rank": rank, **state}))

    def nodes(self, instance: str) -> dict[int, dict[str, Any]]:
        """The states told so far, by node rank."""
        # Names of instances may hold dots: prefiller.b.0 is no rank of prefiller.
        found = [p for p in self._path.glob("*.node") if p.stem.rpartition(".")[0] == instance]
        states = [json.loads(p.read_text(encoding="utf-8")) for p in found]
        return {state["rank"]: state for state in states}

    def abort(self, why: str) -> None:
        """End the wait of every host; the first reason stays."""
        if self.aborted() is None:
            self._write("aborted", why)

    def aborted(self) -> str | None:
        try:
            return (self._path / "aborted").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _write(self, name: str, text: str) -> None:
        draft = self._path / f".{name}.{os.getpid()}"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self._path / name)
