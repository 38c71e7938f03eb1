"""Where things lie on a server. Tests move the root by PD_SIM_ROOT; in the image it is /."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    return Path(os.environ.get("PD_SIM_ROOT", "/"))


def on_server(path: str) -> Path:
    """An absolute path of the server or container, under the root."""
    return root() / path.lstrip("/")


DATA = Path(__file__).resolve().parent.parent / "data"
