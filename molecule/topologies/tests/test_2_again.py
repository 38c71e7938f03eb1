# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""A second run changes nothing, and one deployment's run leaves the others alone."""

from __future__ import annotations

import re

from conftest import DEPLOYMENTS


def test_a_second_run_changes_nothing(play, plan, running):
    before = running(plan["deployment"])
    done = play("playbooks/deploy.yml", "--limit", plan["deployment"])
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
    assert {host for host, _ in recap} == set(plan["hosts"])
    assert {count for _, count in recap} == {"0"}, done.stdout
    assert running(plan["deployment"]) == before


def test_what_is_broken_is_mended_and_the_others_do_not_notice(play, server, running):
    before = {name: running(name) for name in DEPLOYMENTS}
    server("server3").run_expect([0], "docker rm -f ranks-proxy")
    done = play("playbooks/deploy.yml", "--limit", "ranks")
    assert done.returncode == 0, done.stdout + done.stderr
    gone = ("server3", "/ranks-proxy")
    after = running("ranks")
    assert after.pop(gone) != before["ranks"].pop(gone)
    assert after == before["ranks"]
    for name in set(DEPLOYMENTS) - {"ranks"}:
        assert running(name) == before[name]
