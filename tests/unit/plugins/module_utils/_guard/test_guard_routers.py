# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How the guard has routers list other engines, with a Docker Engine and a HAProxy of the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.haproxy import HaproxyError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import routers as module
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.routers import (
    Failed,
    Lists,
    Outdated,
    Routers,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import router_list
from guard_servers import config

P = {"host": "192.0.2.2", "port": 7100}
D1, D2 = {"host": "192.0.2.1", "port": 7200}, {"host": "192.0.2.3", "port": 7200}
LISTS = {"prefillers": [P], "decoders": [D1, D2]}
ALL = {"prefillers": ("192.0.2.2:7100",), "decoders": ("192.0.2.1:7200", "192.0.2.3:7200")}
FEWER = {"prefillers": ["192.0.2.2:7100"], "decoders": ["192.0.2.1:7200"]}


def router(colour: str, folder: Path) -> dict[str, Any]:
    """A router of the plan."""
    words = router_list.continued(router_list.backend_words("upstream", [P], [D1, D2]))
    script = f"exec router \\\n  {words}\n"
    content = {"image": "engine:1", "mounts": [], "script": script}
    return {
        **content,
        "colour": colour,
        "container": f"pd-router-{colour}",
        "router": "upstream",
        "script_path": str(folder / f"router-{colour}.sh"),
        "command": [str(folder / f"router-{colour}.sh")],
        "mounts": [{"source": "/a", "target": "/b", "read_only": True}],
        "expected": router_list.expected_backends("upstream", [P], [D1, D2]),
        "health_url": f"http://127.0.0.1/{colour}",
        "labels": {"pd_rollout.role": "proxy", **router_list.list_labels([P], [D1, D2])},
    }


class Docker:
    """A Docker Engine with routers."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.number = 0
        self.stopping: Callable[[], None] = lambda: None

    def create(self, name: str, content: dict[str, Any]) -> None:
        if name in self.made:
            raise DockerError(f"{name} is in use", 409)
        self.number += 1
        self.made[name] = {
            "Id": f"c{self.number}",
            "Image": content["Image"],
            "Config": {"Labels": content["Labels"], "StopTimeout": content["StopTimeout"]},
            "HostConfig": content["HostConfig"],
        }

    def _name(self, name: str) -> str:
        return next((known for known, one in self.made.items() if name in (known, one["Id"])), "")

    def start(self, name: str) -> bool:
        return bool(self._name(name))

    def stop(self, name: str) -> bool:
        self.calls.append(f"stop {name}")
        self.stopping()
        return bool(self._name(name))

    def remove(self, name: str) -> bool:
        return self.made.pop(self._name(name), None) is not None

    def inspect(self, name: str) -> dict[str, Any] | None:
        return self.made.get(name)

    def listed(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"State": "running", "Labels": one["Config"]["Labels"]} for name, one in self.made.items()
        }


class Haproxy:
    """A HAProxy that obeys."""

    def __init__(self) -> None:
        self.map: dict[str, str] = {"active": "blue"}
        self.requests, self.silent = 0, False
        self.switching: Callable[[], None] = lambda: None

    def trust(self, colour: str) -> None:
        if self.silent:
            raise HaproxyError("no answer")

    def set_map(self, path: str, key: str, value: str) -> None:
        self.map[key] = value
        self.switching()

    put_map = set_map

    def drop_map(self, path: str, key: str) -> None:
        self.map.pop(key, None)

    def running(self, colour: str) -> int:
        return self.requests


class Front:
    """A server with a front and the blue router."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.docker, self.haproxy, self.folder = Docker(), Haproxy(), folder
        self.ready = True
        monkeypatch.setattr(module, "Haproxy", lambda path: self.haproxy)
        monkeypatch.setattr(module, "probe", lambda url, expected: (self.ready, "starts"))
        monkeypatch.setattr(module, "READY", 0.0)
        monkeypatch.setattr(module, "POLL", 0.001)
        front = {"run": str(folder), "directory": str(folder), "drain_timeout": 3600}
        colours = [router(colour, folder) for colour in ("blue", "green")]
        made = config(folder, front=front, routers=colours, lists=LISTS)
        self.routers = Routers(made, self.docker)  # type: ignore[arg-type]
        self.route("active blue\n")
        blue = colours[0]
        Path(blue["script_path"]).write_text(blue["script"], encoding="utf-8")
        host = {"RestartPolicy": {"Name": "unless-stopped"}, "LogConfig": {"Type": "local"}}
        labels = {**blue["labels"], "pd_rollout.key": "k1"}
        content = {"Image": "sha256:1", "Labels": labels, "StopTimeout": 30, "HostConfig": host}
        self.docker.create("pd-router-blue", content)

    def route(self, text: str) -> None:
        (self.folder / files.ROUTER).write_text(text, encoding="utf-8")

    def lists(self) -> Lists | None:
        return self.routers.lists(self.docker.listed())

    def change(self) -> None:
        self.routers.change(FEWER, ALL, lambda: True)

    def script(self, colour: str) -> str | None:
        path = self.folder / f"router-{colour}.sh"
        return path.read_text(encoding="utf-8") if path.exists() else None


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    return Front(tmp_path, monkeypatch)


# ── what is listed ────────────────────────────────────────────────────────────────────────────────────────


def test_a_router_says_what_it_lists(front: Front) -> None:
    assert front.lists() == Lists(ALL, ALL)


@pytest.mark.parametrize("text", ["", "active red\n", "active green\n"])
def test_without_a_router_that_gets_requests_nothing_is_known(front: Front, text: str) -> None:
    front.route(text)
    assert front.lists() is None


def test_a_router_that_does_not_run_or_says_nothing_is_none(front: Front) -> None:
    listed = front.docker.listed()
    listed["pd-router-blue"]["State"] = "exited"
    assert front.routers.lists(listed) is None
    listed["pd-router-blue"] = {"State": "running", "Labels": {"pd_rollout.prefillers": "a:1"}}
    assert front.routers.lists(listed) is None


# ── changes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_another_list_is_another_router_and_the_front_is_switched(front: Front) -> None:
    front.change()
    assert front.routers.active() == front.haproxy.map["active"] == "green"
    assert front.lists() == Lists({role: tuple(apis) for role, apis in FEWER.items()}, ALL)
    green = front.docker.made["pd-router-green"]
    blue = front.docker.made["pd-router-blue"]
    assert (green["Image"], green["Config"]["StopTimeout"]) == ("sha256:1", 30)
    assert green["Config"]["Labels"]["pd_rollout.key"] == "k1"
    assert green["HostConfig"]["RestartPolicy"] == blue["HostConfig"]["RestartPolicy"]
    assert green["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}
    ]
    script = front.script("green") or ""
    assert "--decoder-hosts 192.0.2.1 \\" in script
    assert "192.0.2.3" not in script
    # What still answers its last requests is left.
    assert front.routers.draining(front.docker.listed())


def test_the_list_of_the_rollout_comes_back_as_it_was(front: Front) -> None:
    front.change()
    front.routers.change({role: list(apis) for role, apis in ALL.items()}, ALL, lambda: True)
    assert front.lists() == Lists(ALL, ALL)
    assert front.script("blue") == router("blue", front.folder)["script"]


def test_a_router_that_does_not_start_is_removed_and_nothing_switched(front: Front) -> None:
    front.ready = False
    with pytest.raises(Failed, match="the new router is not ready: starts"):
        front.change()
    assert list(front.docker.made) == ["pd-router-blue"]
    assert front.script("green") is None
    assert front.routers.active() == front.haproxy.map["active"] == "blue"


def test_a_list_that_is_no_longer_wanted_is_given_up(front: Front) -> None:
    front.ready = False
    with pytest.raises(Outdated):
        front.routers.change(FEWER, ALL, lambda: False)
    assert (list(front.docker.made), front.routers.active()) == (["pd-router-blue"], "blue")


def test_a_front_that_does_not_answer_changes_nothing(front: Front) -> None:
    front.haproxy.silent = True
    with pytest.raises(HaproxyError):
        front.change()
    assert list(front.docker.made) == ["pd-router-blue"]
    assert front.routers.active() == "blue"


@pytest.mark.parametrize("gone", ["map", "container"])
def test_without_a_router_that_serves_there_is_no_change(front: Front, gone: str) -> None:
    if gone == "map":
        front.route("")
    else:
        front.docker.made.clear()
    with pytest.raises(Failed):
        front.change()
    assert "pd-router-green" not in front.docker.made


# ── the front's own answer ────────────────────────────────────────────────────────────────────────────────


def test_the_front_is_closed_and_opened(front: Front) -> None:
    front.routers.close("no decoder answers")
    assert front.routers.closed() == front.haproxy.map["closed"] == "no decoder answers"
    assert front.routers.active() == "blue"
    front.routers.close("")
    assert front.routers.closed() == ""
    assert front.haproxy.map == {"active": "blue"}


def test_without_a_map_it_is_neither(front: Front) -> None:
    front.route("")
    front.routers.close("no decoder answers")
    assert front.haproxy.map == {"active": "blue"}


def test_it_stays_closed_over_a_switch(front: Front) -> None:
    front.routers.close("no decoder answers")
    front.change()
    assert (front.routers.active(), front.routers.closed()) == ("green", "no decoder answers")


def test_it_may_be_closed_while_it_is_switched(front: Front) -> None:
    """By another thread, which writes the same file."""
    closing = threading.Thread(target=front.routers.close, args=("no decoder answers",))
    front.haproxy.switching = lambda: closing.ident is None and closing.start()
    front.change()
    closing.join()
    assert (front.routers.active(), front.routers.closed()) == ("green", "no decoder answers")
    assert front.haproxy.map == {"active": "green", "closed": "no decoder answers"}


# ── the router before ─────────────────────────────────────────────────────────────────────────────────────


def test_the_router_before_ends_with_its_last_request(front: Front) -> None:
    front.change()
    front.haproxy.requests = 2
    looks: list[int] = []

    def go_on() -> bool:
        looks.append(1)
        front.haproxy.requests = 0 if len(looks) > 2 else 2
        return True

    assert front.routers.drain(go_on)
    assert list(front.docker.made) == ["pd-router-green"]
    assert front.script("blue") is None
    assert len(looks) > 2
    assert not front.routers.draining(front.docker.listed())


@pytest.mark.parametrize("requests", [0, 1])
def test_it_stays_if_something_else_begins(front: Front, requests: int) -> None:
    front.change()
    front.haproxy.requests = requests
    assert not front.routers.drain(lambda: False)
    assert sorted(front.docker.made) == ["pd-router-blue", "pd-router-green"]


def test_its_successor_of_the_same_name_stays(front: Front) -> None:
    """An engine that fails meanwhile cannot wait for the end."""
    front.change()
    front.docker.stopping = lambda: front.routers.change(
        {**FEWER, "decoders": ["192.0.2.3:7200"]}, ALL, lambda: True
    )
    front.routers.drain(lambda: True)
    assert front.routers.active() == "blue"
    assert "pd-router-blue" in front.docker.made
    assert front.script("blue") is not None


def test_without_a_map_no_router_is_ended(front: Front) -> None:
    front.change()
    front.route("")
    assert not front.routers.draining(front.docker.listed())
    assert not front.routers.drain(lambda: True)
    assert sorted(front.docker.made) == ["pd-router-blue", "pd-router-green"]


def test_where_the_front_was_switched_meanwhile_no_router_is_ended(front: Front) -> None:
    front.change()

    def go_on() -> bool:
        front.route("active blue\n")
        return True

    assert not front.routers.drain(go_on)
    assert sorted(front.docker.made) == ["pd-router-blue", "pd-router-green"]
