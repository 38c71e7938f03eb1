# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""A stop is about one deployment, or says that it is about all."""

from __future__ import annotations

from conftest import DEPLOYMENTS


def test_a_stop_of_no_one_in_particular_is_refused(play, running):
    before = {name: running(name) for name in DEPLOYMENTS}
    done = play("playbooks/stop.yml")
    assert done.returncode != 0
    assert "--limit" in done.stdout
    assert all(name in done.stdout for name in DEPLOYMENTS)
    assert {name: running(name) for name in DEPLOYMENTS} == before


def test_a_stop_takes_one_deployment_and_leaves_the_others(play, plans, server, running):
    before = {name: running(name) for name in DEPLOYMENTS}
    done = play("playbooks/stop.yml", "--limit", "ranks")
    assert done.returncode == 0, done.stdout + done.stderr
    assert running("ranks") == {}
    for host in plans["ranks"]["hosts"]:
        assert not server(host).file("/etc/pd_rollout/ranks").exists
    for name in set(DEPLOYMENTS) - {"ranks"}:
        assert running(name) == before[name]


def test_a_stop_of_all_takes_all(play, plans, server, running):
    done = play("playbooks/stop.yml", "-e", "stop_every_deployment=true")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, plan in plans.items():
        assert running(name) == {}
        for host in plan["hosts"]:
            assert not server(host).file(f"/etc/pd_rollout/{name}").exists
