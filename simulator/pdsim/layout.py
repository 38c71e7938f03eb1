"""Where things are, and what they are called: all names carry the checkout, so that two never meet."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SIMULATOR = Path(__file__).resolve().parent.parent
ROOT = SIMULATOR.parent
STATE = ROOT / ".sim"
# Images are cached for all checkouts of the machine, by content.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pd_rollout"

CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
LABEL_CHECKOUT = "pdsim.checkout"
LABEL_NAME = "pdsim.name"
LABEL_HOST = "pdsim.host"


def prefix(name: str) -> str:
    """What the containers, volumes and the network of a simulated cluster begin with."""
    return f"pdsim-{CHECKOUT}-{name}"


def container(name: str, host: str) -> str:
    """The container that is this server."""
    return f"{prefix(name)}-{host}"


def labels(name: str, host: str = "") -> list[str]:
    """`--label` options for what belongs to a simulated cluster."""
    pairs = {LABEL_CHECKOUT: CHECKOUT, LABEL_NAME: name}
    if host:
        pairs[LABEL_HOST] = host
    return [part for key, value in pairs.items() for part in ("--label", f"{key}={value}")]


def state(name: str) -> Path:
    """The folder that holds a simulated cluster's key, known hosts and inventory."""
    return STATE / name


def digest(*parts: str | bytes | Path) -> str:
    """A short hash of texts and of files (a folder counts with every file in it, names and modes)."""
    # A salt makes everything anew, for a checkout that measures how long that takes (scripts/bench).
    total = hashlib.sha256(os.environ.get("PD_SIM_SALT", "").encode())
    for part in parts:
        if isinstance(part, Path):
            for path in sorted(part.rglob("*")) if part.is_dir() else [part] if part.exists() else []:
                if "__pycache__" in path.parts or path.is_dir():
                    continue
                total.update(f"{path.relative_to(part.parent)} {path.lstat().st_mode & 0o100:o}\0".encode())
                total.update(str(path.readlink()).encode() if path.is_symlink() else path.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:12]
