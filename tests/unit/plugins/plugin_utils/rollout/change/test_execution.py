# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Changes of whole deployments on servers in memory, from the looks at them to what each host does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.groups import decide
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.execution import (
    execution,
    lists_of,
    whole,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.seen import Seen, seen
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.steps import (
    Change,
    Options,
    steps,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from deployment_servers import Servers
from planner_inventories import shipped

FRONT = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"a": "k" * 32}}
NAMES = [
    "atlas_a3_1p1d",
    "atlas_a3_1p1d_dp2",
    "atlas_a3_2p1d_external_dp",
    "atlas_a3_2p2d",
    "atlas_a3_single_server",
    "guide_1p1d",
    "simulated_1p1d",
]
ROUTERS = ("upstream", "vllm_router")


def with_variables(raw: RawInventory, variables: dict[str, Any], instances: Any = None) -> RawInventory:
    """An inventory with further variables, of all or of some instances."""
    groups = tuple(
        replace(
            group,
            members=tuple(
                replace(member, variables={**member.variables, **variables}) for member in group.members
            ),
        )
        if instances is None or group.name in instances
        else group
        for group in raw.groups
    )
    hosts = raw.hosts if instances else {host: {**own, **variables} for host, own in raw.hosts.items()}
    return replace(raw, groups=groups, hosts=hosts)


def without(raw: RawInventory, *instances: str) -> RawInventory:
    return replace(raw, groups=tuple(group for group in raw.groups if group.name not in instances))


def made(raw: RawInventory) -> dict[str, Any]:
    return planner.make(raw).to_dict()


def behind(router: str, name: str = "atlas_a3_2p2d", front: bool = True) -> RawInventory:
    return with_variables(shipped(name), {"pd_router": router, **(FRONT if front else {})})


@cache
def plan_2p2d(router: str = "vllm_router") -> dict[str, Any]:
    return made(behind(router))


def see(plan: Any, servers: Servers, again: Any = (), marks: Any = None) -> Seen:
    looks = servers.looks(plan)
    return seen(plan, looks, decide(looks, list(looks)).why, again, marks)


def change_of(plan: Any, servers: Servers, again: Any = (), marks: Any = None, **more: Any) -> Change:
    options = Options(plan["proxy"]["front"], not plan["proxy"]["prefillers"], **more)
    return steps(see(plan, servers, again, marks), options)


def run(plan: Any, servers: Servers, again: Any = (), marks: Any = None, stop_after: int = 99) -> list[Any]:
    """Do the steps of a change, and check that no request fails meanwhile."""
    change = change_of(plan, servers, again, marks)
    done = execution(plan, change, servers.looks(plan))
    for step in done[:stop_after]:
        servers.do(step)
        if not change.outage and servers.listed():
            assert_serves(servers)
    return done


def assert_serves(servers: Servers) -> None:
    """Whatever is listed runs, and no two versions are listed together."""
    listed, up, versions = servers.listed(), set(), set()
    for here in servers.containers.values():
        for one in here.values():
            apis = {*one["Labels"].get("pd_rollout.apis", "").split(",")} & listed
            if apis and one["State"] == "running":
                up |= apis
                versions.add((one["Labels"]["pd_rollout.role"], one["Labels"]["pd_rollout.version"]))
    assert up == listed
    assert len(versions) <= 2, "one version of each role"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("front", [True, False])
def test_a_first_deployment_and_none_after_it(name: str, front: bool) -> None:
    raw = shipped(name)
    plan = made(with_variables(raw, FRONT) if front and raw.proxy_hosts else raw)
    servers = Servers(*plan["hosts"])
    done = run(plan, servers)
    assert [one["outage"] for one in done] == [False] * len(done)
    assert servers.containers == Servers.of(plan).containers
    assert change_of(plan, servers) == Change(target=see(plan, servers).planned)
    assert run(plan, servers) == []


