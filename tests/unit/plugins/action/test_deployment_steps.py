# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a run, what is refused before it begins, and what stands where after it has stopped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.ascend.pd_rollout.plugins.action import deployment_steps, deployment_stopped
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import history
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import revisions
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from deployment_servers import Servers
from planner_inventories import many, shipped

TP16 = {"pd_parallel": {"tensor": 16}}
FRONT = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"a": "k" * 32}}


def plan_of(prefillers: int = 2, decoders: int = 2, **variables: Any) -> dict[str, Any]:
    given = {
        "prefiller": [(f"p{n}", [f"host-p{n}"], TP16) for n in range(prefillers)],
        "decoder": [(f"d{n}", [f"host-d{n}"], TP16) for n in range(decoders)],
    }
    everywhere = {"pd_image": "registry.example/engine:own", "pd_profile": "generic", **FRONT, **variables}
    return planner.make(many(given, everywhere=everywhere)).to_dict()


@cache
def plan_2p2d() -> dict[str, Any]:
    return plan_of()


CHANGED = {"pd_engine_env": {"NEW": "1"}}


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.check_mode = False
        self.hosts: dict[str, Any] = {}
        monkeypatch.setattr(ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(deployment_steps, "show", self.said.append)

    def look(self, plan: Any, servers: Servers) -> None:
        self.hosts = {host: {"container_found": look} for host, look in servers.looks(plan).items()}

    def action(self, cls: Any, plan: Any, **given: Any) -> dict[str, Any]:
        action = cls.__new__(cls)
        action._task = SimpleNamespace(check_mode=self.check_mode)
        defaults = {name: option.get("default") for name, option in cls.ARGUMENTS.items()}
        options = {**defaults, "plan": plan, "servers": [*self.hosts], "result": "container_found", **given}
        action.validate_argument_spec = lambda _: (None, options)
        result: dict[str, Any] = action.run(
            None, {"hostvars": SimpleNamespace(raw_get=self.hosts.get), "inventory_hostname": "x"}
        )
        return result

    def steps(self, plan: Any, **given: Any) -> dict[str, Any]:
        placed = {**plan, "directory": str(self.directory)}
        return self.action(deployment_steps.ActionModule, placed, **given)

    def stopped(self, plan: Any, **given: Any) -> dict[str, Any]:
        return self.action(deployment_stopped.ActionModule, plan, **given)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return Run(monkeypatch, tmp_path)


def titles(result: dict[str, Any]) -> list[str]:
    assert not result.get("failed"), result
    return [step["title"] for step in result["steps"]]


def code(result: dict[str, Any]) -> str:
    assert result["failed"]
    (found,) = {finding["code"] for finding in result["findings"]}
    return str(found)


def test_nothing_to_do_is_settled_and_silent(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    result = run.steps(plan)
    assert (result["steps"], result["settled"], result["changed"]) == ([], True, False)
    assert result["lists"] == {key: plan["proxy"][key] for key in ("prefillers", "decoders")}
    assert run.said == []


def test_a_roll_is_shown_with_its_times(run: Run) -> None:
    plan = plan_of(**CHANGED)
    run.look(plan, Servers.of(plan_2p2d()))
    run.hosts["host-p0"]["container_found"]["nodes"][0]["seconds"] = 90.0
    run.hosts["host-d0"]["container_found"]["nodes"][0]["seconds"] = 120.0
    result = run.steps(plan)
    assert titles(result) == ["make anew p0, d0", "make anew p1, d1", "list all"]
    assert (result["outages"], result["settled"]) == ([], False)
    (text,) = run.said
    assert "1     make anew p0, d0  1 of 2      1 of 2    2.0 min" in text
    assert "p0: its container was created from another plan or another image" in text
    run.said.clear()
    assert run.steps(plan, quiet=True)["steps"] == result["steps"]
    assert run.said == []


def test_of_several_nodes_the_slowest_start_counts(run: Run) -> None:
    plan = planner.make(shipped("atlas_a3_1p1d")).to_dict()
    run.look(plan, Servers.of(plan))
    for host, seconds in (("prefill1", 50.0), ("prefill2", 20.0)):
        run.hosts[host]["container_found"]["nodes"][0]["seconds"] = seconds
    run.steps(plan, restart=["prefiller"], accept_outage=True)
    assert "restart prefiller  0 of 1      0 of 1    50 s" in run.said[0]


def test_more_at_once(run: Run) -> None:
    plan = plan_of(3, 3, **CHANGED)
    run.look(plan, Servers.of(plan_of(3, 3)))
    assert titles(run.steps(plan, max_unavailable=2))[0] == "make anew p0, p1, d0, d1"


def test_check_mode_shows_all_and_does_it_as_one(run: Run) -> None:
    plan = plan_of(1, 1, **CHANGED)
    run.look(plan, Servers.of(plan_of(1, 1)))
    run.check_mode = True
    result = run.steps(plan)
    # Without consent, too: nothing is changed.
    (step,) = result["steps"]
    assert step["title"] == "make anew p0, d0"
    assert "end the routers; make anew p0, d0" in run.said[0]
    assert result["outages"]


def test_an_outage_needs_consent(run: Run) -> None:
    plan = plan_of(1, 1, **CHANGED)
    run.look(plan, Servers.of(plan_of(1, 1)))
    refused = run.steps(plan)
    assert code(refused) == "change-outage"
    assert "the change interrupts the service, and nothing was changed" in refused["msg"]
    (finding,) = refused["findings"]
    assert finding["seen"] == "p0 is the only prefiller; d0 is the only decoder"
    assert "deploy_accept_outage=true" in finding["cure"]
    assert titles(run.steps(plan, accept_outage=True)) == ["end the routers; make anew p0, d0", "list all"]


@pytest.mark.parametrize(
    ("given", "variable", "name"),
    [
        ({"restart": ["p0", "p9"]}, "instance", "p9"),
        ({"only": ["host-p0"]}, "instance", "host-p0"),
        ({"drain": ["p0"]}, "server", "p0"),
        ({"undrain": ["host-p9"]}, "server", "host-p9"),
    ],
)
def test_names_that_the_plan_does_not_have(run: Run, given: Any, variable: str, name: str) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    refused = run.steps(plan, **given)
    assert code(refused) == "change-unknown"
    (finding,) = refused["findings"]
    assert (finding["variable"], finding["seen"]) == (variable, name)
    assert ("p0" if variable == "instance" else "host-p0") in finding["expected"]


def test_a_restart_of_some(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    assert titles(run.steps(plan, restart=["d1"], only=["d1"])) == ["restart d1", "list all"]
    # What differs elsewhere stays.
    changed = plan_of(**CHANGED)
    run.look(changed, Servers.of(plan))
    assert titles(run.steps(changed, restart=["d1"], only=["d1"])) == ["make anew d1", "list all"]


def test_a_restart_in_another_version_is_refused(run: Run) -> None:
    plan = plan_of(pd_release="v0.18.0")
    run.look(plan, Servers.of(plan_of(pd_release="v0.13.0")))
    refused = run.steps(plan, restart=["d1"], only=["d1"])
    assert code(refused) == "change-other-version"
    (finding,) = refused["findings"]
    assert finding["instance"] == "d1"
    assert finding["seen"] == "v0.13.0, as before the change of the inventory"
    # What starts nothing may be done.
    assert "findings" not in run.steps(plan, drain=["host-d1"])
    assert titles(run.steps(plan))[0] == "make anew p0, d0"


def test_slices_are_not_printed(run: Run) -> None:
    """They hold the engines' environment."""
    plan = plan_of()
    run.look(plan, Servers.of(plan))
    assert run.steps(plan)["_ansible_verbose_override"] is True


def test_one_instance_is_restarted_and_the_others_stay_as_they_are(run: Run) -> None:
    """Also where the inventory says otherwise by now."""
    plan = plan_of(pd_engine_env={"A": "1"})
    run.look(plan, Servers.of(plan_of()))
    for options in ({"restart": ["d1"], "only": ["d1"]}, {"drain": ["host-d1"]}):
        steps = run.steps(plan, **options)["steps"]
        touched = {
            engine["instance"]
            for step in steps
            for share in step["hosts"].values()
            for engine in share["engines"]
        }
        assert touched <= {"d1"}


@pytest.mark.parametrize(
    ("stop", "done"),
    [
        (False, ["list all"]),
        (True, ["stop d1"]),
    ],
)
def test_a_server_is_drained(run: Run, stop: bool, done: list[str]) -> None:
    plan = plan_2p2d()
    servers = Servers.of(plan)
    run.look(plan, servers)
    result = run.steps(plan, drain=["host-d1"], drain_stop=stop)
    assert titles(result) == done
    assert len(result["lists"]["decoders"]) == 1
    for step in result["steps"]:
        servers.do(step)
    servers.marks["host-d1"] = "stopped" if stop else "drained"
    run.look(plan, servers)
    assert run.steps(plan)["settled"]
    # Its mark is written, and removed, even where nothing has to change.
    assert not run.steps(plan, drain=["host-d1"], drain_stop=stop)["settled"]
    back = run.steps(plan, undrain=["host-d1"])
    assert titles(back) == (["restart d1", "list all"] if stop else ["wait for d1", "list all"])


def test_a_group_without_one_of_its_servers_is_refused(run: Run) -> None:
    plan = planner.make(shipped("atlas_a3_1p1d")).to_dict()
    servers = Servers.of(plan)
    servers.stop("prefill1", "pd-prefiller")
    run.look(plan, servers)
    refused = run.steps(plan, servers=["prefill1", "decode1"])
    assert code(refused) == "engine-group-incomplete"
    # A run about routers alone starts no engine.
    assert not run.steps(plan, servers=["prefill1", "decode1"], engines=False).get("failed")


def test_what_serves_elsewhere_stays_listed(run: Run) -> None:
    """A run for some servers (--limit) neither drops the others from the list nor takes what it changes for
    the last of its role."""
    plan = plan_of(**CHANGED)
    run.look(plan, Servers.of(plan_2p2d()))
    # Another task on this server has failed, or the run leaves it out.
    run.hosts["host-d1"] = {"container_found": {"failed": True, "msg": "no answer"}}
    result = run.steps(plan)
    assert titles(result) == ["make anew p0, d0", "make anew p1", "list all"]
    assert "host-d1" not in result["steps"][0]["hosts"]
    assert [len(step["lists"]["decoders"]) for step in result["steps"]] == [1, 2, 2]
    assert result["lists"] == {key: plan["proxy"][key] for key in ("prefillers", "decoders")}


def test_what_stands_where_when_a_step_has_failed(run: Run) -> None:
    plan = plan_of(**CHANGED)
    servers = Servers.of(plan_2p2d())
    run.look(plan, servers)
    servers.do(run.steps(plan)["steps"][0])
    run.look(plan, servers)
    result = run.stopped(plan, step="1 of 3: make anew p0, d0", why="d0: its answers are wrong")
    assert code(result) == "change-stopped"
    first, rest = result["msg"].split("\n", 1)
    assert first == "d0: its answers are wrong"
    assert "the change has stopped in step 1 of 3: make anew p0, d0" in rest
    (finding,) = result["findings"]
    assert finding["seen"] == "serving as before: p1, d1; changed, not listed yet: p0, d0"
    assert run.stopped(plan, step="1", why="")["msg"].startswith("ERROR change-stopped")


def kept(run: Run, plan: Any, texts: dict[str, list[str]]) -> None:
    """Keep what runs as a revision, on the controller and the router's server."""
    looks = {host: one["container_found"] for host, one in run.hosts.items()}
    record = {"revision": 1, **revisions.of_plan(plan, looks, texts, who="a@b", when="2026-03-01T10:15:00Z")}
    history.write(run.directory / "history", record, "{}")
    for host in revisions.keepers(plan):
        looks[host]["revision"] = record


def test_a_whole_run_is_kept_unless_it_is_the_newest_revision(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    assert run.steps(plan)["keep"]
    kept(run, plan, {})
    assert not run.steps(plan)["keep"]
    changed = plan_of(**CHANGED)
    run.look(changed, Servers.of(plan))
    assert run.steps(changed)["keep"]
    for part in (
        {"only": ["p0"]},
        {"restart": ["p0"], "only": ["p0"]},
        {"engines": False},
        {"routers": False},
    ):
        assert not run.steps(plan, **part, accept_outage=True)["keep"], part
    assert not run.steps(plan, servers=["host-p0"], accept_outage=True).get("keep")


def test_the_canary_gets_what_pairs_have_answered(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    pairs = ["p0 d0", "p0 d1", "p1 d0", "p1 d1"]
    kept(run, plan, {pair: ["text"] for pair in pairs})
    result = run.steps(plan)
    assert result["known"] == {pair: ["text"] for pair in pairs}
    assert [one["instance"] for one in result["canary"]["decoders"]] == ["d0", "d1"]
    assert result["canary"]["prefillers"][0]["apis"] == plan["proxy"]["prefillers"][:1]


def test_a_guard_alone_is_a_change(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    run.hosts["host-p0"]["container_found"]["guard"] = {"settled": False, "secret_id": ""}
    result = run.steps(plan)
    assert (result["steps"], result["settled"], result["guarded"]) == ([], False, False)
    (text,) = run.said
    assert "The guard is installed, updated, started or removed on host-p0." in text
    # It knows the whole plan, of which these runs change a part.
    for part in ({"only": ["p1"]}, {"drain": ["host-p1"]}):
        assert run.steps(plan, **part)["guarded"]


def test_guards_as_planned_are_no_change(run: Run) -> None:
    plan = plan_2p2d()
    run.look(plan, Servers.of(plan))
    for found in run.hosts.values():
        found["container_found"]["guard"] = {"settled": True, "secret_id": "1f"}
    result = run.steps(plan)
    assert (result["settled"], result["guarded"], run.said) == (True, True, [])
