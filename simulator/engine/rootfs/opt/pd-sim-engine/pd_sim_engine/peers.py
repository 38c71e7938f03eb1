"""With whom an engine has handed KV caches over. The real engines keep no such record; by this one a test
proves that no two versions ever served a request together.

Each engine tells the other side what it is, and notes each of its peers once: in its log, and as a line of
JSON in the server's /usr/local/dcmi/pd-sim/served.jsonl, which outlives its container. The container has that
folder read-only, so the line goes through a named pipe that the server reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from contextlib import suppress
from typing import Any

from . import RELEASE
from .config.vllm import EngineConfig
from .log import Log
from .paths import on_server
from .release import FILE
from .server_state import STATE

PIPE, RECORD = f"{STATE}/served.fifo", f"{STATE}/served.jsonl"
MODEL_FILES = ("config.json", "*.index.json", "quant_model_description*.json")
"""Whose content tells one model from another."""


def _image() -> str:
    """The name in the image's file `image` beside `release`, which a test may add; else the release's."""
    name = FILE.with_name("image")
    return name.read_text(encoding="utf-8").strip() if name.exists() else RELEASE.name


def _model(config: EngineConfig) -> str:
    """A digest of what describes the weights."""
    found = hashlib.sha256()
    for pattern in MODEL_FILES:
        for path in sorted(config.model.directory.glob(pattern)):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


class Peers:
    """What this engine is, and with whom it has served requests."""

    def __init__(self, config: EngineConfig, place: dict[str, Any], log: Log) -> None:
        self.log = log
        self.own = {
            "instance": place["instance"],
            "role": place["role"],
            "release": RELEASE.name,
            "image": _image(),
            "model": _model(config),
            "generation": os.environ.get("PD_SIM_GENERATION", ""),
            "process": uuid.uuid4().hex[:8],
        }
        self.met: set[str] = set()

    def meet(self, peer: dict[str, Any] | None) -> None:
        """A request is served with this peer."""
        text = json.dumps(peer)
        if peer is None or text in self.met:
            return
        self.met.add(text)
        self.log.raw(f"[pd-sim] serves with {text}")
        line = json.dumps({"time": time.time(), "engine": self.own, "peer": peer}) + "\n"
        # A pipe that nobody reads refuses to open. Outside of a container there is none, but the file.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND
        with suppress(OSError):
            pipe = on_server(PIPE)
            out = os.open(pipe, flags) if pipe.exists() else os.open(on_server(RECORD), flags | os.O_CREAT)
            os.write(out, line.encode())
            os.close(out)