@pytest.mark.parametrize("router", ROUTERS)
def test_a_flag_of_all_goes_round_without_an_outage(router: str) -> None:
    raw = behind(router)
    before, after = made(raw), made(with_variables(raw, {"pd_engine_env": {"NEW": "1"}}))
    servers = Servers.of(before)
    done = run(after, servers)
    assert [one["title"] for one in done] == [
        "make anew prefill_a, decode_a",
        "make anew prefill_b, decode_b",
        "list all",
    ]
    assert [one["outage"] for one in done] == [False] * 3
    assert run(after, servers) == []
    # Each engine once, on each of its servers.
    engines = [name for name in servers.started if "-router" not in name]
    assert len(engines) == 6


def test_what_a_host_does_in_a_step_of_a_roll() -> None:
    raw = behind("vllm_router")
    plan = made(with_variables(raw, {"pd_engine_env": {"NEW": "1"}}))
    servers = Servers.of(plan_2p2d())
    first, second, last = execution(plan, change_of(plan, servers), servers.looks(plan))
    head, other = first["hosts"]["prefill1"], first["hosts"]["prefill2"]
    container = plan["hosts"]["prefill1"]["engines"][0]["container"]
    api = {"host": "198.51.100.11", "port": 8004}
    assert head["drain"] == [
        {
            "container": container,
            "instance": "prefill_a",
            "role": "prefiller",
            "apis": ["198.51.100.11:8004"],
        }
    ]
    assert (head["stop"], other["stop"]) == (
        {"heads": [container], "others": []},
        {"heads": [], "others": [container]},
    )
    assert other["drain"] == []
    assert head["engines"] == plan["hosts"]["prefill1"]["engines"]
    assert (head["kept"], head["remove"]) == ([], [])
    # What another step is about stays.
    idle = first["hosts"]["prefill3"]
    assert (idle["engines"], idle["stop"]) == ([], {"heads": [], "others": []})
    assert idle["kept"] == [plan["hosts"]["prefill3"]["engines"][0]["container"]]
    # The list lacks what is changed, on each router of both colours.
    assert first["lists"] == {
        "prefillers": [{"host": "198.51.100.13", "port": 8004}],
        "decoders": [{"host": "198.51.100.16", "port": 8004}],
    }
    assert [router["colour"] for router in head["routers"]] == ["blue", "green"]
    assert {router["labels"]["pd_rollout.prefillers"] for router in head["routers"]} == {"198.51.100.13:8004"}
    assert other["routers"] == []
    # All that runs is compared with what is made anew.
    canary = first["canary"]
    assert canary is not None
    assert canary["only"] == ["decode_a", "prefill_a"]
    assert [one["instance"] for one in canary["prefillers"]] == ["prefill_a", "prefill_b"]
    assert canary["prefillers"][0]["apis"] == [api]
    assert [one["instance"] for one in canary["decoders"]] == ["decode_a", "decode_b"]
    assert [first["number"], second["number"], last["number"]] == [1, 2, 3]
    # The last step lists all and puts files in order.
    assert (last["canary"], last["changes"], last["closed"]) == (None, True, False)
    assert last["lists"] is not None
    assert last["lists"]["prefillers"] == plan["proxy"]["prefillers"]
    assert last["hosts"]["prefill1"]["routers"] == plan["hosts"]["prefill1"]["routers"]
    assert last["hosts"]["prefill3"]["engines"] == plan["hosts"]["prefill3"]["engines"]


def test_a_run_without_engines_leaves_their_files_alone() -> None:
    plan = plan_2p2d()
    servers = Servers.of(plan)
    servers.containers["prefill1"] = {
        name: one
        for name, one in servers.containers["prefill1"].items()
        if one["Labels"]["pd_rollout.role"] != "proxy"
    }
    change = change_of(plan, servers, engines=False)
    (step,) = execution(plan, change, servers.looks(plan), engines=False)
    assert not step["changes"]
    assert all(not share["engines"] for share in step["hosts"].values())


