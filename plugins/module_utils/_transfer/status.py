# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How far the transfer of an image or of weights to a server is, as its process reports it in a JSON file.

phase: one of those below. source: where it comes from, as the user knows it. done, total: bytes, `total` None
where it is not known. rate: bytes a second. finding: why it failed, as JSON, else None.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

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


def begun() -> dict[str, Any]:
    """The status of a transfer that has only been started."""
    return {"phase": WAITING, "source": "", "done": 0, "total": None, "rate": 0.0, "finding": None}


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
