# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What runs, by instance, from looks at the servers of a real plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.router_list import relisted
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.groups import decide
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.seen import (
    Part,
    SeenInstance,
    endpoint,
    seen,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.steps import Options, steps
from deployment_servers import Servers
from planner_inventories import many

TP16 = {"pd_parallel": {"tensor": 16}}
TWO = {"pd_parallel": {"tensor": 16, "prefill_context": 2, "decode_context": 8}}
GIVEN: dict[str, list[tuple[str, list[str], dict[str, Any]]]] = {
    "prefiller": [("pa", ["a1", "a2"], TWO), ("pb", ["b1", "b2"], TWO)],
    "decoder": [("da", ["d1"], TP16), ("db", ["d2"], TP16)],
}
FRONT = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"a": "k" * 32}}


def plan_of(given: Any = None, **variables: Any) -> dict[str, Any]:
    # An image whose name says nothing of its release.
    everywhere = {"pd_image": "registry.example/engine:own", "pd_router": "vllm_router", **FRONT, **variables}
    return planner.make(many(given or GIVEN, everywhere=everywhere)).to_dict()


PLAN = plan_of()
EMPTY_NODES: list[dict[str, Any]] = []


def see(servers: Servers, plan: Any = PLAN, hosts: Any = (), **options: Any) -> Any:
    looks = servers.looks(plan, hosts)
    return seen(plan, looks, decide(looks, list(looks)).why, **options)


def named(found: Any, name: str) -> SeenInstance:
    (one,) = (one for one in found.instances if one.name == name)
    return one


def test_all_as_planned() -> None:
    found = see(Servers.of(PLAN))
    assert [one.name for one in found.planned] == ["pa", "pb", "da", "db"]
    assert found.strays == ()
    for one in found.instances:
        assert (one.mend, one.why, one.ready, one.listed, one.serving) == ("", "", True, True, True)
        assert (one.other_version, one.drained, one.to_stop, one.todo) == (False, False, False, False)
        assert (one.release, one.planned_release) == ("v0.13.0", "v0.13.0")
        assert one.parts == one.wanted
    pa = named(found, "pa")
    assert (pa.apis, pa.planned_apis) == (("10.1.0.1:8004",), ("10.1.0.1:8004",))
    assert pa.parts[1] == Part("a2", "pd-pa", True, frozenset(range(16)), ())
    assert found.lists == {
        "prefiller": frozenset({"10.1.0.1:8004", "10.1.0.3:8004"}),
        "decoder": frozenset({"10.1.0.5:8004", "10.1.0.6:8004"}),
    }
    assert (found.routed, found.routers_settled, found.routers_differ, found.files_settled) == (
        True,
        True,
        False,
        True,
    )
    assert found.unseen_routers == ()


def test_nothing_is_there() -> None:
    found = see(Servers(*PLAN["hosts"]))
    for one in found.planned:
        assert (one.parts, one.mend, one.ready, one.listed, one.up) == ((), "make", False, False, False)
        assert one.why.endswith("there is no container")
        assert one.apis == ()
        assert one.planned_apis
        assert not one.other_version
    assert (found.routed, found.routers_settled) == (False, False)


def test_a_node_that_has_ended_is_restarted_and_its_instance_with_it() -> None:
    servers = Servers.of(PLAN)
    servers.stop("a2", "pd-pa")
    pa = named(see(servers), "pa")
    assert (pa.mend, pa.why) == ("restart", "a2: its container is exited")
    assert (pa.ready, pa.listed, pa.serving, pa.up, pa.todo) == (False, True, False, True, True)
    assert named(see(servers), "pb").ready


def test_one_that_differs_is_made_anew() -> None:
    changed = plan_of(
        {**GIVEN, "decoder": [("da", ["d1"], TP16), ("db", ["d2"], {**TP16, "pd_chips": "0-15"})]}
    )
    assert named(see(Servers.of(PLAN), changed), "db").mend == ""
    changed = plan_of(pd_engine_env={"NEW": "1"})
    for one in see(Servers.of(PLAN), changed).planned:
        assert (one.mend, one.ready, one.serving, one.other_version) == ("make", False, True, False)


