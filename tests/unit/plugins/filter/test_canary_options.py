# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The filter canary_options: who asks, and what."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ascend.pd_rollout.plugins.filter.canary_options import canary_options
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.canary import table

API = {"host": "10.0.0.1", "port": 8004}


def engine(instance: str, **more: Any) -> dict[str, Any]:
    """One engine of a plan, as far as the filter reads it."""
    return {"instance": instance, "api": API, "ranks": [], "secret_path": "/etc/pd_rollout/pd/key", **more}


def ranks(*ports: int) -> list[dict[str, Any]]:
    return [{"api": {"host": "10.0.0.2", "port": port}} for port in ports]


def plan(**more: Any) -> dict[str, Any]:
    """A prefiller on two nodes, and a decoder on two with an API for each rank."""
    router = {"secret_path": "/etc/pd_rollout/pd/router-key"}
    headless = engine("prefill", api=None)
    return {
        "protocol": "pull",
        "release": {"name": "v0.13.0"},
        "model": {"served_name": "deepseek_v3"},
        "instances": [
            {"name": "prefill", "role": "prefiller", "nodes": ["p1", "p2"]},
            {"name": "decode", "role": "decoder", "nodes": ["d1", "d2"]},
        ],
        "hosts": {
            "p1": {"address": "10.0.0.1", "engines": [engine("prefill")], "routers": [router]},
            "p2": {"address": "10.0.0.9", "engines": [headless], "routers": [router]},
            "d1": {
                "address": "10.0.0.2",
                "engines": [engine("decode", ranks=ranks(7100, 7101))],
                "routers": [],
            },
            "d2": {"address": "10.0.0.3", "engines": [engine("decode", ranks=ranks(7102))], "routers": []},
        },
        **more,
    }


HOSTS = ["p1", "p2", "d1", "d2"]


def test_the_options_are_those_of_the_plan() -> None:
    assert canary_options(plan(), "p1", HOSTS, port="9000") == {
        "prefillers": [{"instance": "prefill", "apis": [API]}],
        "decoders": [
            {
                "instance": "decode",
                "apis": [{"host": "10.0.0.2", "port": port} for port in (7100, 7101, 7102)],
            }
        ],
        "protocol": "pull",
        "listen": {"host": "10.0.0.1", "port": 9000},
        "release": "v0.13.0",
        "model": "deepseek_v3",
        "api_key_file": "/etc/pd_rollout/pd/router-key",
    }


def asking(given: dict[str, Any], hosts: list[str], **options: Any) -> list[str]:
    return [host for host in hosts if canary_options(given, host, hosts, **options)]


def test_the_first_router_of_the_run_asks_or_each_of_them() -> None:
    assert asking(plan(), HOSTS) == ["p1"]
    assert asking(plan(), ["p2", "d1", "d2"]) == ["p2"]
    assert asking(plan(), HOSTS, every_router=True) == ["p1", "p2"]
    assert asking(plan(), ["d1", "d2"]) == []


def test_without_routers_the_head_of_a_decoder_asks() -> None:
    given = plan()
    for share in given["hosts"].values():
        share["routers"] = []
    assert asking(given, HOSTS) == ["d1"]
    assert canary_options(given, "d1", HOSTS)["api_key_file"] == "/etc/pd_rollout/pd/key"


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(AnsibleFilterError, match="port"):
        canary_options(plan(), "p1", HOSTS, port=70000)


def test_the_table_has_a_row_for_each_pair() -> None:
    pair = {"prefiller": "prefill_a", "decoder": "d", "ok": True, "transferred": 0.99, "seconds": 0.42}
    bad = {**pair, "prefiller": "", "ok": False, "transferred": None}
    assert table([pair, bad]) == [
        "pair           answers  transferred  seconds",
        "prefill_a → d  good             99%      0.4",
        "d              bad                -      0.4",
    ]