@pytest.mark.parametrize("router", ROUTERS)
def test_an_upgrade_never_pairs_two_versions(router: str) -> None:
    raw = with_variables(behind(router), {"pd_release": "v0.13.0"})
    before, after = made(raw), made(with_variables(raw, {"pd_release": "v0.18.0"}))
    servers = Servers.of(before)
    assert all(one.other_version for one in see(after, servers).planned)
    done = run(after, servers)
    assert not any(one["outage"] for one in done)
    # What is new is compared with nothing old.
    assert done[0]["canary"] is not None
    assert [one["instance"] for one in done[0]["canary"]["prefillers"]] == ["prefill_a"]
    assert run(after, servers) == []


@pytest.mark.parametrize("stop_after", range(4))
def test_an_interrupted_roll_goes_on_and_goes_back(stop_after: int) -> None:
    raw = behind("vllm_router")
    before, after = made(raw), made(with_variables(raw, {"pd_engine_env": {"NEW": "1"}}))
    for goal in (after, before):
        servers = Servers.of(before)
        run(after, servers, stop_after=stop_after)
        run(goal, servers)
        assert run(goal, servers) == []


@pytest.mark.parametrize("name", ["prefill_a", "prefill_b", "decode_a", "decode_b"])
def test_an_instance_that_leaves_and_comes_back(name: str) -> None:
    raw = behind("vllm_router")
    whole_plan, fewer = made(raw), made(without(raw, name))
    servers = Servers.of(whole_plan)
    # The hosts of an instance that is gone are looked at, too, if they are in the run.
    done = run(fewer, servers)
    assert [one["title"] for one in done] == [f"remove {name}"]
    strays = [stray for share in done[0]["hosts"].values() for stray in share["remove"]]
    assert {(stray["name"], *stray["scripts"]) for stray in strays} == {
        (f"pd-{name}", f"/etc/pd_rollout/pd/{name}.sh")
    }
    assert run(fewer, servers) == []
    servers.started.clear()
    done = run(whole_plan, servers)
    assert [one["title"] for one in done] == [f"start {name}", "list all"]
    assert {one for one in servers.started if "router" not in one} == {f"pd-{name}"}


def test_one_of_each_needs_an_outage_and_the_front_is_closed() -> None:
    raw = behind("vllm_router", "atlas_a3_1p1d")
    servers = Servers.of(made(raw))
    plan = made(with_variables(raw, {"pd_engine_env": {"NEW": "1"}}))
    first, last = run(plan, servers)
    assert (first["closed"], first["outage"]) == (True, True)
    assert first["lists"] == {"prefillers": [], "decoders": []}
    assert all(not share["routers"] for share in first["hosts"].values())
    assert not last["closed"]
    assert run(plan, servers) == []


@pytest.mark.parametrize(("mark", "stopped"), [("drained", False), ("stopped", True)])
@pytest.mark.parametrize("router", ROUTERS)
def test_a_server_is_drained_and_taken_back(router: str, mark: str, stopped: bool) -> None:
    plan = plan_2p2d(router)
    servers = Servers.of(plan)
    run(plan, servers, marks={"prefill4": mark})
    servers.marks["prefill4"] = mark
    assert "198.51.100.13:8004" not in servers.listed()
    up = {node["running"] != [] for node in (servers.look(plan, host) for host in ("prefill3", "prefill4"))}
    assert up == {not stopped}
    # deploy leaves it as it is.
    again = change_of(plan, servers)
    assert again.steps == ()
    assert [one.name for one in again.drained] == ["prefill_b"]
    assert [one.name for one in again.target] == ["prefill_a", "decode_a", "decode_b"]
    # A change of all leaves it out.
    changed = made(with_variables(behind(router), {"pd_engine_env": {"NEW": "1"}}))
    run(changed, servers)
    assert change_of(changed, servers).steps == ()
    assert "pd-prefill_b" not in servers.started
    servers.marks.clear()
    run(changed, servers)
    assert change_of(changed, servers).steps == ()
    assert servers.listed() == Servers.of(changed).listed()


