"""What the simulated server says of itself and which faults are injected: /usr/local/dcmi/pd-sim/*.json.

Both files are read tolerantly: a missing file or key means the default, a broken file means none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .paths import on_server

STATE = "/usr/local/dcmi/pd-sim"


def _read(name: str) -> dict[str, Any]:
    try:
        data = json.loads(on_server(f"{STATE}/{name}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


@dataclass(frozen=True)
class Timing:
    """Seconds, unless the name says otherwise."""

    start_seconds: float = 1.0
    """Imports, configuration, spawning of the workers (15 to 60 s on real servers)."""
    load_seconds: float = 6.0
    """Loading the weights (5 to 9 minutes for 671 billion parameters)."""
    capture_seconds: float = 2.0
    """Capturing the graphs (up to 4 minutes)."""
    hccl_connect_timeout_scale: float = 0.1
    """HCCL_CONNECT_TIMEOUT is multiplied by it."""
    token_seconds: float = 0.005
    """One decoding step."""
    prefill_seconds_per_1k: float = 0.02
    """Prefill of 1,000 tokens."""
    watchdog_seconds: float = 5.0
    """From the death of the engine core to the end of the API server, which looks after it so often."""
    lost_peer_seconds: float | None = None
    """After which a node ends of the loss of another one; None: it never notices by itself."""


def timing() -> Timing:
    given = _read("server.json").get("timing")
    known = {}
    if isinstance(given, dict):
        for name in Timing.__dataclass_fields__:
            if isinstance(given.get(name), int | float):
                known[name] = float(given[name])
    return Timing(**known)


def driver_soc() -> str:
    """The chip: Ascend910_93xx is Atlas A3, Ascend910B is A2."""
    return str(_read("server.json").get("soc", "Ascend910_9391"))


def super_pod() -> Any:
    return _read("server.json").get("super_pod_id", 0)


def instance_name() -> str | None:
    """The instance, told from the launch script that is mounted into this container."""
    try:
        text = on_server("/proc/self/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        fields = line.split()
        found = re.search(r"/([^/]+)\.sh$", fields[4]) if len(fields) > 4 else None
        if found:
            return found[1]
    return None


_faults: tuple[tuple[int, int, int], dict[str, Any]] | None = None


def _current_faults() -> dict[str, Any]:
    """faults.json, read again only when it has changed: every token asks for it."""
    global _faults
    try:
        found = on_server(f"{STATE}/faults.json").stat()
    except OSError:
        return {}
    version = found.st_mtime_ns, found.st_ino, found.st_size
    if _faults is None or _faults[0] != version:
        _faults = version, _read("faults.json")
    return _faults[1]


def fault(name: str, **place: Any) -> dict[str, Any] | None:
    """The parameters of a fault, if it is injected and meant for this place.

    A fault may name `instance`, `role` (prefiller, decoder), `rank` or `port`; what it does not name fits
    every engine.
    """
    given = _current_faults().get(name)
    if given is None or given is False:
        return None
    parameters = given if isinstance(given, dict) else {}
    for key in ("instance", "role", "rank", "port"):
        wanted = parameters.get(key)
        if wanted is not None and place.get(key) is not None and str(wanted) != str(place[key]):
            return None
    return parameters
