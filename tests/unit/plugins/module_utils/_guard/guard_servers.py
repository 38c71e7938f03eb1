# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the guards of a small deployment are told: prefill on server1 and server2, decode on server1 alone, or
what a test asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.config import Config, config_of

SETTINGS = {
    "attempts": 2,
    "pause": 10,
    "probe": 0.01,
    "answer": 60,
    "stall": 6,
    "hang": 60,
    "canary": 60,
}
# Seconds in which whatever is awaited has come.
LATEST = 60.0
ADDRESSES = {"server1": "192.0.2.1", "server2": "192.0.2.2", "server3": "192.0.2.3"}


def instance(name: str, *nodes: str, port: int = 7100) -> dict[str, Any]:
    """An instance whose head has the API."""
    role = "prefiller" if name.startswith("prefill") else "decoder"
    apis = [f"{ADDRESSES[nodes[0]]}:{port}"]
    return {"name": name, "role": role, "nodes": list(nodes), "apis": apis}


def engine(of: dict[str, Any], host: str, directory: Path) -> dict[str, Any]:
    """The node of an instance on a server."""
    rank = of["nodes"].index(host)
    return {
        "container": f"pd-{of['name']}",
        "instance": of["name"],
        "role": of["role"],
        "node_rank": rank,
        "apis": of["apis"] if not rank else [],
        "script_path": str(directory / f"{of['name']}.sh"),
    }


PREFILL = instance("prefill", "server1", "server2")
DECODE = instance("decode", "server1", port=7200)


def told(
    directory: Path, host: str = "server1", *instances: dict[str, Any], **changes: Any
) -> dict[str, Any]:
    """The content of guard.json."""
    known = list(instances) or [PREFILL, DECODE]
    content: dict[str, Any] = {
        "deployment": "pd",
        "host": host,
        "address": ADDRESSES[host],
        "port": 7900,
        "directory": str(directory),
        "release": "v0.13.0",
        "model": "deepseek_v3",
        "protocol": "pull",
        "listen": None,
        "secret_path": None,
        "servers": {name: {"address": at, "port": 7900} for name, at in ADDRESSES.items() if name != host},
        "instances": known,
        "engines": [engine(one, host, directory) for one in known if host in one["nodes"]],
        "routers": [],
        "front": None,
        "lists": {"prefillers": [], "decoders": []},
        "settings": dict(SETTINGS),
    }
    return {**content, **changes}


def config(directory: Path, host: str = "server1", *instances: dict[str, Any], **changes: Any) -> Config:
    """The configuration of a guard."""
    return config_of(told(directory, host, *instances, **changes))


def within(condition: Callable[[], object]) -> None:
    """Wait for a condition, also on a busy machine; one that never comes is a failure."""
    pause, deadline = threading.Event(), time.monotonic() + LATEST
    while not condition():
        assert time.monotonic() < deadline, "it never comes"
        pause.wait(0.005)