@pytest.mark.parametrize(
    "variables",
    [
        {"pd_release": "v0.18.0"},
        {"pd_image": "registry.example/vllm-ascend:other"},
        {"pd_model_path": "/weights/other"},
        {"pd_served_model_name": "other"},
        {
            "pd_profile": "generic",
            "pd_engine_args": {"block-size": 128, "cp-kv-cache-interleave-size": 128},
            "pd_engine_env": {"VLLM_ASCEND_ENABLE_CONTEXT_PARALLEL": "1"},
        },
        {"pd_kv_extra_config": {"ascend_store": {}}},
    ],
)
def test_what_makes_another_version(variables: dict[str, Any]) -> None:
    assert all(one.other_version for one in see(Servers.of(PLAN), plan_of(**variables)).planned)


def test_another_image_of_the_same_name_is_another_version() -> None:
    servers = Servers.of(PLAN)
    servers.containers["d1"]["pd-da"]["ImageID"] = "sha256:before"
    found = see(servers)
    assert [one.name for one in found.planned if one.other_version] == ["da"]
    # What does not run serves nobody in its version.
    servers.stop("d1", "pd-da")
    assert not any(one.other_version for one in see(servers).planned)


def test_what_is_to_be_restarted_though_nothing_differs() -> None:
    found = see(Servers.of(PLAN), again=["pb"])
    assert (named(found, "pb").why, named(found, "pb").mend) == ("it is to be restarted", "restart")
    assert not named(found, "pb").ready
    assert named(found, "pa").ready
    # What differs anyway is made anew.
    found = see(Servers.of(PLAN), plan_of(pd_engine_env={"NEW": "1"}), again=["pb"])
    assert named(found, "pb").mend == "make"


@pytest.mark.parametrize("host", ["a1", "a2"])
@pytest.mark.parametrize(("mark", "stops"), [("drained", False), ("stopped", True)])
def test_an_instance_is_drained_with_one_of_its_servers(host: str, mark: str, stops: bool) -> None:
    servers = Servers.of(PLAN)
    servers.marks[host] = mark
    found = see(servers)
    assert [one.name for one in found.planned if one.drained] == ["pa"]
    assert [one.name for one in found.planned if one.to_stop] == ["pa"] * stops
    # What a run is told goes before what the server says.
    assert not any(one.drained for one in see(servers, drained={host: ""}).planned)
    assert named(see(Servers.of(PLAN), drained={host: mark}), "pa").to_stop is stops


def test_routers_are_settled_without_what_is_drained() -> None:
    servers = Servers.of(PLAN)
    servers.marks["d2"] = "drained"
    assert not see(servers).routers_settled
    router = PLAN["hosts"]["a1"]["routers"][1]
    proxy = PLAN["proxy"]
    shorter = relisted(router, proxy, proxy["prefillers"], proxy["decoders"][:1])
    servers.switch("a1", shorter)
    assert see(servers).routers_settled
    # Of a router that lists more, or of two, that is not so.
    servers.containers["a1"]["pd-router-blue"]["State"] = "running"
    assert not see(servers).routers_settled
    blue = relisted(PLAN["hosts"]["a1"]["routers"][0], proxy, proxy["prefillers"], proxy["decoders"][:1])
    servers.start("a1", blue)
    assert not see(servers).routers_settled
    servers.stop("a1", "pd-router-blue")
    servers.stop("a1", "pd-router-green")
    assert not see(servers).routers_settled
    servers.switch("a1", shorter)
    servers.marks.clear()
    assert not see(servers).routers_settled


def test_routers_that_have_ended_or_differ() -> None:
    servers = Servers.of(PLAN)
    changed = plan_of(pd_router_args={"queue-size": 7})
    assert not see(servers, changed).routers_settled
    servers.stop("a1", "pd-router-blue")
    found = see(servers)
    assert (found.routed, found.routers_settled, found.routers_differ) == (False, False, False)
    assert not any(found.lists.values())
    single = plan_of(pd_front_port=None, pd_front_api_keys={})
    servers = Servers.of(single)
    assert see(servers, single).routers_settled
    changed = plan_of(pd_front_port=None, pd_front_api_keys={}, pd_router_args={"queue-size": 7})
    found = see(servers, changed)
    assert (found.routers_settled, found.routers_differ) == (False, True)


@pytest.mark.parametrize(
    ("key", "value", "settled"),
    [
        ("outdated", ["/etc/pd_rollout/pd/da.sh"], False),
        ("leftovers", ["/etc/pd_rollout/pd/vllm-router-0"], False),
        ("nodes", EMPTY_NODES, True),
    ],
)
def test_files_that_have_to_be_written_or_removed(key: str, value: Any, settled: bool) -> None:
    looks = Servers.of(PLAN).looks(PLAN)
    looks["d1"] = {**looks["d1"], key: value}
    assert seen(PLAN, looks, {}).files_settled is settled


