# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard in the plan: its port, its unit, and what it knows of the deployment."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.router_list import relisted
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import host_cluster
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import ports, render
from planner_inventories import codes, findings, many, small

TP16: dict[str, Any] = {"pd_parallel": {"tensor": 16}}
EXTERNAL: dict[str, Any] = {
    "pd_dp_mode": "external",
    "pd_api_port": 7100,
    "pd_interface": "eth0",
    "pd_parallel": {"tensor": 4, "data": 4},
}
FRONT: dict[str, Any] = {"pd_front_port": 8443, "pd_front_tls": False, "pd_front_api_keys": {"a": "k" * 32}}
OFF = {"pd_guard": False}


def plan(raw: Any) -> dict[str, Any]:
    return planner.make(raw).to_dict()


def guards(raw: Any) -> dict[str, Any]:
    return {host: share["guard"] for host, share in plan(raw)["hosts"].items()}


def said(raw: Any, code: str) -> list[Any]:
    return [finding for finding in findings(raw) if finding.code == code]


def rows(raw: Any) -> list[tuple[str, int, str | None]]:
    return [
        (row["host"], row["first"], row["purpose"]) for row in plan(raw)["ports"] if row["purpose"] == "guard"
    ]


def without(content: dict[str, Any]) -> dict[str, Any]:
    """A plan without what belongs to the guard."""

    def table(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in listed if row["purpose"] != ports.GUARD]

    def engines(share: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**engine, "guarded": None} for engine in share["engines"]]

    hosts = {
        host: {**share, "guard": None, "ports": table(share["ports"]), "engines": engines(share)}
        for host, share in content["hosts"].items()
    }
    hints = [one for one in content["findings"] if one["code"] not in ("PD304", "PD622")]
    return {**content, "hash": "", "hosts": hosts, "ports": table(content["ports"]), "findings": hints}


def test_every_server_has_one() -> None:
    found = guards(small())
    assert list(found) == ["p1", "p2", "d1"]
    assert rows(small()) == [(host, 8406, "guard") for host in found]
    assert [(one["host"], one["port"]) for one in found.values()] == [
        ("198.51.100.1", 8406),
        ("198.51.100.2", 8406),
        ("198.51.100.3", 8406),
    ]
    assert {one["unit"] for one in found.values()} == {"pd-guard"}
    assert {one["directory"] for one in found.values()} == {"/etc/pd_rollout/pd/guard"}
    assert {one["run"] for one in found.values()} == {"/run/pd-guard"}


def test_pd_guard_false_leaves_it_out() -> None:
    assert set(guards(small(OFF)).values()) == {None}
    assert not rows(small(OFF))
    engines = [engine for share in plan(small(OFF))["hosts"].values() for engine in share["engines"]]
    assert not any(engine["guarded"] for engine in engines)


@pytest.mark.parametrize("everywhere", [{}, FRONT, {"pd_router": "vllm_router"}])
def test_nothing_else_of_the_plan_differs(everywhere: dict[str, Any]) -> None:
    """Engines and routers stay as they are when it is switched on: also their hashes and versions."""
    assert without(plan(small(everywhere))) == without(plan(small({**everywhere, **OFF})))


def test_another_port_is_no_other_engine() -> None:
    assert without(plan(small())) == without(plan(small({"pd_guard_port": 8500})))


