# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Requirements survive the way from the controller to the server, which is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import (
    HostRequirements,
    Limits,
    PlannedContainer,
    PlannedGuard,
    PlannedPorts,
    RankHealth,
)

LEAST: dict[str, Any] = {
    "address": "10.0.0.11",
    "directory": "/etc/pd_rollout/pd",
    "chips": [0, 1],
    "devices": ["/dev/davinci0", "/dev/davinci1"],
    "paths": [],
    "ports": [],
    "peers": {},
}
FULL = HostRequirements(
    **{
        **LEAST,
        "chips": (0, 1),
        "devices": ("/dev/davinci0", "/dev/davinci1"),
        "paths": ("/usr/local/dcmi",),
        "ports": (PlannedPorts(8004, 8004, "API", "p", bound=True), PlannedPorts(60000, 60031, "HCCL")),
        "peers": {"decode1": "10.0.0.13"},
    },
    name="prefill1",
    deployment="pd",
    image="ascend/vllm-ascend:v0.13.0-a3",
    interface="eth0",
    driver="25.5.0",
    firmware="7.8.0.2.212",
    npu_smi="/usr/local/bin/npu-smi",
    clients=("decode1",),
    shm=2**30,
    advertise=("10.0.0.11", None),
    guard=PlannedGuard("pd-guard", "/run/pd-guard"),
    serving=(
        PlannedContainer(
            "pd-p", "p", "/etc/pd_rollout/pd/p.sh", "p", health_url="http://10.0.0.11:8004/health"
        ),
        PlannedContainer("pd-d", "d", "/d.sh", "d", ranks=(RankHealth(0, "http://10.0.0.11:7100/health"),)),
        PlannedContainer("pd-proxy", "proxy", "/proxy.sh", expect={"decode_instances": 1}),
    ),
)


@pytest.mark.parametrize(
    "requirements", [FULL, HostRequirements.from_dict(LEAST)], ids=["everything", "only what has no default"]
)
def test_they_are_read_as_they_were_written(requirements: HostRequirements) -> None:
    written = json.loads(json.dumps(requirements.to_dict()))
    assert written == requirements.to_dict(), "lists, no tuples"
    assert HostRequirements.from_dict(written) == requirements


def test_the_keys_of_a_container() -> None:
    assert set(FULL.to_dict()["serving"][1]) == {
        "container",
        "title",
        "instance",
        "script_path",
        "group",
        "health_url",
        "expect",
        "ranks",
        "colour",
    }
    assert FULL.to_dict()["serving"][1]["ranks"] == [
        {"rank": 0, "health_url": "http://10.0.0.11:7100/health"}
    ]


def test_unknown_keys_and_null_are_ignored() -> None:
    more = {**LEAST, "later": 1, "clients": None, "serving": None, "image": None}
    assert HostRequirements.from_dict(more) == HostRequirements.from_dict(LEAST)


@pytest.mark.parametrize("key", LEAST)
def test_a_missing_key_is_no_empty_requirement(key: str) -> None:
    with pytest.raises(TypeError, match=key):
        HostRequirements.from_dict({name: value for name, value in LEAST.items() if name != key})


@pytest.mark.parametrize(("port", "covered"), [(36099, False), (36100, True), (36103, True), (36104, False)])
def test_both_ends_of_a_range_are_in_it(port: int, covered: bool) -> None:
    assert PlannedPorts(36100, 36103, "KV handshake").covers(port) is covered


@pytest.mark.parametrize(
    ("container", "urls"),
    [
        (FULL.serving[0], ["http://10.0.0.11:8004/health"]),
        (FULL.serving[1], ["http://10.0.0.11:7100/health"]),
        (FULL.serving[2], []),
    ],
    ids=["one API server", "a server for each rank", "none"],
)
def test_what_is_asked_whether_it_serves(container: PlannedContainer, urls: list[str]) -> None:
    assert container.health_urls == urls


def test_limits_are_options_of_the_check() -> None:
    options = {"image_gigabytes": 20.0, "weights_path": "/w", "timeout": 10.0}
    assert Limits.from_options(options) == Limits(image_gigabytes=20.0, weights_path="/w")