def test_a_start_that_is_not_recorded_has_to_be() -> None:
    for host, settled in (("a2", False), ("d1", True)):
        looks = Servers.of(PLAN).looks(PLAN)
        for node in looks[host]["nodes"]:
            node["noted"] = False
        assert seen(PLAN, looks, {}).files_settled is settled


@pytest.mark.parametrize(
    ("why", "marks", "settled"),
    [
        ("", {}, False),
        # What is started gets its policy then.
        ("its container is exited", {}, True),
        ("", {"d1": "drained"}, True),
        ("", {"d2": "drained"}, False),
    ],
)
def test_another_restart_policy_is_set(why: str, marks: dict[str, str], *, settled: bool) -> None:
    looks = Servers.of(PLAN).looks(PLAN)
    for node in looks["d1"]["nodes"]:
        node.update(pending=True, why=why)
    assert seen(PLAN, looks, {}, drained=marks).files_settled is settled


def test_a_front_that_is_not_as_planned() -> None:
    looks = Servers.of(PLAN).looks(PLAN)
    looks["a1"]["front"] = {"settled": False}
    assert not seen(PLAN, looks, {}).routers_settled


def test_what_the_plan_no_longer_has_is_a_stray() -> None:
    fewer = plan_of({**GIVEN, "prefiller": GIVEN["prefiller"][:1]})
    found = see(Servers.of(PLAN), fewer)
    (stray,) = found.strays
    assert (stray.name, stray.role, stray.planned, stray.listed) == ("pb", "prefiller", False, True)
    assert stray.serving
    assert [part.host for part in stray.parts] == ["b1", "b2"]
    assert stray.apis == ("10.1.0.3:8004",)
    assert stray.wanted == ()
    assert stray.release == "v0.13.0"
    assert not stray.todo


def test_a_node_that_an_instance_no_longer_has_belongs_to_what_runs() -> None:
    smaller = plan_of({**GIVEN, "prefiller": [("pa", ["a1"], TP16), GIVEN["prefiller"][1]]})
    servers = Servers.of(PLAN)
    pa = named(see(servers, smaller), "pa")
    assert [part.host for part in pa.parts] == ["a1", "a2"]
    assert [part.host for part in pa.wanted] == ["a1"]
    assert see(servers, smaller).strays == ()
    # Without what is there of it, the rest is nobody's.
    servers.stop("a1", "pd-pa")
    assert [one.name for one in see(servers, smaller).strays] == ["pa"]


def test_what_serves_on_servers_that_the_run_does_not_look_at_goes_on() -> None:
    servers = Servers.of(PLAN)
    hosts = ["a1", "b1", "b2", "d1"]
    found = see(servers, hosts=hosts)
    # In the plan's order, as a router lists them.
    assert [one.name for one in found.planned] == ["pa", "pb", "da", "db"]
    for name in ("pa", "db"):
        whole = named(see(servers), name)
        assert named(found, name) == replace(whole, release="", model="", elsewhere=True)
    assert (found.strays, found.unseen_routers) == ((), ())
    # As far as the run knows, it is not there; or it is drained.
    looks = servers.looks(PLAN, hosts)
    looks["a1"]["lists"]["decoders"].remove("10.1.0.6:8004")
    assert [one.name for one in seen(PLAN, looks, {}).planned] == ["pa", "pb", "da"]
    servers.marks["a1"] = "stopped"
    pa = named(see(servers, hosts=hosts), "pa")
    # Its nodes are only stopped together.
    assert (pa.drained, pa.to_stop) == (True, False)


def test_what_serves_elsewhere_in_another_version_is_not_paired_with_the_new_one() -> None:
    """It leaves the list when the part that this run reaches is of the new version."""
    plan = plan_of(pd_model_path="/weights/other")
    found = see(Servers.of(PLAN), plan, hosts=["a1", "b1", "b2", "d1"])
    change = steps(found, Options(front=True, colocated=False))
    assert not change.outages
    lists = [[one.name for one in step.listed or ()] for step in change.steps]
    assert lists == [["pa", "db"], ["pb", "da"], ["pb", "da"]]


