# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The status of the transfer of an image or of weights to a server; its process writes it to a JSON file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from .._findings import Finding

WAITING = "waiting"
FETCHING = "fetching"
VERIFYING = "verifying"
#: Docker loads the image.
LOADING = "loading"
COMPLETE = "complete"
FAILED = "failed"
#: There is no process, and no result.
GONE = "gone"

ENDED = (COMPLETE, FAILED, GONE)


#: Keys that are null in JSON where their value is not known; others are left out.
NULLABLE = ("total", "finding")

Status = TypeVar("Status", bound="TransferStatus")


@dataclass(frozen=True)
class TransferStatus:
    """The status of a transfer; by default, of one that has only been started.

    phase: one of those above.
    source: where it comes from, as the user knows it; empty while unknown.
    done: bytes that are there.
    total: bytes of the whole; None while unknown.
    rate: bytes a second.
    finding: why it failed; None unless it has.
    """

    phase: str = WAITING
    source: str = ""
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    finding: Finding | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.finding is not None:
            values["finding"] = self.finding.to_dict()
        return {name: value for name, value in values.items() if value is not None or name in NULLABLE}

    @classmethod
    def from_dict(cls: type[Status], value: Mapping[str, Any]) -> Status:
        """Return the status from a JSON object; unknown keys are ignored. Raises KeyError without a phase."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        finding = known.get("finding")
        known.update(phase=value["phase"], finding=Finding.from_dict(finding) if finding else None)
        return cls(**known)


@dataclass(frozen=True)
class ImageStatus(TransferStatus):
    """The status of the transfer of an image.

    kept: bytes that were there from an earlier run.
    fetched: bytes that came from a registry, the controller or a Docker Engine.
    served: bytes that went to other servers; None before it serves.
    port: on which it serves; None before it does.
    wanted: the chunk that it waits for, from the controller; None if it waits for none.
    names: of the image, as Docker loaded it; None before that.
    loaded_id: of the image that Docker loaded; None before that.
    """

    kept: int = 0
    fetched: int = 0
    served: int | None = None
    port: int | None = None
    wanted: int | None = None
    names: Sequence[str] | None = None
    loaded_id: str | None = None

    def wants_after(self, number: int) -> bool:
        """Return whether it waits for a chunk behind the one with this number."""
        return self.phase == FETCHING and self.wanted is not None and self.wanted > number


@dataclass(frozen=True)
class WeightsStatus(TransferStatus):
    """The status of the transfer of weights.

    received: bytes received over the network in this run; None for a download in a container.
    log: the last lines of its log; None unless it has failed or is gone.
    """

    received: int | None = None
    log: Sequence[str] | None = None


class Rate:
    """The speed of what grows, over the last seconds."""

    def __init__(self, window: float) -> None:
        """window: seconds that the speed is averaged over."""
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> float:
        """Bytes a second, now that so many bytes are there."""
        now = time.monotonic()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > self._window:
            self._samples.popleft()
        past, before = self._samples[0]
        return max(0.0, (done - before) / (now - past)) if now > past else 0.0

    def restart(self) -> None:
        """Forget what was, for something else is counted from here on."""
        self._samples.clear()
