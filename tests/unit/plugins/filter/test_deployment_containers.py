# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The filter deployment_containers: each option that a container is created with shows in its label."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.filter.deployment_containers import (
    OPTIONS,
    deployment_containers,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.container_options import digest

SLICE: dict[str, Any] = {
    "container": "pd-decode1",
    "image": "vllm-ascend",
    "command": ["bash", "/etc/pd_rollout/pd/decode1.sh"],
    "mounts": [],
    "labels": {"pd_rollout.hash": "a"},
    "ready": {"nodes": [{"host": "decode1", "rank": 0}]},
}
ROLE: dict[str, Any] = {"stop_timeout": 30, "log_max_size": "100m", "log_max_file": 5}


def made(part: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    (result,) = deployment_containers([{**SLICE, **(part or {})}], **{**ROLE, **changes})
    return result


def test_a_slice_keeps_what_it_has() -> None:
    result = made()
    assert {key: result[key] for key in SLICE if key != "labels"} == {
        key: value for key, value in SLICE.items() if key != "labels"
    }
    assert result["labels"]["pd_rollout.hash"] == "a"
    assert result["log_options"] == {"max-size": "100m", "max-file": "5"}


@pytest.mark.parametrize(
    "changed",
    [
        made(stop_timeout=60),
        made(log_max_size="1g"),
        made(log_max_file=2),
        made({"shm_size": "2g"}),
        made({"devices": ["/dev/davinci0"]}),
        made({"image": "vllm-ascend:2"}),
    ],
)
def test_another_option_is_another_label(changed: dict[str, Any]) -> None:
    assert changed["labels"][OPTIONS] != made()["labels"][OPTIONS]


def test_numbers_as_text_are_the_same() -> None:
    assert made(stop_timeout="30", log_max_file="5")["labels"] == made()["labels"]


def test_a_node_of_a_group_is_not_restarted_alone() -> None:
    nodes = [{"host": "prefill1", "rank": 0}, {"host": "prefill2", "rank": 1}]
    assert made()["restart_policy"] == "unless-stopped"
    assert made({"ready": {"nodes": nodes}})["restart_policy"] == "no"
    assert made({"ready": None})["restart_policy"] == "unless-stopped"


def test_what_the_guard_starts_the_docker_engine_does_not() -> None:
    assert made({"guarded": True})["restart_policy"] == "no"
    assert made({"guarded": False})["restart_policy"] == "unless-stopped"


@pytest.mark.parametrize("size", [1, 2])
def test_with_the_guard_no_container_is_made_anew(size: int) -> None:
    ready = {"nodes": [{"host": f"prefill{rank}", "rank": rank} for rank in range(size)]}
    assert made({"ready": ready, "guarded": True})["labels"] == made({"ready": ready})["labels"]


def test_health_checks_are_those_of_the_container() -> None:
    api = {"host": "10.0.0.3", "port": 8004}
    assert made()["health"] == []
    assert made({"api": api})["health"] == [{"url": "http://10.0.0.3:8004/health", "expect": {}}]
    ranks = [{"rank": rank, "api": {**api, "port": 7100 + rank}} for rank in (0, 1)]
    assert [check["url"] for check in made({"ranks": ranks})["health"]] == [
        "http://10.0.0.3:7100/health",
        "http://10.0.0.3:7101/health",
    ]
    proxy = {"health_url": "http://10.0.0.1:8005/healthcheck", "expected": {"decode_instances": 1}}
    assert made(proxy)["health"] == [
        {"url": "http://10.0.0.1:8005/healthcheck", "expect": {"decode_instances": 1}}
    ]


def test_a_router_that_the_guard_makes_has_the_label_of_one_by_a_rollout() -> None:
    """From what the container says that serves: its policy, its log and its time to stop."""
    router = {key: value for key, value in SLICE.items() if key != "ready"}
    theirs = made({"ready": None})["labels"][OPTIONS]
    assert digest(router, "unless-stopped", {"max-size": "100m", "max-file": "5"}, 30) == theirs
    assert digest(router, "unless-stopped", {"max-size": "1g", "max-file": "5"}, 30) != theirs
