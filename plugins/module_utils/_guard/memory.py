# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard remembers over its own restarts, what it shows, and what it tells systemd."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import own_files
from .generations import Attempts

# Events that are shown.
EVENTS = 50
FORMAT = 1
STATUS = "status.json"


def write(path: Path, content: Mapping[str, Any], mode: int = 0o600) -> None:
    """Replace a file of JSON at once. Raises OSError."""
    own_files.write(path, json.dumps(content, ensure_ascii=False), mode)


def attempts(path: Path) -> dict[str, Attempts]:
    """Return the starts in a row of each instance; pauses are over after a restart of the guard."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["attempts"]
        return {
            str(name): Attempts(int(one["starts"]), 0.0, str(one["given_up"])) for name, one in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep(path: Path, known: Mapping[str, Attempts]) -> None:
    """Remember the starts in a row. What cannot be written is not remembered."""
    rows = {
        name: {"starts": one.starts, "given_up": one.given_up} for name, one in known.items() if one.starts
    }
    with contextlib.suppress(OSError):
        write(path, {"_": "Written by ascend.pd_rollout: what the guard remembers.", "attempts": rows})


class Events:
    """What has happened, for the journal and the status."""

    def __init__(self) -> None:
        self.last: deque[dict[str, Any]] = deque(maxlen=EVENTS)

    def note(self, what: str) -> None:
        """Note something; said again at once, it is not noted again."""
        if self.last and self.last[-1]["what"] == what:
            return
        self.last.append({"at": round(time.time(), 3), "what": what})
        # A journal that is gone for a moment ends no thread.
        with contextlib.suppress(OSError):
            sys.stdout.write(f"{what}\n")
            sys.stdout.flush()


def notify(message: str) -> None:
    """Tell systemd something (sd_notify(3)), if it asks."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
