"""What the faults of a simulated server are made of: the base classes, and how a file is put aside."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Parameters = Mapping[str, Any]
"""Of a fault, as `sim fault` takes them."""
STATE = Path("/usr/local/dcmi/pd-sim")
# What was there before; the path of each is its name here, with % for /.
KEPT = Path("/opt/pd-sim/kept")
# What is mounted over files of the kernel.
SAYS = Path("/opt/pd-sim/says")


def kept(path: Path) -> Path:
    """Where a file or folder lies while a fault has taken it away."""
    return KEPT / str(path).replace("/", "%")


def keep(path: Path) -> None:
    """Move a file or folder aside, unless that was done before."""
    if kept(path).exists():
        return
    KEPT.mkdir(exist_ok=True)
    shutil.move(path, kept(path))


def restore(path: Path) -> None:
    """Put back what was moved aside."""
    if not kept(path).exists():
        return
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    shutil.move(kept(path), path)


def server() -> dict[str, Any]:
    """What the server says of itself."""
    known: dict[str, Any] = json.loads((STATE / "server.json").read_text())
    return known


def model() -> Path:
    """The folder of the weights."""
    return Path(server()["model_path"] or "/root/.cache/model")


def of_model(pattern: str) -> Path:
    """The one file of the weights that fits, be it there or moved aside."""
    there = [*model().glob(pattern), *(Path(one.name.replace("%", "/")) for one in KEPT.glob(f"*%{pattern}"))]
    if not there:
        raise SystemExit(f"there is no {pattern} in {model()}")
    return there[0]


def shard(parameters: Parameters) -> Path:
    """One shard of the weights, counted from 1."""
    return of_model(f"*-{int(parameters.get('number', 43)):05d}-of-*.safetensors")


class Fault:
    """One thing that can be wrong; the base class has no effect of its own."""

    parameters = ""

    def apply(self, parameters: Parameters) -> None:
        """Make it so."""

    def heal(self, parameters: Parameters) -> None:
        """Undo it."""

    def boot(self, parameters: Parameters) -> None:
        """Make it so again after a boot, where a boot undoes it."""


class PathMissing(Fault):
    """Base of the faults in which a file or folder is not there."""

    def path(self, parameters: Parameters) -> Path:
        """What is missing."""
        raise NotImplementedError

    def apply(self, parameters: Parameters) -> None:
        """Move it aside."""
        keep(self.path(parameters))

    def heal(self, parameters: Parameters) -> None:
        """Put it back."""
        restore(self.path(parameters))


class OverMount(Fault):
    """Base of the faults in which a file says something else: another one is mounted over it."""

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        raise NotImplementedError

    def text(self, parameters: Parameters) -> str:
        """What it says then."""
        raise NotImplementedError

    def apply(self, parameters: Parameters) -> None:
        """Mount it. Files of the kernel cannot be written or moved; over them something can be mounted."""
        path = self.path(parameters)
        SAYS.mkdir(parents=True, exist_ok=True)
        other = SAYS / str(path).replace("/", "%")
        other.write_text(self.text(parameters))
        subprocess.run(["mount", "--bind", str(other), str(path)], check=True)

    def heal(self, parameters: Parameters) -> None:
        """Take it away, whoever reads it at the moment; a boot does so too."""
        command = ["umount", "--lazy", str(self.path(parameters))]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def boot(self, parameters: Parameters) -> None:
        """Mount it again."""
        self.apply(parameters)
