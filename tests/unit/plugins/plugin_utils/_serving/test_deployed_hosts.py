# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A server that is taken out of the inventory is not forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ascend.pd_rollout.plugins.action import deployment_hosts as action
from ansible_collections.ascend.pd_rollout.plugins.action.deployment_hosts import folders
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks.host_cluster import outside
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import deployed_hosts


def share(number, *engines, proxy=None):
    return {
        "address": f"10.0.0.{number}",
        "directory": "/etc/pd_rollout/pd",
        "engines": [{"container": name} for name in engines],
        "proxy": {"container": proxy} if proxy else None,
        "routers": [{"container": proxy}] if proxy else [],
    }


ALL = {
    "hosts": {
        "prefill1": share(1, "pd-prefiller", proxy="pd-proxy"),
        "decode1": share(2, "pd-decode1"),
        "decode2": share(3, "pd-decode2"),
        "gateway": share(4),
    }
}
DECODE2 = {"address": "10.0.0.3", "directory": "/etc/pd_rollout/pd", "containers": ["pd-decode2"]}


def without(name):
    return {"hosts": {host: entry for host, entry in ALL["hosts"].items() if host != name}}


def left(folder, plan):
    return deployed_hosts.outside(deployed_hosts.read(folder), plan)


def launch(folder, plan, hosts=None):
    return deployed_hosts.note(folder, plan, hosts or plan["hosts"], left(folder, plan))


def test_hosts_with_containers_are_noted_once(tmp_path):
    assert launch(tmp_path / "new", ALL)
    assert not launch(tmp_path / "new", ALL)
    known = deployed_hosts.read(tmp_path / "new")
    assert list(known) == ["prefill1", "decode1", "decode2"]
    assert known["prefill1"]["containers"] == ["pd-prefiller", "pd-proxy"]


def test_a_host_stays_known_until_it_is_stopped(tmp_path):
    launch(tmp_path, ALL)
    for _run in range(2):
        assert left(tmp_path, without("decode2")) == {"decode2": DECODE2}
        launch(tmp_path, without("decode2"))
    assert left(tmp_path, ALL) == {}
    assert deployed_hosts.forget(tmp_path, ["decode2"])
    assert not deployed_hosts.forget(tmp_path, ["decode2"])
    assert left(tmp_path, without("decode2")) == {}


def test_a_host_that_is_not_in_the_run_is_not_launched(tmp_path):
    launch(tmp_path, ALL, ["prefill1"])
    assert list(deployed_hosts.read(tmp_path)) == ["prefill1"]


def test_a_server_with_another_name_is_still_there(tmp_path):
    launch(tmp_path, ALL)
    renamed = without("decode2")
    renamed["hosts"]["decode9"] = ALL["hosts"]["decode2"]
    assert left(tmp_path, renamed) == {}


def test_without_a_note_the_last_plan_tells_what_may_run(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(ALL))
    unsure = {"decode2": {**DECODE2, "launched": False}}
    assert left(tmp_path, without("decode2")) == unsure
    known = left(tmp_path, without("decode2"))
    (tmp_path / "plan.json").write_text(json.dumps(without("decode2")))
    deployed_hosts.note(tmp_path, without("decode2"), ["decode1"], known)
    assert left(tmp_path, without("decode2")) == unsure


@pytest.mark.parametrize("text", ["", "[]", '{"hosts": []}', '{"hosts": {"a": 1}}'])
def test_files_that_cannot_be_read_tell_nothing(tmp_path, text):
    for name in ("plan.json", deployed_hosts.FILE):
        (tmp_path / name).write_text(text)
        assert deployed_hosts.read(tmp_path) == {}
    assert not deployed_hosts.forget(tmp_path, ["decode1"])


def test_one_run_may_stop_several_deployments(tmp_path):
    class HostVars(dict):
        _inventory = SimpleNamespace(_sources=())

    chat = {"pd_plan_dir": str(tmp_path), "pd_deployment": "chat"}
    hostvars = HostVars(a=chat, b=chat, c={**chat, "pd_deployment": "code"}, d={"pd_plan_dir": "/srv/plan"})
    places = [tmp_path, tmp_path / "chat", tmp_path / "code"]
    assert folders(hostvars, ["a", "b", "c"], "chat") == places
    assert folders(hostvars, ["d"], "pd") == [Path("/srv/plan"), Path("/srv/plan/pd")]


def test_the_report_says_how_to_remove_it():
    plan = {"directory": "/home/operator/plans/x", "outside": {"decode2": DECODE2}}
    (one,) = outside(plan)
    assert (one.code, one.host, one.severity) == ("host-deployed-outside", "decode2", "warning")
    assert one.message == "decode2 (10.0.0.3) is not in the inventory and may still run pd-decode2"
    assert "stop.yml --limit decode2" in one.cure
    assert "docker rm -f pd-decode2; rm -r /etc/pd_rollout/pd'" in one.cure
    assert "/home/operator/plans/x/deployed.json" in one.cure
    (one,) = outside({**plan, "outside": {"decode2": {**DECODE2, "launched": False}}})
    assert one.severity == "hint"
    assert outside({"directory": "/x"}) == []


@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_folder_of_somebody_else(tmp_path, monkeypatch, state):
    """What stop.yml has stopped is stopped, although its note cannot be changed; a deploy must be noted."""

    def refused(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "deployed.json"))

    monkeypatch.setattr(deployed_hosts, "forget", refused)
    monkeypatch.setattr(deployed_hosts, "note", refused)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(action, "plan_folder", lambda *_: tmp_path)
    plugin = action.ActionModule.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(check_mode=False)
    options = {
        "state": state,
        "plan": {"directory": str(tmp_path)},
        "servers": ["decode1"],
        "deployment": "pd",
    }
    plugin.validate_argument_spec = lambda _: (None, options)
    if state == "present":
        with pytest.raises(AnsibleActionFail, match="cannot note where it is deployed"):
            plugin.run(None, {})
        return
    result = plugin.run(None, {"hostvars": {"decode1": {}}})
    assert not result.get("failed")
    assert "deployed.json: Permission denied" in result["warnings"][0]


def test_both_routers_behind_a_front_may_run():
    hosts = {
        "prefill1": {**share(1, "pd-prefiller"), "routers": [{"container": "blue"}, {"container": "green"}]}
    }
    assert deployed_hosts.of_plan({"hosts": hosts})["prefill1"]["containers"] == [
        "pd-prefiller",
        "blue",
        "green",
    ]
