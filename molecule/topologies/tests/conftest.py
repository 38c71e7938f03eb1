# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

DEPLOYMENTS = ["single", "ranks", "layers", "alone"]


@pytest.fixture(scope="session")
def plans(play, tmp_path_factory):
    """The plan of each deployment, as playbooks/plan.yml writes it."""
    folder = tmp_path_factory.mktemp("plans")
    done = play("playbooks/plan.yml", "-e", f"pd_plan_dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / name / "plan.json").read_text()) for name in DEPLOYMENTS}


@pytest.fixture(params=DEPLOYMENTS)
def plan(request, plans):
    return plans[request.param]


@pytest.fixture
def running(plans, server):
    """`running("ranks")`: (server, container) → since when, of all on its servers."""

    def look(name):
        return {
            (host, words[0]): words[1]
            for host in plans[name]["hosts"]
            for words in map(
                str.split,
                server(host)
                .check_output("docker ps -q | xargs -r docker inspect -f '{{.Name}} {{.State.StartedAt}}'")
                .splitlines(),
            )
        }

    return look


@pytest.fixture
def planned():
    """Which containers a plan has: (server, container)."""

    def names(plan):
        return {
            (host, "/" + container["container"])
            for host, share in plan["hosts"].items()
            for container in [*share["engines"], *([share["proxy"]] if share["proxy"] else [])]
        }

    return names
