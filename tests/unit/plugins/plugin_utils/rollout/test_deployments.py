# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Several independent deployments in one inventory: each has a plan of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import Finding, PlanError
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    RawInventory,
    raw_inventory,
)
from planner_inventories import EVERYWHERE, small
from planner_promises import check

TP16 = {"pd_profile": "generic", "pd_parallel": {"tensor": 16}}


def two(
    changes: Mapping[str, Mapping[str, Any]] | None = None, proxies: tuple[str, ...] = ("a", "c")
) -> RawInventory:
    """chat on a and b, code on c and d; with the proxies on a and c."""
    deployment = {"a": "chat", "b": "chat", "c": "code", "d": "code"}
    hosts = {
        host: {
            "ansible_host": f"198.51.100.{number}",
            **EVERYWHERE,
            **TP16,
            "pd_deployment": deployment[host],
            **(changes or {}).get(host, {}),
        }
        for number, host in enumerate(deployment, 1)
    }
    return raw_inventory(
        "two",
        {
            "prefiller": GroupShape((), ("a", "c"), ("chat_prefill", "code_prefill")),
            "decoder": GroupShape((), ("b", "d"), ("chat_decode", "code_decode")),
            "chat_prefill": GroupShape(("a",), ("a",), ()),
            "code_prefill": GroupShape(("c",), ("c",), ()),
            "chat_decode": GroupShape(("b",), ("b",), ()),
            "code_decode": GroupShape(("d",), ("d",), ()),
            "proxy": GroupShape(proxies, proxies, ()),
        },
        hosts,
    )


def found(raw: RawInventory) -> list[Finding]:
    with pytest.raises(PlanError) as error:
        planner.make_all(raw)
    return error.value.findings


def test_each_has_its_own_instances_and_proxy() -> None:
    plans = {name: plan.to_dict() for name, plan in planner.make_all(two()).items()}
    assert list(plans) == ["chat", "code"]
    for plan in plans.values():
        check(plan)
        assert plan["topology"] == "1P1D"
        assert len(plan["proxy"]["prefillers"]) == len(plan["proxy"]["decoders"]) == 1
    assert set(plans["chat"]["hosts"]) == {"a", "b"}
    assert set(plans["code"]["hosts"]) == {"c", "d"}


def test_they_share_no_server_container_directory_or_file() -> None:
    plans = [plan.to_dict() for plan in planner.make_all(two()).values()]

    def of(plan: dict[str, Any]) -> set[str]:
        names = set(plan["hosts"])
        for share in plan["hosts"].values():
            names.add(share["directory"])
            for container in [*share["engines"], *filter(None, [share["proxy"]])]:
                names |= {container["container"], container["script_path"]}
        return names

    assert not of(plans[0]) & of(plans[1])


def test_they_may_differ_in_what_a_cluster_has_once() -> None:
    plans = planner.make_all(
        two({host: {"pd_proxy_port": 9000, "pd_served_model_name": "coder"} for host in ("c", "d")})
    )
    assert plans["chat"].cluster.declaration.proxy_port == 8005
    assert plans["code"].to_dict()["model"]["served_name"] == "coder"


def test_an_inventory_without_the_variable_is_one() -> None:
    assert list(planner.make_all(small())) == ["pd"]
    assert planner.make_all(small())["pd"].to_dict() == planner.make(small()).to_dict()


def test_all_findings_of_all_deployments_come_at_once() -> None:
    findings = found(two({"a": {"pd_api_port": 0}, "d": {"pd_api_port": 0}}, proxies=("a",)))
    assert {(f.code, f.host) for f in findings if f.severity == "error"} == {
        ("PD102", "a"),
        ("PD102", "d"),
        ("PD114", None),
    }
    (missing,) = [f for f in findings if f.code == "PD114"]
    assert missing.message.startswith("deployment code: ")


def test_a_server_of_two_deployments() -> None:
    raw = two()
    shared = raw_inventory(
        "two",
        {
            **{group.name: GroupShape(("a",), ("a",), ()) for group in raw.groups},
            "prefiller": GroupShape((), ("a",), ("chat_prefill", "code_prefill")),
            "decoder": GroupShape((), ("a",), ("chat_decode", "code_decode")),
            "proxy": GroupShape(("a",), ("a",), ()),
        },
        raw.hosts,
        lambda instance, host: {**raw.hosts[host], "pd_deployment": instance.split("_")[0]},
    )
    (finding,) = [f for f in found(shared) if f.code == "PD118"]
    assert (finding.host, finding.variable) == ("a", "pd_deployment")
    assert "PD118" not in {f.code for plan in planner.make_all(two()).values() for f in plan.findings}


def test_servers_of_two_deployments_with_one_address() -> None:
    findings = found(two({"d": {"ansible_host": "198.51.100.1"}}))
    assert [(f.code, f.host) for f in findings if f.severity == "error"] == [("PD124", "d")]


def test_hosts_of_one_instance_in_two_deployments() -> None:
    raw = small(hosts={"p2": {"pd_deployment": "other"}})
    assert [(f.code, f.instance) for f in found(raw) if f.severity == "error"] == [("PD118", "prefiller")]


def test_two_proxies_of_one_deployment() -> None:
    """Both know every engine, and each has a port of its server."""
    plan = planner.make(small(proxy=("p1", "d1"))).to_dict()
    check(plan)
    first, second = (plan["hosts"][host]["proxy"] for host in ("p1", "d1"))
    assert (
        first["argv"][first["argv"].index("--prefiller-hosts") :]
        == second["argv"][second["argv"].index("--prefiller-hosts") :]
    )
    assert first["host"] != second["host"]
    assert plan["hosts"]["p2"]["proxy"] is None
    assert [(row["host"], row["first"]) for row in plan["ports"] if row["purpose"] == "proxy"] == [
        ("p1", 8005),
        ("d1", 8005),
    ]
