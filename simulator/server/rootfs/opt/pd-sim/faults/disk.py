"""Faults of folders."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from .base import Fault, Parameters


class DiskFull(Fault):
    """no space is left in a folder"""

    parameters = "path=/etc/pd_rollout"

    def path(self, parameters: Parameters) -> Path:
        """The folder."""
        return Path(parameters.get("path", "/etc/pd_rollout"))

    def covered(self, path: Path) -> bool:
        """Whether the full file system lies over it already; the folder may be a mount of its own anyway."""
        return f"pd-sim-full {path} " in Path("/proc/self/mounts").read_text()

    def apply(self, parameters: Parameters) -> None:
        """Mount a small and full file system over the folder, with what was in there if that is little."""
        path = self.path(parameters)
        path.mkdir(parents=True, exist_ok=True)
        if self.covered(path):
            return
        size, content = 65536, b""
        # What is a mount of its own, as the Docker Engine's folder, may be large.
        if not os.path.ismount(path):
            size += sum(max(4096, one.stat().st_size + 4096) for one in path.rglob("*") if one.is_file())
            command = ["tar", "-C", str(path), "-cf", "-", "."]
            content = subprocess.run(command, capture_output=True, check=True).stdout
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "pd-sim-full", str(path)], check=True)
        if content:
            subprocess.run(["tar", "-C", str(path), "-xf", "-"], input=content, check=True)
        with suppress(OSError), (path / ".full").open("wb", buffering=0) as handle:
            while True:
                handle.write(bytes(4096))

    def heal(self, parameters: Parameters) -> None:
        """Take it away; what was written meanwhile is lost."""
        if self.covered(self.path(parameters)):
            # Somebody may have a file of it open: it goes when that ends.
            subprocess.run(["umount", "--lazy", str(self.path(parameters))], check=True)

    boot = apply


class DirectoryOpen(Fault):
    """every user of the server can write to a folder"""

    parameters = "path=/etc/pd_rollout"

    def apply(self, parameters: Parameters) -> None:
        """Have it, and let everybody in."""
        path = Path(parameters.get("path", "/etc/pd_rollout"))
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)

    def heal(self, parameters: Parameters) -> None:
        """As root makes it."""
        Path(parameters.get("path", "/etc/pd_rollout")).chmod(0o755)


FAULTS: dict[str, type[Fault]] = {
    "disk_full": DiskFull,
    "directory_open": DirectoryOpen,
}
