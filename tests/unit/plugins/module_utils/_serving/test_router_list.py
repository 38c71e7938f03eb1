# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The options of a router's list, and a router as servers keep it; with plans, see test_relisted.py."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import router_list

A = {"host": "192.0.2.1", "port": 7100}
B = {"host": "192.0.2.2", "port": 7100}
C = {"host": "192.0.2.3", "port": 7101}
ALL = {"prefillers": [A, B], "decoders": [C]}


def router(kind: str, lists: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A router of a plan, without its command line."""
    options = router_list.backend_words(kind, lists["prefillers"], lists["decoders"])
    text = f"exec router --host 192.0.2.9 \\\n  {router_list.continued(options)} \\\n  --port 8000\n"
    content: dict[str, Any] = {"image": "engine:1", "mounts": [], "script": text}
    return {
        **content,
        "router": kind,
        "expected": router_list.expected_backends(kind, lists["prefillers"], lists["decoders"]),
        "labels": {
            "pd_rollout.role": "proxy",
            "pd_rollout.hash": router_list.digest(content),
            **router_list.list_labels(lists["prefillers"], lists["decoders"]),
        },
    }


def test_the_upstream_script_is_told_hosts_and_ports() -> None:
    assert router_list.backend_words("upstream", [A, B], [C]) == [
        ["--prefiller-hosts", "192.0.2.1", "192.0.2.2"],
        ["--prefiller-ports", "7100", "7100"],
        ["--decoder-hosts", "192.0.2.3"],
        ["--decoder-ports", "7101"],
    ]
    assert router_list.expected_backends("upstream", [A, B], [C]) == {
        "prefill_instances": 2,
        "decode_instances": 1,
    }


def test_vllm_router_is_told_urls() -> None:
    assert router_list.backend_words("vllm_router", [A], [C]) == [
        ["--prefill", "http://192.0.2.1:7100"],
        ["--decode", "http://192.0.2.3:7101"],
    ]
    assert router_list.expected_backends("vllm_router", [A], [C]) == {
        "prefill": ["http://192.0.2.1:7100"],
        "decode": ["http://192.0.2.3:7101"],
    }


def test_the_labels_name_the_apis() -> None:
    assert router_list.list_labels([A, B], []) == {
        "pd_rollout.prefillers": "192.0.2.1:7100,192.0.2.2:7100",
        "pd_rollout.decoders": "",
    }


@pytest.mark.parametrize("kind", ["upstream", "vllm_router"])
def test_a_router_without_its_command_line_gets_another_list(kind: str) -> None:
    """The guard's: there and back, byte for byte."""
    fewer = {"prefillers": [B], "decoders": [C]}
    whole = router(kind, ALL)
    shorter = router_list.relisted(whole, ALL, [B], [C])
    assert shorter == router(kind, fewer)
    assert router_list.relisted(shorter, fewer, [A, B], [C]) == whole == router(kind, ALL)


def test_words_are_quoted_as_in_the_launch_scripts() -> None:
    assert router_list.continued([["--a", "b c"], ["--d"]]) == "--a 'b c' \\\n  --d"
