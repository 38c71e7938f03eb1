# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One engine that does prefill and decode: no KV transfer, no proxy."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    RawInventory,
    raw_inventory,
)
from planner_inventories import EVERYWHERE, codes, small
from planner_promises import check


def alone(prefill: tuple[str, ...] = (), proxy: tuple[str, ...] = (), **changes: Any) -> RawInventory:
    """The engine on s1 and s2."""
    variables = {**EVERYWHERE, "pd_mode": "colocated", "pd_profile": "generic", **changes}
    hosts = {f"s{n}": {"ansible_host": f"198.51.100.{n}", **variables} for n in (1, 2, 3)}
    return raw_inventory(
        "alone",
        {
            "prefiller": GroupShape(prefill, prefill, ()),
            "decoder": GroupShape(("s1", "s2"), ("s1", "s2"), ()),
            "proxy": GroupShape(proxy, proxy, ()),
        },
        hosts,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"pd_parallel": {"tensor": 16, "data": 2}},
        {"pd_parallel": {"tensor": 1, "data": 32}, "pd_dp_mode": "external", "pd_api_port": 7100},
    ],
    ids=["internal", "external"],
)
def test_there_is_no_transfer_and_no_proxy(changes: dict[str, Any]) -> None:
    plan = planner.make(alone(**changes)).to_dict()
    check(plan)
    assert plan["topology"] == "colocated"
    for share in plan["hosts"].values():
        assert share["proxy"] is None
        (engine,) = share["engines"]
        assert engine["kv_role"] is None
        assert engine["handshake_ports"] == []
        assert "--kv-transfer-config" not in engine["script"]
        assert "KV handshake" not in {row["purpose"] for row in share["ports"]}
    # Clients ask the engine's head.
    assert plan["hosts"]["s2"]["entry"] is None
    assert plan["hosts"]["s1"]["entry"] == {
        "scheme": "http",
        "container": "pd-decoder",
        "host": "198.51.100.1",
        "port": changes.get("pd_api_port", 8004),
        "secret_path": None,
    }
    files = render.files(plan)
    assert "Prefill and decode" in files["topology.svg"]
    assert "Proxy" not in files["topology.svg"]
    assert "Mooncake" not in files["topology.svg"]
    text = files["topology.md"]
    assert f"## What clients ask\n\n- s1: `http://198.51.100.1:{changes.get('pd_api_port', 8004)}`\n" in text
    assert "kv_port" not in text
    assert "Mooncake" not in text


@pytest.mark.parametrize("more", [{"prefill": ("s3",)}, {"proxy": ("s1",)}], ids=["a prefiller", "a proxy"])
def test_what_it_has_no_use_for_is_a_finding(more: dict[str, Any]) -> None:
    sizes = {"pd_parallel": {"tensor": 16, "data": 2}}
    assert "PD119" in codes(alone(**more, **sizes))
    assert "PD119" not in codes(alone(**sizes))


def test_with_separate_roles_clients_ask_the_proxies() -> None:
    for share in planner.make(small()).to_dict()["hosts"].values():
        if share["proxy"] is None:
            assert share["entry"] is None
        else:
            shown = {key: share["proxy"][key] for key in ("container", "host", "port", "secret_path")}
            assert share["entry"] == {**shown, "scheme": "http"}


def test_without_the_mode_both_roles_are_needed() -> None:
    found = codes(alone(pd_mode="disaggregated", pd_parallel={"tensor": 16, "data": 2}))
    assert {"PD110", "PD114"} <= found
    assert "PD119" not in codes(small())
