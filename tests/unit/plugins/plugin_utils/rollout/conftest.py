# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped inventories' plans, each made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import shipped


@pytest.fixture(scope="session")
def shipped_plan() -> Callable[[str], dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}

    def plan(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = planner.make(shipped(name)).to_dict()
        return known[name]

    return plan
