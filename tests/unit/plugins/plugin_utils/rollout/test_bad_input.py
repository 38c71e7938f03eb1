# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What people get wrong in an inventory: each is a finding with its place and its cure."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    RawInventory,
    raw_inventory,
)
from planner_inventories import DECODER, PREFILLER, findings, many, small
from planner_promises import check

TP16 = {"pd_profile": "generic", "pd_parallel": {"tensor": 16}}
TP8 = {"pd_profile": "generic", "pd_parallel": {"tensor": 8}}


def beside(first: str, second: str) -> RawInventory:
    """Prefiller and decoder on one host, with these chips."""
    return many(
        {
            "prefiller": [("p", ["a"], {**TP8, "pd_chips": first})],
            "decoder": [("d", ["a"], {**TP8, "pd_chips": second, "pd_api_port": 8104})],
        }
    )


# name: what is wrong, what is right; then code, host, instance and variable of the finding
CASES: dict[str, tuple[RawInventory, RawInventory, tuple[str, str | None, str | None, str | None]]] = {
    "two hosts with one address": (
        small(hosts={"p2": {"ansible_host": "198.51.100.1"}}),
        small(),
        ("PD124", "p2", None, "ansible_host"),
    ),
    "IPv6": (
        small(hosts={"d1": {"pd_node_ip": "fd00::3"}}),
        small(hosts={"d1": {"pd_node_ip": "198.51.100.9"}}),
        ("PD123", "d1", None, "pd_node_ip"),
    ),
    "overlapping chips": (beside("0-8", "8-15"), beside("0-7", "8-15"), ("PD205", "a", "d", "pd_chips")),
    "an empty group": (
        many({"prefiller": [("p", ["a"], TP16), ("q", [], {})], "decoder": [("d", ["b"], TP16)]}),
        many({"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], TP16)]}),
        ("PD111", None, "q", None),
    ),
    "a decoder without prefiller": (
        many({"prefiller": [], "decoder": [("d", ["b"], TP16)]}),
        small(),
        ("PD110", None, "prefiller", None),
    ),
    "no proxy": (small(proxy=()), small(), ("PD114", None, None, None)),
    "a number as text": (
        small(hosts={"d1": {"pd_api_port": "8104"}}),
        small(hosts={"d1": {"pd_api_port": 8104}}),
        ("PD109", "d1", "decoder", "pd_api_port"),
    ),
    "text that is no number": (
        small(hosts={"d1": {"pd_api_port": "eighty"}}),
        small(),
        ("PD102", "d1", "decoder", "pd_api_port"),
    ),
    "a percentage for a port": (
        small(hosts={"d1": {"pd_api_port": "80%"}}),
        small(),
        ("PD102", "d1", "decoder", "pd_api_port"),
    ),
    "a source of the image that nobody knows": (
        small(everywhere={"pd_image_source": "tarball"}),
        small(everywhere={"pd_image_source": "archive", "pd_image_archive": "/mnt/image.tar"}),
        ("PD102", None, None, "pd_image_source"),
    ),
    "a percentage for a flag": (
        small(decoder={"pd_engine_args": {"gpu-memory-utilization": "90%"}}),
        small(decoder={"pd_engine_args": {"gpu-memory-utilization": 0.9}}),
        ("PD419", "d1", "decoder", "pd_engine_args"),
    ),
    "a negative port": (
        small(hosts={"d1": {"pd_api_port": -1}}),
        small(),
        ("PD102", "d1", "decoder", "pd_api_port"),
    ),
    "a port above 65535": (
        small(hosts={"d1": {"pd_api_port": 65536}}),
        small(hosts={"d1": {"pd_api_port": 65535}}),
        ("PD102", "d1", "decoder", "pd_api_port"),
    ),
    "ranks whose ports go above 65535": (
        many(
            {
                "prefiller": [("p", ["a"], TP16)],
                "decoder": [
                    (
                        "d",
                        ["b"],
                        {
                            "pd_profile": "generic",
                            "pd_dp_mode": "external",
                            "pd_parallel": {"data": 16},
                            "pd_api_port": 65530,
                        },
                    )
                ],
            }
        ),
        small(),
        ("PD305", "b", "d", "pd_api_port"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_finding_with_place_and_cure(name: str) -> None:
    wrong, right, place = CASES[name]
    found = [f for f in findings(wrong) if f.code == place[0]]
    assert [(f.code, f.host, f.instance, f.variable) for f in found] == [place]
    assert found[0].message
    assert found[0].cure
    assert place[0] not in {f.code for f in findings(right)}


def test_a_percentage_is_told_once() -> None:
    raw = small(decoder={"pd_engine_args": {"gpu-memory-utilization": "90%"}})
    (finding,) = [f for f in findings(raw) if f.severity == "error"]
    assert finding.code == "PD419"
    assert finding.expected == "gpu-memory-utilization: 0.9"


def test_an_inventory_without_any_host() -> None:
    nothing = GroupShape((), (), ())
    found = findings(raw_inventory("none", {"prefiller": nothing, "decoder": nothing, "proxy": nothing}, {}))
    assert [(f.code, f.instance) for f in found if f.severity == "error"] == [
        ("PD110", "decoder"),
        ("PD110", "prefiller"),
        ("PD114", None),
    ]


def instances(changes: dict[str, Any]) -> RawInventory:
    """A thousand instances, half of them with two ranks that have a server each."""
    ranks = {"pd_profile": "generic", "pd_dp_mode": "external", "pd_parallel": {"tensor": 8, "data": 2}}
    return many(
        {
            "prefiller": [(f"p{i}", [f"p{i}a"], {**ranks, **changes}) for i in range(500)],
            "decoder": [(f"d{i}", [f"d{i}a"], {**ranks, **changes}) for i in range(500)],
        },
        everywhere={"pd_proxy_port": 1999},
    )


def test_a_thousand_instances_are_planned_quickly() -> None:
    """The bound is loose for busy machines."""
    raw = instances({})
    start = time.process_time()
    plan = planner.make(raw).to_dict()
    assert time.process_time() - start < 10
    assert len(plan["proxy"]["decoders"]) == 1000
    assert len(plan["instances"]) == 1000


def test_a_thousand_wrong_instances_are_told_quickly_and_as_few() -> None:
    raw = instances({"pd_api_port": 65536, "pd_engine_args": {"gpu-memory-utilisation": 0.9}})
    start = time.process_time()
    found = findings(raw)
    assert time.process_time() - start < 10
    assert len([f for f in found if f.code == "PD102"]) == 1


def test_mixed_chip_counts() -> None:
    """Instances may differ in the chips of their servers; the nodes of one need the same number."""
    small_server = {"pd_chips_per_node": 8, "pd_profile": "generic", "pd_parallel": {"tensor": 8}}
    plan = planner.make(
        many({"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], small_server)]})
    ).to_dict()
    check(plan)
    assert plan["hosts"]["b"]["chips"] == list(range(8))
    raw = small(hosts={"p2": {"pd_chips_per_node": 8}}, prefiller=PREFILLER, decoder=DECODER)
    assert ("PD203", "p2") in {(f.code, f.host) for f in findings(raw)}


def test_a2_servers() -> None:
    """Eight chips, the image without -a3, KV ports right above the smaller AscendDirectTransport range."""
    a2 = {"pd_server": "atlas-a2", "pd_image": ..., "pd_image_registry": "r.example"}
    raw = small(
        a2,
        prefiller={"pd_parallel": {"tensor": 8, "prefill_context": 2}},
        decoder={"pd_parallel": {"tensor": 8}},
    )
    plan = planner.make(raw).to_dict()
    assert plan["image"] == "r.example/ascend/vllm-ascend:v0.13.0"
    assert plan["hosts"]["d1"]["chips"] == list(range(8))
    assert plan["instances"][0]["kv_port"] == 28100
    assert "/dev/davinci8" not in plan["hosts"]["d1"]["engines"][0]["devices"]


HEX = "0123456789ab" + 52 * "f"


@pytest.mark.parametrize(
    ("image", "name", "digest"),
    [
        ("r.example:5000/a/b:v1", "r.example:5000/a/b:v1", ""),
        (f"r.example:5000/a/b:v1@sha256:{HEX}", "r.example:5000/a/b:v1", f"sha256:{HEX}"),
        (f"r.example:5000/a/b@sha256:{HEX}", "r.example:5000/a/b:pinned-0123456789ab", f"sha256:{HEX}"),
    ],
    ids=["tag", "tag and digest", "digest"],
)
def test_an_image_may_be_pinned(image: str, name: str, digest: str) -> None:
    raw = small({"pd_image": image}, prefiller=PREFILLER, decoder=DECODER)
    plan = planner.make(raw).to_dict()
    assert (plan["image"], plan["image_digest"]) == (name, digest)
    assert {engine["image"] for host in plan["hosts"].values() for engine in host["engines"]} == {name}


def test_half_a_digest_is_a_finding() -> None:
    raw = small({"pd_image": "r.example/a/b@sha256:0123"}, prefiller=PREFILLER, decoder=DECODER)
    assert any(finding.variable == "pd_image" for finding in findings(raw))


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        ("Harbor.Corp:8443/ai/vllm:Build-7", True),
        ("MIRROR/ai/vllm:1", True),
        ("localhost/vllm", True),
        ("sha256:" + HEX, True),
        ("harbor.corp/AI/vllm:1", False),
        ("Vllm:1", False),
        ("https://registry.example/ascend/vllm-ascend:v0.13.0-a3", False),
    ],
)
def test_an_image_is_named_as_docker_takes_it(image: str, taken: bool) -> None:
    raw = small({"pd_image": image}, prefiller=PREFILLER, decoder=DECODER)
    refused = [f for f in findings(raw) if (f.code, f.variable) == ("PD102", "pd_image")]
    assert bool(refused) is not taken
