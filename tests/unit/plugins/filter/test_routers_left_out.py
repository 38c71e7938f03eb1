# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The filter routers_left_out: with what tags and limits leave behind in the variables of hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.filter.routers_left_out import routers_left_out

PLAN = {
    "hosts": {"p1": {"front": {"unit": "pd-front"}}, "p2": {"front": {}}, "d1": {"front": None}, "d2": {}}
}
SEEN = {"container_found": {"routers": {"serve": "blue", "retire": []}}}


@pytest.mark.parametrize(
    ("found", "left_out"),
    [
        pytest.param(SEEN, [], id="all of it"),
        pytest.param({}, ["p1"], id="--limit without the front"),
        pytest.param({"container_found": {"routers": None}}, ["p1"], id="--tags engine"),
        pytest.param({"container_found": {"skipped": True}}, ["p1"], id="skipped"),
    ],
)
def test_routers_are_left_out_where_nobody_has_looked_at_them(
    found: dict[str, Any], left_out: list[str]
) -> None:
    assert routers_left_out(PLAN, {"p1": found, "p2": {}, "d1": {}, "d2": {}}) == left_out