def test_routers_that_the_run_does_not_look_at_list_whatever_runs() -> None:
    found = see(Servers.of(PLAN), hosts=["d1", "d2"])
    assert found.unseen_routers == ("a1",)
    assert [(one.name, one.listed) for one in found.planned] == [(n, True) for n in ("pa", "pb", "da", "db")]
    plan = plan_of(pd_engine_env={"A": "1"})
    change = steps(see(Servers.of(PLAN), plan, hosts=["d1", "d2"]), Options(front=True, colocated=False))
    assert change.outages == tuple(
        f"the routers of a1 are not in this run, and list {n}" for n in ("da", "db")
    )


def test_a_router_of_which_no_list_is_known_lists_whatever_runs() -> None:
    """It is of a time before there was a front, or before its label."""
    servers = Servers.of(PLAN)
    for here in servers.containers.values():
        for one in here.values():
            for label in ("apis", "prefillers", "decoders", "model", "chips"):
                one["Labels"].pop(f"pd_rollout.{label}", None)
    servers.active.clear()
    found = see(servers)
    assert all(one.listed and one.apis == one.planned_apis for one in found.planned)
    # All differ, by their labels: one after the other.
    change = steps(found, Options(front=True, colocated=False))
    assert not change.outages
    assert all(step.listed for step in change.steps)


def test_another_api_key() -> None:
    """Engines and routers share it: nothing serves while it changes."""
    looks = Servers.of(PLAN).looks(PLAN)
    for look in looks.values():
        for one in look["containers"]:
            one["key"] = "8f14e45fceea167a"
    found = seen(PLAN, looks, {one["name"]: "its key differs" for one in PLAN["instances"]})
    assert all(one.other_key for one in found.planned)
    change = steps(found, Options(front=True, colocated=False))
    assert change.outages == ("the engines' key (pd_api_key) changes, which engines and routers share",)
    assert [one.name for one in change.steps[0].changed] == ["pa", "pb", "da", "db"]


def test_what_does_not_answer_is_awaited_without_consent() -> None:
    servers = Servers.of(PLAN)
    looks = servers.looks(PLAN)
    for node in looks["d1"]["nodes"]:
        node["answers"] = False
    found = seen(PLAN, looks, {})
    assert (named(found, "da").silent, named(found, "da").serving) == (True, False)
    for front in (True, False):
        change = steps(found, Options(front=front, colocated=False))
        assert not change.outages
        assert [one.name for one in change.steps[0].changed] == ["da"]
        assert "da" not in [one.name for one in change.steps[0].partners]


def test_a_router_on_a_server_that_has_none_in_the_plan() -> None:
    servers = Servers.of(PLAN)
    router = PLAN["hosts"]["a1"]["routers"][0]
    servers.start("d1", router)
    assert not see(servers).routers_settled


def test_a_colocated_engine_is_asked_by_clients() -> None:
    plan = planner.make(
        many(
            {"decoder": [("d", ["a"], TP16)]},
            everywhere={"pd_mode": "colocated", "pd_profile": "generic"},
            proxy=False,
        )
    ).to_dict()
    found = see(Servers.of(plan), plan)
    assert [(one.name, one.listed, one.serving) for one in found.planned] == [("d", True, True)]
    assert not found.routed


def test_chips_and_ports_of_what_runs() -> None:
    low, high = frozenset(range(8)), frozenset(range(8, 16))
    here = SeenInstance("x", "decoder", True, (Part("h", "pd-x", True, low, ("1:8004",)),))

    def in_the_way(part: Part, **more: Any) -> bool:
        return replace(here, **more).in_the_way_of(SeenInstance("y", "decoder", True, (), (part,)))

    assert in_the_way(Part("h", "pd-y", True, low, ("1:8005",)))
    assert not in_the_way(Part("h", "pd-y", True, high, ("1:8005",)))
    assert in_the_way(Part("h", "pd-y", True, high, ("1:8004",)))
    assert not in_the_way(Part("i", "pd-y", True, low, ("2:8004",)))
    # Which chips an older container has is not known; one that has ended has none.
    assert in_the_way(Part("h", "pd-y", True, high), parts=(Part("h", "pd-x", True),))
    assert not in_the_way(Part("h", "pd-y", True, low), parts=(replace(here.parts[0], up=False),))


def test_an_api_by_its_address() -> None:
    assert endpoint("10.0.0.1:8004") == {"host": "10.0.0.1", "port": 8004}
    assert endpoint("fd00::1:8004") == {"host": "fd00::1", "port": 8004}
