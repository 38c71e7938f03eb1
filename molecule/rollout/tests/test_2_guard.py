# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""A node of an instance over two servers ends: all of its nodes start again, together, and without a hand."""

from __future__ import annotations

import json
import time

import pytest

# Seconds in which anything here happens, however slow the machine is.
LATEST = 240.0


@pytest.fixture
def prefiller(plan):
    """The instance with two nodes: its name, and its servers by rank."""
    found = next(instance for instance in plan["instances"] if len(instance["nodes"]) == 2)
    return found["name"], found["nodes"]


@pytest.fixture
def nodes(prefiller, server):
    """What the guards say of both nodes, by rank."""
    name, hosts = prefiller

    def look():
        said = [server(host).run("pd-guard status --json") for host in hosts]
        return [json.loads(one.stdout)[0]["nodes"][name] if one.rc in (0, 1) else {} for one in said]

    return look


def together(nodes, generation=0):
    """Whether both nodes are up in a generation after this one; the one that they are in."""
    found = {(node.get("state"), node.get("generation")) for node in nodes}
    state, now = found.pop()
    return now if not found and state == "up" and (now or 0) > generation else 0


def test_a_node_is_killed_and_both_start_again(prefiller, nodes, server, play):
    """The other node, and then the head."""
    name, hosts = prefiller

    def containers():
        return [server(host).check_output("docker inspect --format {{.Id}} pd-%s", name) for host in hosts]

    before = containers()
    for rank in (1, 0):
        generation = nodes()[0]["generation"]
        server(hosts[rank]).check_output("kill -9 $(docker inspect --format {{.State.Pid}} pd-%s)", name)
        deadline = time.monotonic() + LATEST
        while not together(nodes(), generation):
            assert time.monotonic() < deadline, nodes()
            time.sleep(0.2)
    assert containers() == before
    # A rollout takes them for what it has started itself, and they answer.
    done = play("playbooks/deploy_1p1d.yml", "--skip-tags", "check")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout and "changed=1" not in done.stdout, done.stdout
