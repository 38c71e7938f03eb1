# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The front's unit, by systemctl; and other commands."""

from __future__ import annotations

import subprocess

# systemd gives a unit 90 seconds to start.
TIMEOUT = 120.0


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