def test_all_at_once_for_a_run_that_only_shows() -> None:
    plan = made(with_variables(behind("vllm_router"), {"pd_engine_env": {"NEW": "1"}}))
    servers = Servers.of(plan_2p2d())
    looks, change = servers.looks(plan), change_of(plan, servers)
    (step,) = whole(plan, change, looks)
    assert step["lists"] == lists_of(change.target)
    made_anew = [engine for share in step["hosts"].values() for engine in share["engines"]]
    assert len(made_anew) == 6
    assert whole(plan, Change(target=change.target), looks) == []
    # A change that leaves the list as it is.
    kept = replace(change, steps=tuple(replace(one, listed=None) for one in change.steps))
    assert whole(plan, kept, looks)[0]["lists"] is None


def test_only_what_runs_is_drained_and_stopped() -> None:
    plan = plan_2p2d()
    servers = Servers.of(plan)
    servers.stop("decode1", "pd-decode_a")
    (first, *_) = execution(plan, change_of(plan, servers), servers.looks(plan))
    here = first["hosts"]["decode1"]
    assert (first["title"], here["drain"], here["stop"]) == (
        "restart decode_a",
        [],
        {"heads": [], "others": []},
    )
    assert here["engines"] == plan["hosts"]["decode1"]["engines"]


def test_what_runs_as_planned_is_only_awaited_before_it_is_listed() -> None:
    plan = plan_2p2d()
    servers = Servers.of(plan)
    run(plan, servers, marks={"decode1": "drained"})
    (first, *_) = execution(plan, change_of(plan, servers), servers.looks(plan))
    here = first["hosts"]["decode1"]
    assert (first["title"], here["drain"], here["stop"]["heads"]) == ("wait for decode_a", [], [])


def test_a_node_that_an_instance_no_longer_has_is_removed_with_its_change() -> None:
    raw = behind("vllm_router")
    (head, _), one = raw.groups[0].members, {"pd_parallel": {"tensor": 16}}
    alone = replace(raw.groups[0], members=(replace(head, variables={**head.variables, **one}),))
    plan = made(replace(raw, groups=(alone, *raw.groups[1:])))
    servers = Servers.of(made(raw))
    assert "prefill2" not in plan["hosts"]
    # decoders and prefillers agree on sizes, so that the others change too.
    done = execution(plan, change_of(plan, servers), servers.looks(plan))
    removed = [(n, s["name"]) for n, step in enumerate(done) for s in step["hosts"]["prefill2"]["remove"]]
    assert [name for _, name in removed] == ["pd-prefill_a"]
    (at,) = (n for n, step in enumerate(done) if "prefill_a" in step["title"])
    assert removed[0][0] == at


def test_what_a_later_step_removes_is_kept_until_then() -> None:
    raw = behind("vllm_router")
    plan = made(without(with_variables(raw, {"pd_engine_env": {"NEW": "1"}}, ["prefill_a"]), "decode_b"))
    servers = Servers.of(made(raw))
    servers.stop("prefill1", "pd-prefill_a")
    first, *_ = execution(plan, change_of(plan, servers), servers.looks(plan))
    assert first["hosts"]["decode2"]["remove"] == []
    assert first["hosts"]["decode2"]["kept"] == ["pd-decode_b"]


def changing(**variables: Any) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """A deployment of two prefillers and two decoders whose variables change: both plans, and the steps."""
    before = plan_2p2d()
    after = made(with_variables(behind("vllm_router"), variables))
    servers = Servers.of(before)
    return before, after, execution(after, change_of(after, servers), servers.looks(after))


def test_an_api_that_moves_is_listed_where_it_is_by_then() -> None:
    """By the lists and the canaries of the steps after its own."""
    before, _, found = changing(pd_api_port=8104)
    old = before["proxy"]["decoders"][0]["port"]
    ports = [{api["port"] for apis in step["lists"].values() for api in apis} for step in found]
    assert ports == [{old}, {8104}, {8104}]
    partners = [
        api["port"]
        for side in ("prefillers", "decoders")
        for one in found[1]["canary"][side]
        for api in one["apis"]
    ]
    assert {*partners} == {8104}


def test_the_model_has_the_name_of_what_is_listed() -> None:
    before, _, found = changing(pd_served_model_name="other")
    assert [step["model"] for step in found] == [before["model"]["served_name"], "other", "other"]
