"""Faults of the login, and of the clock."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .base import Fault, Parameters, PathMissing


def sessions() -> Iterator[int]:
    """The processes of open ssh sessions: sshd, but the one that listens."""
    listening = Path("/run/sshd.pid")
    first = int(listening.read_text()) if listening.exists() else 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != first:
            with suppress(OSError):
                if (folder / "comm").read_text().strip() == "sshd":
                    yield int(folder.name)


def end_sessions() -> None:
    """Break off open connections: an old one would go on as if nothing had happened."""
    for pid in list(sessions()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class SshStopped(Fault):
    """sshd does not run: connection refused"""

    def apply(self, parameters: Parameters) -> None:
        """Stop it, until the next boot."""
        subprocess.run(["systemctl", "stop", "ssh.service"], check=True)
        end_sessions()

    def heal(self, parameters: Parameters) -> None:
        """Start it, unless a boot has. It listens when that is done."""
        subprocess.run(["systemctl", "start", "ssh.service"], check=True)


class SshRefused(Fault):
    """the login is refused: the key is not known"""

    def places(self) -> list[Path]:
        """The lists of keys."""
        return [
            path.with_name("authorized_keys") for path in Path("/").glob("root/.ssh/authorized_keys*")
        ] + [path.with_name("authorized_keys") for path in Path("/home").glob("*/.ssh/authorized_keys*")]

    def apply(self, parameters: Parameters) -> None:
        """Put them aside, where they are."""
        for path in self.places():
            if path.exists():
                path.rename(path.with_name("authorized_keys.kept"))
        end_sessions()

    def heal(self, parameters: Parameters) -> None:
        """Put them back."""
        for path in self.places():
            if path.with_name("authorized_keys.kept").exists():
                path.with_name("authorized_keys.kept").rename(path)


class SudoRefused(PathMissing):
    """the user that logs in may not use sudo (a server with `sim_server: {user: …}`)"""

    def path(self, parameters: Parameters) -> Path:
        """What permits it."""
        return Path("/etc/sudoers.d/pd-sim")


class ClockOff(Fault):
    """the clock is wrong, as Python reads it: the servers share the kernel's, which cannot be set for one"""

    parameters = "seconds=90"
    # Python executes such a line at every start, before any program.
    hook = Path("/usr/lib/python3/dist-packages/pd_sim_clock.pth")

    def apply(self, parameters: Parameters) -> None:
        """Shift what time.time tells."""
        seconds = float(parameters.get("seconds", 90))
        self.hook.write_text(f"import time; time.time = lambda real=time.time: real() + {seconds}\n")

    def heal(self, parameters: Parameters) -> None:
        """Nothing is shifted any more."""
        self.hook.unlink(missing_ok=True)


FAULTS: dict[str, type[Fault]] = {
    "ssh_stopped": SshStopped,
    "ssh_refused": SshRefused,
    "sudo_refused": SudoRefused,
    "clock_off": ClockOff,
}
