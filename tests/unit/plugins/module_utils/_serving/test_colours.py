# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The choice between two routers, at every point at which a run can have ended."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import colours

LOOPBACK = "127.0.0.1"
PAIR: list[dict[str, Any]] = [
    {"colour": "blue", "container": "b", "host": LOOPBACK, "port": 8005, "metrics_port": 8055},
    {"colour": "green", "container": "g", "host": LOOPBACK, "port": 8006, "metrics_port": None},
]
AT = {"b": [f"{LOOPBACK}:8005", f"{LOOPBACK}:8055"], "g": [f"{LOOPBACK}:8006"]}


@pytest.mark.parametrize(
    ("active", "as_planned", "running", "chosen"),
    [
        pytest.param(None, "", "", "blue", id="first deployment"),
        pytest.param(None, "g", "g", "green", id="started, but no front yet"),
        pytest.param("blue", "b", "b", "blue", id="nothing has changed"),
        pytest.param("green", "g", "bg", "green", id="switched, the first one not ended"),
        pytest.param("blue", "", "b", "green", id="changed"),
        pytest.param("green", "", "g", "blue", id="changed again"),
        pytest.param("blue", "g", "bg", "green", id="changed and started, not switched"),
        pytest.param("blue", "", "bg", "green", id="changed twice, the other one is neither"),
        pytest.param("blue", "", "", "blue", id="the one that serves is gone"),
        pytest.param("blue", "g", "g", "green", id="gone, and the other one is as planned"),
    ],
)
def test_the_router_that_is_to_serve(active: str | None, as_planned: str, running: str, chosen: str) -> None:
    held = {name: AT[name] for name in running}
    assert colours.choose(PAIR, active, set(as_planned), held)["colour"] == chosen


def test_a_router_whose_port_another_one_has_is_not_started() -> None:
    # Green serves on the port that blue is to have.
    with pytest.raises(colours.Held, match=r"127\.0\.0\.1:8005") as caught:
        colours.choose(PAIR, "green", set(), {"g": [f"{LOOPBACK}:8005"]})
    assert caught.value.plan["colour"] == "blue"
    # So are metrics ports; another address is another place.
    with pytest.raises(colours.Held, match="8055"):
        colours.choose(PAIR, "green", set(), {"g": [f"{LOOPBACK}:8001", f"{LOOPBACK}:8055"]})
    assert colours.choose(PAIR, "green", set(), {"g": ["198.51.100.1:8005"]})["colour"] == "blue"


def test_beside_a_proxy_of_before_the_router_with_a_free_port_is_started() -> None:
    assert colours.choose(PAIR, None, set(), {"pd-proxy": [f"{LOOPBACK}:8005"]})["colour"] == "green"


@pytest.mark.parametrize(
    ("script", "places"),
    [
        ("exec python x.py \\\n  --port 8005 \\\n  --host 198.51.100.1", ["198.51.100.1:8005"]),
        ("--host 127.0.0.1 --port 8006 --prometheus-port 8056", ["127.0.0.1:8006", "127.0.0.1:8056"]),
        ("", []),
    ],
)
def test_a_launch_script_says_where_its_router_listens(script: str, places: list[str]) -> None:
    assert colours.listens(script) == places


def test_routers_that_run_end_after_the_switch() -> None:
    strays = [{"name": "b"}, {"name": "pd-proxy"}, {"name": "stopped"}]
    held = {**AT, "pd-proxy": ["198.51.100.1:8443"]}
    assert colours.retiring(PAIR, strays, held, "198.51.100.1:8443") == [
        {"name": "b", "colour": "blue", "yields": False},
        # The front cannot open its port before.
        {"name": "pd-proxy", "colour": None, "yields": True},
    ]


def test_settled_is_one_router_that_gets_the_requests() -> None:
    routers = {"serve": "blue", "active": "blue", "retire": []}
    assert colours.settled(routers)
    assert not colours.settled({**routers, "active": "green"})
    assert not colours.settled({**routers, "retire": [{"name": "g"}]})
