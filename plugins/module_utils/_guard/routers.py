# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Has the routers of this server list other engines, as a rollout does: a second router, then the front."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .._docker.client import DockerApi, DockerError
from .._files import own_files
from .._front import files
from .._front.haproxy import Haproxy, HaproxyError
from .._serving.container_options import OPTIONS, digest
from .._serving.probe import probe
from .._serving.router_list import relisted
from .._serving.running import UP
from .config import Config

LISTS = ("prefillers", "decoders")
# What a rollout has listed, on a router that the guard has made.
BASE = "pd_rollout.guard."
# Seconds until a new router must answer, and between two looks.
READY, LOOK = 20.0, 0.1
POLL = 0.5


class Failed(Exception):
    """The list could not be changed; the text says why. What serves goes on."""


class Outdated(Failed):
    """The list is no longer wanted."""


class Lists(NamedTuple):
    """APIs by role, as ``address:port``: what the router lists that gets the requests, and what the last
    rollout has listed."""

    listed: dict[str, tuple[str, ...]]
    base: dict[str, tuple[str, ...]]


class Routers:
    """The two routers behind the front of this server.

    Raises DockerError, HaproxyError, OSError from each method.
    """

    def __init__(self, config: Config, docker: DockerApi) -> None:
        self._config, self._docker = config, docker
        front = config.front or {}
        self._folder = Path(front.get("directory", ""))
        self._drain = float(front.get("drain_timeout", 0))
        self._haproxy = Haproxy(f"{front.get('run')}/master.sock")
        # Held while the map is written, and while a router is removed or made: by one thread at a time.
        self._writing, self._making = threading.Lock(), threading.Lock()

    def active(self) -> str | None:
        """Return the colour of the router that gets the requests; None if there is no front."""
        return files.active(self._folder)

    def closed(self) -> str:
        """Return why the front answers itself; empty if it does not."""
        return files.closed(self._folder)

    def lists(self, containers: Mapping[str, Mapping[str, Any]]) -> Lists | None:
        """Return what is listed; None if no router gets requests, or if it does not say what it lists.

        containers: the Docker Engine's list by name.
        """
        found = self._pair(containers).get(self.active() or "")
        if found is None or found["State"] not in UP:
            return None
        labels = found["Labels"]
        if any(f"pd_rollout.{role}" not in labels for role in LISTS):
            return None
        listed = {role: _split(labels[f"pd_rollout.{role}"]) for role in LISTS}
        base = {role: _split(labels.get(BASE + role, labels[f"pd_rollout.{role}"])) for role in LISTS}
        return Lists(listed, base)

    def draining(self, containers: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether the router that gets no requests is still there."""
        active = self.active()
        return active is not None and any(colour != active for colour in self._pair(containers))

    def _pair(self, containers: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return the containers of both routers by colour, as far as there are any."""
        return {
            str(one["colour"]): containers[one["container"]]
            for one in self._config.routers
            if one["container"] in containers
        }

    def change(
        self,
        listed: Mapping[str, list[str]],
        base: Mapping[str, tuple[str, ...]],
        go_on: Callable[[], bool],
    ) -> None:
        """Have other APIs listed; returns when the new router gets the requests.

        listed, base: what is to be listed, and what the last rollout has listed.
        go_on: whether that is still wanted.

        Raises Failed, too.
        """
        active = self.active()
        if active is None:
            raise Failed("no router gets requests")
        other = next(one for one in self._config.routers if one["colour"] != active)
        serving = next(one for one in self._config.routers if one["colour"] == active)
        details = self._docker.inspect(serving["container"])
        if details is None:
            raise Failed(f"there is no container {serving['container']}")
        router = relisted(other, self._config.lists, *(_endpoints(listed[role]) for role in LISTS))
        try:
            with self._making:
                self.end(other)
                self._start(router, details, base)
            self._await(router, go_on)
            self._switch(str(router["colour"]))
        except (Failed, DockerError, HaproxyError, OSError):
            with contextlib.suppress(DockerError, OSError):
                self.end(router)
            raise

    def _start(
        self, router: Mapping[str, Any], like: Mapping[str, Any], base: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Run a router, with the limits of the container that serves."""
        own_files.write(Path(router["script_path"]), router["script"], 0o700)
        host = like["HostConfig"]
        stop, log = like["Config"].get("StopTimeout"), host["LogConfig"]
        policy = host["RestartPolicy"]["Name"]
        labels = {
            **router["labels"],
            **{BASE + role: ",".join(base[role]) for role in LISTS},
            OPTIONS: digest(router, policy, log.get("Config") or {}, stop),
        }
        key = like["Config"]["Labels"].get("pd_rollout.key")
        mounts = [
            {
                "Type": "bind",
                "Source": mount["source"],
                "Target": mount["target"],
                "ReadOnly": bool(mount["read_only"]),
            }
            for mount in router["mounts"]
        ]
        self._docker.create(
            router["container"],
            {
                "Image": like["Image"],
                "Cmd": list(router["command"]),
                "Labels": {**labels, **({"pd_rollout.key": key} if key else {})},
                "StopTimeout": stop,
                "HostConfig": {
                    "NetworkMode": "host",
                    "Mounts": mounts,
                    "RestartPolicy": host["RestartPolicy"],
                    "LogConfig": log,
                },
            },
        )
        self._docker.start(router["container"])

    def _await(self, router: Mapping[str, Any], go_on: Callable[[], bool]) -> None:
        """Wait until a router answers with its list. vllm-router does only when all of that answer."""
        deadline = time.monotonic() + READY
        while True:
            ready, seen = probe(router["health_url"], router["expected"])
            if ready:
                return
            if not go_on():
                raise Outdated("something else is to be listed by now")
            if time.monotonic() > deadline:
                raise Failed(f"the new router is not ready: {seen}")
            time.sleep(LOOK)

    def _switch(self, colour: str) -> None:
        """Have a router get the requests. It answers: HAProxy need not wait for its own next look."""
        path = self._folder / files.ROUTER
        self._haproxy.trust(colour)
        with self._writing:
            self._haproxy.set_map(str(path), "active", colour)
            own_files.write(path, files.router_map(colour, self.closed()))

    def close(self, why: str) -> None:
        """Have the front answer itself, with a reason; without one, have the routers answer again."""
        path = self._folder / files.ROUTER
        with self._writing:
            colour = self.active()
            if colour is None or why == self.closed():
                return
            if why:
                self._haproxy.put_map(str(path), "closed", why)
            else:
                self._haproxy.drop_map(str(path), "closed")
            own_files.write(path, files.router_map(colour, why))

    def end(self, router: Mapping[str, Any]) -> None:
        """Remove a router and its script, if it is there."""
        self._docker.remove(router["container"])
        _unlink(router)

    def drain(self, go_on: Callable[[], bool]) -> bool:
        """Wait until the router that gets no requests has answered its last ones, and remove it.

        go_on: whether to go on waiting; if not, it stays.

        Returns whether it is gone.
        """
        active = self.active()
        if active is None:
            return False
        left = [one for one in self._config.routers if one["colour"] != active]
        deadline = time.monotonic() + self._drain
        for router in left:
            details = self._docker.inspect(router["container"])
            if details is None:
                continue
            while time.monotonic() < deadline and self._haproxy.running(router["colour"]):
                time.sleep(POLL)
                if not go_on():
                    return False
            if not go_on() or self.active() != active:
                return False
            # What it has taken from elsewhere, it answers within its own time-out. Meanwhile another one may
            # get its name, which must stay.
            self._docker.stop(details["Id"])
            with self._making:
                if self._docker.remove(details["Id"]):
                    _unlink(router)
        return True


def _unlink(router: Mapping[str, Any]) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(router["script_path"]).unlink()


def _split(listed: str) -> tuple[str, ...]:
    return tuple(part for part in listed.split(",") if part)


def _endpoints(apis: list[str]) -> list[dict[str, Any]]:
    """Return APIs as the plan has them."""
    return [{"host": host, "port": int(port)} for host, _, port in (api.rpartition(":") for api in apis)]