def test_it_is_not_in_the_hash_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows from the rest, as the peers do."""
    before = plan(small())["hash"]
    monkeypatch.setattr(planner.launch, "guard", lambda *_: None)
    assert plan(small())["hash"] == before


@pytest.mark.parametrize("port", [8004, 8005, 7001, 8443, 8405])
def test_its_port_is_its_own(port: int) -> None:
    found = said(small({**FRONT, "pd_guard_port": port}), "PD301")
    assert any("guard" in one.message for one in found)
    assert "PD301" not in codes(small({**FRONT, **OFF, "pd_guard_port": port}))


@pytest.mark.parametrize(("port", "code"), [(16000, "PD302"), (60001, "PD303"), (40000, "PD304")])
def test_rules_about_ports_know_it(port: int, code: str) -> None:
    found = said(small({"pd_guard_port": port}), code)
    assert any("guard" in one.message or "40000" in str(one.expected) for one in found)


def test_computed_kv_ports_give_way() -> None:
    taken = plan(small(OFF))["instances"][0]["kv_port"]
    assert plan(small({"pd_guard_port": taken}))["instances"][0]["kv_port"] != taken


def test_the_unit() -> None:
    text = guards(small())["p2"]["service"]
    assert text.splitlines()[0] == (
        "# The guard of deployment pd, on p2. "
        "Written by ascend.pd_rollout: change the inventory, not this file."
    )
    lines = text.splitlines()
    folder = "/etc/pd_rollout/pd/guard"
    assert f"ExecStart=@PYTHON@ -I {folder}/pd-guard.pyz run {folder}/guard.json" in lines
    assert "ReadWritePaths=/etc/pd_rollout/pd /run" in lines
    assert "RuntimeDirectory=pd-guard" in lines and "PrivateTmp=yes" in lines
    assert f"ExecStopPost=-@PYTHON@ -I {folder}/pd-guard.pyz open {folder}/guard.json" in lines
    (after,) = (line.partition("=")[2].split() for line in lines if line.startswith("After="))
    assert "remote-fs.target" in after, "the engines' scripts and the weights may be there"
    assert text.count("@") == 4, "only the places of the Python are left"


def test_a_deployment_below_tmp_is_not_hidden_from_it() -> None:
    text = guards(small({"pd_host_dir": "/tmp/rollout"}))["p1"]["service"]
    assert "PrivateTmp" not in text and "ReadWritePaths=/tmp/rollout/pd /run" in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("path", ["/srv/a b", "/srv/50%", "/srv/$x", '/srv/"q"', "/srv/back\\slash"])
def test_paths_are_quoted_for_systemd(path: str) -> None:
    text = guards(small({"pd_host_dir": path}))["p1"]["service"].replace("%%", "%")
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert shlex.split(settings["ReadWritePaths"]) == [f"{path}/pd", "/run"]
    # Only in a command, a dollar sign begins a variable.
    for setting, place, verb in (("ExecStart", "@PYTHON@", "run"), ("ExecStopPost", "-@PYTHON@", "open")):
        assert shlex.split(settings[setting].replace("$$", "$")) == [
            place,
            "-I",
            f"{path}/pd/guard/pd-guard.pyz",
            verb,
            f"{path}/pd/guard/guard.json",
        ]


def test_a_server_without_a_router_knows_its_own_instances() -> None:
    config = guards(small({"pd_api_key": "k" * 32}))["p2"]["config"]
    assert config == {
        "deployment": "pd",
        "host": "p2",
        "address": "198.51.100.2",
        "port": 8406,
        "directory": "/etc/pd_rollout/pd",
        "release": "v0.13.0",
        "model": "model",
        "protocol": "pull",
        "listen": None,
        "secret_path": "/etc/pd_rollout/pd/api_key",
        "servers": {"p1": {"address": "198.51.100.1", "port": 8406}},
        "instances": [
            {
                "name": "prefiller",
                "role": "prefiller",
                "nodes": ["p1", "p2"],
                "apis": ["198.51.100.1:8004"],
            }
        ],
        "engines": [
            {
                "container": "pd-prefiller",
                "instance": "prefiller",
                "role": "prefiller",
                "node_rank": 1,
                "apis": [],
                "script_path": "/etc/pd_rollout/pd/prefiller.sh",
            }
        ],
        "routers": [],
        "front": None,
        "lists": {"prefillers": [], "decoders": []},
    }


def test_a_routers_server_knows_all_of_them() -> None:
    content = plan(small(FRONT))
    share = content["hosts"]["p1"]
    config = share["guard"]["config"]
    assert [one["name"] for one in config["instances"]] == ["prefiller", "decoder"]
    assert list(config["servers"]) == ["p2", "d1"]
    assert [one["container"] for one in config["engines"]] == ["pd-prefiller"]
    assert config["lists"] == {key: content["proxy"][key] for key in ("prefillers", "decoders")}
    assert config["front"] == {
        "run": "/run/pd-front",
        "directory": "/etc/pd_rollout/pd/front",
        "drain_timeout": 600,
    }
    assert len(config["routers"]) == 2
    for known, router in zip(config["routers"], share["routers"], strict=True):
        assert known == {key: value for key, value in router.items() if key != "argv"}


def test_its_routers_get_the_lists_that_a_rollout_gives() -> None:
    content = plan(small(FRONT))
    config = content["hosts"]["p1"]["guard"]["config"]
    for known, router in zip(config["routers"], content["hosts"]["p1"]["routers"], strict=True):
        one = relisted(known, config["lists"], [], config["lists"]["decoders"])
        other = relisted(router, content["proxy"], [], content["proxy"]["decoders"])
        assert (one["script"], one["labels"]) == (other["script"], other["labels"])


def test_all_ranks_of_external_data_parallel() -> None:
    raw = many(
        {"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], EXTERNAL)]},
        everywhere={"pd_profile": "generic"},
    )
    config = guards(raw)["b"]["config"]
    apis = [f"{config['address']}:{port}" for port in range(7100, 7104)]
    assert config["engines"][0]["apis"] == config["instances"][0]["apis"] == apis


def test_two_instances_of_a_server_are_both_known() -> None:
    halves = [
        (f"d{n}", ["b"], {"pd_parallel": {"tensor": 8}, "pd_chips": chips, "pd_api_port": 8100 + n})
        for n, chips in enumerate(("0-7", "8-15"))
    ]
    raw = many({"prefiller": [("p", ["a"], TP16)], "decoder": halves}, everywhere={"pd_profile": "generic"})
    config = guards(raw)["b"]["config"]
    assert [one["instance"] for one in config["engines"]] == ["d0", "d1"]
    assert [one["apis"] for one in config["engines"]] == [
        [f"{config['address']}:8100"],
        [f"{config['address']}:8101"],
    ]


def test_layerwise_decoders_reach_it() -> None:
    raw = small({"pd_kv_connector": "MooncakeLayerwiseConnector", "pd_profile": "generic"}, TP16)
    config = guards(raw)["d1"]["config"]
    assert config["protocol"] == "push" and config["listen"] == {"host": "198.51.100.3", "port": 0}


def test_a_colocated_engine_has_one() -> None:
    raw = many(
        {"decoder": [("d", ["a"], TP16)]},
        everywhere={"pd_mode": "colocated", "pd_profile": "generic"},
        proxy=False,
    )
    config = guards(raw)["a"]["config"]
    assert config["protocol"] == "none" and config["servers"] == {} and config["routers"] == []


def test_its_config_can_be_written_as_json() -> None:
    for guard in guards(small(FRONT)).values():
        assert json.loads(json.dumps(guard)) == guard


def test_who_connects_to_it() -> None:
    """The guards of its own instances, and those of the routers' servers."""
    content = plan(small(proxy=("d1",)))

    def clients(host: str) -> list[str]:
        (row,) = [one for one in content["hosts"][host]["ports"] if one["purpose"] == "guard"]
        return host_cluster.clients(content, row)

    assert clients("p1") == ["p2", "d1"] and clients("p2") == ["p1", "d1"] and clients("d1") == []


def test_topology_md_names_it() -> None:
    assert "- Guard: on every server, port 8406\n" in render.markdown(planner.make(small()).to_dict())
    assert "- Guard: none\n" in render.markdown(planner.make(small(OFF)).to_dict())
