# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="session")
def plan(play, tmp_path_factory):
    """The plan of the scenario's inventory, as playbooks/plan.yml writes it."""
    folder = tmp_path_factory.mktemp("plan")
    done = play("playbooks/plan.yml", "-e", f"pd_plan_dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "plan.json").read_text())
