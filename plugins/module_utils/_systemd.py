# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Units of systemd that this collection writes, systemctl, and other commands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ._files.own_files import holds

MARK = b"Written by ascend.pd_rollout"
UNITS = "/etc/systemd/system"
# For what holds until the next boot at most.
RUN_UNITS = "/run/systemd/system"
UNIT_MODE = 0o644
# Seconds: systemd gives a unit 90 to start; between two looks.
TIMEOUT = 120.0
POLL = 0.1


def unit_path(unit: str) -> Path:
    """Return the path of a unit."""
    return Path(UNITS, f"{unit}.service")


def drop_in(unit: str) -> Path:
    """Return the path of an addition to a unit."""
    return Path(RUN_UNITS, f"{unit}.service.d", "once.conf")


def foreign(path: Path) -> bool:
    """Return whether there is a file at that path that this collection has not written."""
    try:
        return MARK not in path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def units_outdated(expected: Mapping[str, str]) -> list[str]:
    """Return the units that differ from their SHA-256, by name."""
    return [unit for unit, value in expected.items() if not holds(unit_path(unit), value, UNIT_MODE)]


def remove_unit(path: Path) -> None:
    """Stop a unit and remove it, with its addition."""
    systemctl("disable", "--now", path.name)
    path.unlink()
    once = drop_in(path.stem)
    if once.exists():
        once.unlink()
        once.parent.rmdir()
    systemctl("daemon-reload")


def systemctl(*words: str) -> tuple[int, str]:
    """Run systemctl; return its exit status and what it printed. Without systemctl the status is 127."""
    return run(["systemctl", *words])


def is_active(unit: str) -> bool:
    """Return whether the unit runs."""
    return systemctl("is-active", "--quiet", f"{unit}.service")[0] == 0


def is_enabled(unit: str) -> bool:
    """Return whether the unit starts with the server."""
    return systemctl("is-enabled", "--quiet", f"{unit}.service")[0] == 0


def journal(unit: str, lines: int = 15) -> list[str]:
    """Return the unit's last lines in the journal."""
    words = [
        "journalctl",
        "--unit",
        f"{unit}.service",
        "--lines",
        str(lines),
        "--no-pager",
        "--output",
        "cat",
    ]
    return run(words)[1].splitlines()


def run(words: list[str]) -> tuple[int, str]:
    """Run a command; return its exit status and what it printed."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"{' '.join(words)} did not end within {TIMEOUT:.0f} s"
    return done.returncode, done.stdout.decode("utf-8", errors="replace").strip()


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Return whether something becomes true within a number of seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True
