# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is no fault while a server is drained: stopped nodes elsewhere, routers that leave instances out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.check_report import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.catalogue import HOST_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks.drained import unexplained

ADDRESSES = {"router": "10.0.0.9", "p1": "10.0.0.1", "p2": "10.0.0.2", "d1": "10.0.0.3", "d2": "10.0.0.4"}
# Prefiller p has two nodes, of which the first serves; q is one more.
INSTANCES = {
    "p": ("prefiller", ["p1", "p2"]),
    "q": ("prefiller", ["router"]),
    "d1": ("decoder", ["d1"]),
    "d2": ("decoder", ["d2"]),
}


def api(host):
    return f"{ADDRESSES[host]}:8004"


def share(host):
    own = [(name, nodes) for name, (_, nodes) in INSTANCES.items() if host in nodes]
    return {
        "engines": [
            {"instance": name, "labels": {"pd_rollout.apis": api(host) if nodes[0] == host else ""}}
            for name, nodes in own
        ]
    }


def endpoints(role):
    return [
        {"host": ADDRESSES[nodes[0]], "port": 8004}
        for own_role, nodes in INSTANCES.values()
        if own_role == role
    ]


PLAN = {
    "instances": [{"name": name, "role": role, "nodes": nodes} for name, (role, nodes) in INSTANCES.items()],
    "proxy": {"prefillers": endpoints("prefiller"), "decoders": endpoints("decoder")},
    "hosts": {host: share(host) for host in ADDRESSES},
}
ALL = {"prefillers": [api("p1"), api("router")], "decoders": [api("d1"), api("d2")]}


def results(*drained, lists=None, hosts=(*ADDRESSES,)):
    found = {
        host: {"facts": {"drained": "stopped" if host in drained else "", "lists": None}} for host in hosts
    }
    if "router" in found:
        found["router"]["facts"]["lists"] = lists
    return found


def without(*apis):
    return {role: [one for one in listed if one not in apis] for role, listed in ALL.items()}


def finding(what, host, instance=None):
    return HOST_CHECKS.finding(f"host-deployed-{what}", host=host, instance=instance)


ROUTER = finding("silent", "router")


def stays(one, found):
    return unexplained([one], PLAN, found) == [one]


def test_the_other_nodes_of_an_instance_stop_with_it():
    for what in ("stopped", "silent", "apart"):
        assert not stays(finding(what, "p2", "p"), results("p1"))
        assert not stays(finding(what, "p1", "p"), results("p2"))
        assert stays(finding(what, "d1", "d1"), results("p1"))
        assert stays(finding(what, "p2", "p"), results())


def test_what_is_said_besides_stays():
    other = HOST_CHECKS.finding("host-thp", host="p2", instance="p")
    drained = HOST_CHECKS.finding("host-drained", host="p1")
    outside = HOST_CHECKS.finding("host-deployed-outside", host="p2", instance="p")
    assert unexplained([other, drained, outside], PLAN, results("p1")) == [other, drained, outside]


@pytest.mark.parametrize(
    ("drained", "lists", "explained"),
    [
        (["d2"], without(api("d2")), True),
        (["p2"], without(api("p1")), True),
        (["p1", "d1"], without(api("p1"), api("d1")), True),
        # The list lacks more, has what is drained, or something else.
        (["d2"], without(api("d2"), api("p1")), False),
        (["d2"], without(api("d1")), False),
        (["d2"], ALL, False),
        (["d2"], {**without(api("d2")), "prefillers": [*ALL["prefillers"], "10.0.0.8:8004"]}, False),
        # It does not answer with what it was started with, or is of no use.
        (["d2"], None, False),
        ([], without(api("d2")), False),
    ],
)
def test_routers_leave_out_what_is_drained_and_nothing_else(drained, lists, explained):
    assert stays(ROUTER, results(*drained, lists=lists)) is not explained
    assert stays(finding("stopped", "router"), results(*drained, lists=lists))


def test_whether_a_server_out_of_the_run_is_drained_is_not_known():
    seen = [host for host in ADDRESSES if host != "d1"]
    assert not stays(ROUTER, results("p1", lists=without(api("p1"), api("d1")), hosts=seen))
    assert not stays(ROUTER, results("p1", lists=without(api("p1")), hosts=seen))
    assert stays(ROUTER, results("p1", lists=without(api("p1"), api("d2")), hosts=seen))
    assert not stays(ROUTER, results(lists=without(api("d1")), hosts=seen))


def test_routers_end_with_the_last_of_a_role():
    ended = finding("stopped", "router")
    assert not stays(ended, results("d1", "d2"))
    assert stays(ROUTER, results("d1", "d2"))
    assert stays(ended, results("d1", "p1"))


@pytest.mark.parametrize(
    ("out", "lists", "explained"),
    [
        (["d2"], without(api("d2")), True),
        # It has just been put back.
        (["d2"], ALL, True),
        (["d2"], without(api("d1")), False),
        (["d2"], without(api("d2"), api("p1")), False),
        (["d2"], None, False),
        ([], without(api("d2")), False),
        (["gone"], without(api("d2")), False),
    ],
)
def test_routers_lack_what_the_guard_has_taken_out(out, lists, explained):
    found = results(lists=lists)
    found["router"]["facts"]["guard"] = {"out": dict.fromkeys(out, "it hangs")}
    assert stays(ROUTER, found) is not explained
    # The engine itself is as it is, and so is the router of another server.
    assert stays(finding("silent", "d2", "d2"), found)
    assert stays(finding("silent", "p1"), found)


def test_what_the_guard_says_of_instances_of_drained_servers_is_no_fault():
    for what in ("gave-up", "left-out"):
        one = HOST_CHECKS.finding(f"host-guard-{what}", host="p2", instance="p")
        assert not stays(one, results("p1"))
        assert stays(one, results("d1"))
        assert stays(one, results())


def test_the_report_says_only_that_the_server_is_drained():
    found = results("d2", lists=without(api("d2")))
    found["router"]["findings"] = [ROUTER.to_dict()]
    found["d2"]["findings"] = [HOST_CHECKS.finding("host-drained", host="d2").to_dict()]
    action = ActionModule.__new__(ActionModule)
    options = {"plan": {**PLAN, "image": "x"}, "servers": [*ADDRESSES], "reached": None}
    options |= {"image_source": "registry", "image_archive": "", "clock_seconds": 2.0}
    said = action._host_findings({"hostvars": SimpleNamespace(raw_get={}.get)}, options, found, {})
    assert [(one.code, one.host) for one in said] == [("host-drained", "d2")]
