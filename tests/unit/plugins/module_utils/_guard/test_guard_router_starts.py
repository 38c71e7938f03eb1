# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which router has to be started: on both sides of each condition."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.router_starts import (
    PATIENCE,
    RouterStarts,
)
from guard_servers import config, instance

P1, D1 = instance("prefill1", "server2"), instance("decode1", "server1", port=7200)
D2 = instance("decode2", "server2", "server3", port=7300)
ROUTERS = [
    {"container": "pd-router-blue", "colour": "blue"},
    {"container": "pd-router-green", "colour": "green"},
]
LABELS = {
    "pd_rollout.prefillers": "192.0.2.2:7100",
    "pd_rollout.decoders": "192.0.2.1:7200,192.0.2.2:7300",
}


def container(state: str = "exited", **labels: str) -> dict[str, Any]:
    return {"State": state, "Labels": {**LABELS, **{f"pd_rollout.{role}": at for role, at in labels.items()}}}


class Site:
    """The routers of server1; with a front, the blue one is to serve."""

    def __init__(self, folder: Path, front: bool = True, routers: int = 2) -> None:
        at = folder / "a front elsewhere"
        at.mkdir()
        (at / files.ROUTER).write_text(files.router_map("blue"), encoding="utf-8")
        self.map = at / files.ROUTER
        self.starts = RouterStarts(
            config(
                folder,
                "server1",
                P1,
                D1,
                D2,
                routers=ROUTERS[:routers],
                front={"run": "/run/pd-front", "directory": str(at)} if front else None,
            )
        )
        self.containers = {"pd-router-blue": container(), "pd-router-green": container()}
        self.failing: Collection[str] = ()

    def due(self, now: float) -> str:
        return self.starts.due(self.containers, lambda one: one.name not in self.failing, now)

    def after_patience(self) -> str:
        """What is due once it has been so for long enough."""
        self.due(100)
        return self.due(100 + PATIENCE)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_router_that_gets_the_requests_is_started_after_a_while(site: Site) -> None:
    assert site.due(100) == ""
    assert site.due(100 + PATIENCE - 0.1) == ""
    assert site.due(100 + PATIENCE) == "pd-router-blue"


def test_docker_may_start_it_meanwhile(site: Site) -> None:
    site.due(100)
    site.containers["pd-router-blue"] = container("running")
    assert site.due(102) == ""
    site.containers["pd-router-blue"] = container()
    assert site.due(100 + PATIENCE) == ""
    assert site.due(100 + 2 * PATIENCE) == "pd-router-blue"


def test_the_next_attempt_has_its_own_patience(site: Site) -> None:
    assert site.after_patience() == "pd-router-blue"
    assert site.due(101 + PATIENCE) == ""
    assert site.due(100 + 2 * PATIENCE) == "pd-router-blue"


@pytest.mark.parametrize("state", ["running", "restarting", "paused"])
def test_what_docker_keeps_is_left_to_it(site: Site, state: str) -> None:
    site.containers["pd-router-blue"] = container(state)
    assert site.after_patience() == ""


def test_the_other_colour_stays_ended(site: Site) -> None:
    site.containers["pd-router-blue"] = container("running")
    assert site.after_patience() == ""
    site.map.write_text(files.router_map("green", "no decoder answers"), encoding="utf-8")
    assert site.after_patience() == "pd-router-green"


def test_without_a_container_or_a_map_there_is_nothing_to_start(site: Site) -> None:
    del site.containers["pd-router-blue"]
    assert site.after_patience() == ""
    site.containers["pd-router-blue"] = container()
    site.map.unlink()
    assert site.after_patience() == ""


def test_without_a_front_the_only_router_is_started(tmp_path: Path) -> None:
    assert Site(tmp_path, front=False, routers=1).after_patience() == "pd-router-blue"


@pytest.mark.parametrize("routers", [0, 2])
def test_without_a_front_nobody_knows_which_of_several_is_to_serve(tmp_path: Path, routers: int) -> None:
    assert Site(tmp_path, front=False, routers=routers).after_patience() == ""


@pytest.mark.parametrize(
    ("failing", "started"),
    [
        ((), True),
        # One decoder is left.
        (("decode1",), True),
        (("decode2",), True),
        (("decode1", "decode2"), False),
        # The only prefiller.
        (("prefill1",), False),
    ],
)
def test_a_router_waits_for_an_instance_of_each_role(
    site: Site, failing: Collection[str], started: bool
) -> None:
    site.failing = failing
    assert bool(site.after_patience()) is started


def test_its_patience_begins_when_there_are_engines(site: Site) -> None:
    site.failing = ("prefill1",)
    site.due(100)
    site.failing = ()
    assert site.due(110) == ""
    assert site.due(110 + PATIENCE) == "pd-router-blue"


def test_an_api_that_the_plan_does_not_know_is_no_reason_to_start(site: Site) -> None:
    site.containers["pd-router-blue"] = container(decoders="192.0.2.9:7200")
    assert site.after_patience() == ""
    site.containers["pd-router-blue"] = container(decoders="192.0.2.9:7200,192.0.2.1:7200")
    assert site.after_patience() == "pd-router-blue"


def test_a_router_that_does_not_say_what_it_lists_is_left(site: Site) -> None:
    site.containers["pd-router-blue"] = {"State": "exited", "Labels": {}}
    assert site.after_patience() == ""
