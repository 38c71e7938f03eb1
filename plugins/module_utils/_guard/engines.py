# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The engines of this server: what the Docker Engine says of them, and how they are stopped and started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._docker.client import DockerApi, DockerError
from .._serving.nodes import read_record, start_of, write_record
from .._serving.running import UP, name_of
from .config import Engine
from .generations import NONE, Generation, parsed, written

# Seconds for an end by itself.
STOP = 5
DEPLOYMENT = "pd_rollout.deployment"


class Look(NamedTuple):
    """What runs of an engine.

    exists, up: whether there is a container, and whether it runs.
    runs: the generation for which it runs; None if it does not, or if nobody has noted that start.
    last: the generation of the last start that was noted.
    seconds: how long that start took; None if nobody has measured it.
    start: when it was started, as the Docker Engine says; empty if it does not run.
    ended: how it ended; empty if it runs.
    """

    exists: bool = False
    up: bool = False
    runs: Generation | None = None
    last: Generation = NONE
    seconds: float | None = None
    start: str = ""
    ended: str = ""


def containers(docker: DockerApi, deployment: str) -> dict[str, dict[str, Any]]:
    """Return the containers of a deployment by name. Raises DockerError."""
    return {name_of(one): one for one in docker.containers({DEPLOYMENT: deployment})}


def _slice(engine: Engine) -> dict[str, Any]:
    """Return what the functions of nodes.py take."""
    return {"script_path": engine.script_path, "container": engine.container}


class Engines:
    """The containers of a deployment's engines on this server.

    docker, quick: the Docker Engine; ``quick`` for looks.

    Raises DockerError from each method.
    """

    def __init__(self, engines: Sequence[Engine], docker: DockerApi, quick: DockerApi) -> None:
        self._engines, self._docker, self._quick = engines, docker, quick

    def looks(self, containers: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
        """Return what runs, by instance. ``containers``: the Docker Engine's list by name."""
        return {one.instance: self._look(one, containers.get(one.container)) for one in self._engines}

    def _look(self, engine: Engine, listed: Mapping[str, Any] | None) -> Look:
        if listed is None:
            return Look()
        noted = read_record(_slice(engine))
        record = noted or {}
        last = parsed(str(record.get("generation") or ""))
        seconds = record.get("seconds")
        details = self._quick.inspect(engine.container)
        if details is None:
            return Look()
        state = details["State"]
        if state["Status"] not in UP:
            return Look(True, False, None, last, seconds, "", _ended(state))
        if noted is None:
            # As after a rollout by an earlier release: only restarts by the Docker Engine are known.
            ours = not details.get("RestartCount")
        else:
            ours = all(record.get(key) == value for key, value in start_of(details).items())
        return Look(True, True, last if ours else None, last, seconds, state["StartedAt"])

    def stop(self, engine: Engine) -> None:
        """Stop an engine. It has no request that could still be answered, so it is soon killed."""
        self._docker.stop(engine.container, STOP)

    def start(self, engine: Engine, generation: Generation) -> None:
        """Start an engine, and note for which generation. Raises OSError, too."""
        record = read_record(_slice(engine)) or {}
        kept = {} if record.get("seconds") is None else {"seconds": record["seconds"]}
        # Before the start: a guard that ends in between finds one that is not noted, and makes another one.
        note = {**kept, "generation": written(generation), "container": "", "started_at": ""}
        write_record(_slice(engine), note)
        if not self._docker.start(engine.container):
            raise DockerError(f"there is no container {engine.container}")
        details = self._docker.inspect(engine.container)
        if details is not None:
            write_record(_slice(engine), {**note, **start_of(details)})


def _ended(state: dict[str, Any]) -> str:
    """Return how a container ended."""
    if state["Status"] == "created":
        return "it was never started"
    if state.get("OOMKilled"):
        return "its memory ran out (OOM)"
    error = f": {state['Error']}" if state.get("Error") else ""
    return f"it ended with status {state['ExitCode']} at {str(state.get('FinishedAt'))[:19]}Z{error}"
