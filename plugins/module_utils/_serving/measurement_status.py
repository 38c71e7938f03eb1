# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module measurement_info: the progress of a measurement."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .measurement_log import last_lines, progress, tail_of

ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "container": {"type": "str", "required": True},
    "known": {"type": "str", "default": ""},
    "hold": {"type": "float", "default": 5},
    "log_lines": {"type": "int", "default": 15},
}
POLL_SECONDS = 0.5


def exit_code_of(folder: Path) -> int | None:
    """Return the exit code of the commands, or None."""
    try:
        return int((folder / "exit_code").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def look(folder: Path, container: str, api: DockerApi) -> tuple[bool, int | None]:
    """Return (running, exit code) at this moment. Raises DockerError."""
    found = api.inspect(container)
    # With its exit code written it ends in a moment; it must not be removed before it has.
    if found is not None and found["State"]["Status"] in ("created", "running"):
        return True, None
    # Read last, because writing it is the last action of a container.
    return False, exit_code_of(folder)


def info(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails."""
    folder, api = Path(options["directory"]), DockerApi()
    end = time.monotonic() + options["hold"]
    try:
        os.utime(folder / "heartbeat")
        while True:
            running, code = look(folder, options["container"], api)
            text = tail_of(folder / "log")
            far = progress(text)
            if not running or far != options["known"] or time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
    except OSError as error:
        why = f"The measurement's folder cannot be used: {error}"
        return {"failed": True, "changed": False, "msg": why}
    except DockerError as error:
        return error.failure("The measurement cannot be watched.")
    lines = last_lines(text, options["log_lines"])
    return {"changed": False, "running": running, "exit_code": code, "progress": far, "log": lines}
