# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The choice between two routers, at every point at which a run can have ended."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import colours

PAIR = [{"colour": "blue", "container": "b"}, {"colour": "green", "container": "g"}]


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
    assert colours.choose(PAIR, active, set(as_planned), set(running))["colour"] == chosen


def test_routers_that_run_end_after_the_switch() -> None:
    strays = [{"name": "b"}, {"name": "pd-proxy"}, {"name": "stopped"}]
    assert colours.retiring(PAIR, strays, {"b", "pd-proxy", "g"}) == [
        {"name": "b", "colour": "blue"},
        {"name": "pd-proxy", "colour": None},
    ]


def test_settled_is_one_router_that_gets_the_requests() -> None:
    routers = {"serve": "blue", "active": "blue", "retire": []}
    assert colours.settled(routers)
    assert not colours.settled({**routers, "active": "green"})
    assert not colours.settled({**routers, "retire": [{"name": "g"}]})
