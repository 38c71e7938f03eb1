# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard is told: guard.json, which a rollout writes from the plan and the role's variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

CONFIG, SECRET, STATE = "guard.json", "secret", "state.json"


class Settings(NamedTuple):
    """Times in seconds. ``attempts``: starts in a row after which an instance is given up."""

    attempts: int
    # Before the second start in a row; each further pause is twice as long.
    pause: float
    # Between two requests to each API, and what one may take while the engine does nothing else.
    probe: float
    answer: float
    # An engine without progress leaves the list after the one, and is started anew after the other.
    stall: float
    hang: float
    # Between two canaries of a router's server.
    canary: float


class Engine(NamedTuple):
    """An engine of this server: one node of an instance. ``apis``: its own, as ``address:port``."""

    container: str
    instance: str
    role: str
    rank: int
    apis: tuple[str, ...]
    script_path: str


class Instance(NamedTuple):
    """An instance: its servers by rank, and all of its APIs as ``address:port``."""

    name: str
    role: str
    nodes: tuple[str, ...]
    apis: tuple[str, ...]


class Config(NamedTuple):
    """What one guard is told. ``servers``: address and port of the guards to which it listens."""

    deployment: str
    host: str
    address: str
    port: int
    directory: Path
    release: str
    model: str
    protocol: str
    listen: dict[str, Any] | None
    secret_path: str | None
    servers: dict[str, tuple[str, int]]
    instances: dict[str, Instance]
    engines: tuple[Engine, ...]
    # Slices of the plan; the front is None where clients reach a router directly.
    routers: tuple[dict[str, Any], ...]
    front: dict[str, Any] | None
    lists: dict[str, Any]
    settings: Settings

    @property
    def keeps_list(self) -> bool:
        """Whether it changes what routers list: behind a front, where a second one can take over."""
        return self.front is not None and len(self.routers) == 2

    @property
    def folder(self) -> Path:
        """Its own directory."""
        return self.directory / "guard"

    @property
    def run(self) -> Path:
        """Where it writes its status."""
        return Path(f"/run/{self.deployment}-guard")

    def api_key(self) -> str | None:
        """Return the key of the engines' APIs. Raises OSError."""
        return Path(self.secret_path).read_text(encoding="utf-8").strip() if self.secret_path else None


def config_of(told: Mapping[str, Any]) -> Config:
    """Return the configuration in the content of guard.json. Raises KeyError, TypeError, ValueError."""
    settings = {name: told["settings"][name] for name in Settings._fields}
    instances = [
        Instance(one["name"], one["role"], tuple(one["nodes"]), tuple(one["apis"]))
        for one in told["instances"]
    ]
    engines = [
        Engine(
            one["container"],
            one["instance"],
            one["role"],
            int(one["node_rank"]),
            tuple(one["apis"]),
            one["script_path"],
        )
        for one in told["engines"]
    ]
    return Config(
        deployment=told["deployment"],
        host=told["host"],
        address=told["address"],
        port=int(told["port"]),
        directory=Path(told["directory"]),
        release=told["release"],
        model=told["model"],
        protocol=told["protocol"],
        listen=told["listen"],
        secret_path=told["secret_path"],
        servers={name: (at["address"], int(at["port"])) for name, at in told["servers"].items()},
        instances={one.name: one for one in instances},
        engines=tuple(engines),
        routers=tuple(told["routers"]),
        front=told["front"],
        lists=told["lists"],
        settings=Settings(
            attempts=int(settings.pop("attempts")), **{k: float(v) for k, v in settings.items()}
        ),
    )


def read(path: Path) -> Config:
    """Return the configuration in a file. Raises OSError, KeyError, TypeError, ValueError."""
    return config_of(json.loads(path.read_text(encoding="utf-8")))
