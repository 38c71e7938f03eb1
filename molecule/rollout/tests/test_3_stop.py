# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Stopping takes away what was deployed, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def noted(plan):
    """Where this controller knows the deployment to be launched."""
    return set(json.loads((ROOT / "plans" / plan["cluster"] / "deployed.json").read_text())["hosts"])


def test_stop_removes_what_was_deployed(play, plan, server):
    assert noted(plan) == set(plan["hosts"])
    server("decode1").check_output("docker rm -f pd-decoder")
    for _run in range(2):
        done = play("playbooks/stop.yml")
        assert done.returncode == 0, done.stdout + done.stderr
    for name in plan["hosts"]:
        host = server(name)
        assert host.check_output("docker ps -aq") == ""
        assert not host.file("/etc/pd_rollout/pd").exists
        assert plan["image"] in host.check_output("docker images --format '{{.Repository}}:{{.Tag}}'")
        assert host.file(plan["model"]["path"] + "/config.json").exists
    assert noted(plan) == set()


def test_stop_removes_the_image_when_asked(play, plan, server):
    done = play("playbooks/stop.yml", "-e", "stop_remove_image=true")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in plan["hosts"]:
        assert plan["image"] not in server(name).check_output(
            "docker images --format '{{.Repository}}:{{.Tag}}'"
        )
