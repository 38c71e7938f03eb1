# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The filters, by the examples of their own documentation and by what they refuse."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

PLUGINS = "ansible_collections.ascend.pd_rollout.plugins.filter"

PLAN = {
    "ports": [
        {"host": "p1", "first": 8004, "last": 8004, "purpose": "API", "instance": "prefiller", "bound": True},
        {"host": "d1", "first": 60000, "last": 60031, "purpose": "HCCL", "instance": None, "bound": False},
    ],
    "hosts": {
        "p1": {
            "ports": [
                {
                    "host": "p1",
                    "first": 8004,
                    "last": 8004,
                    "purpose": "API",
                    "instance": "prefiller",
                    "bound": True,
                }
            ]
        }
    },
}


def apply(name: str, *args: Any, **kwargs: Any) -> Any:
    return importlib.import_module(f"{PLUGINS}.{name}").FilterModule().filters()[name](*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "result"),
    [
        ("engine_ids", ([2, 1],), {}, [["0", "1"], ["2"]]),
        ("engine_ids", ([],), {}, []),
        ("kv_ports", ([2, 1],), {}, [36100, 36300]),
        ("kv_ports", ([2, 1],), {"chips": 8}, [28100, 28300]),
        ("handshake_ports", (36300, {"tensor": 2}), {}, [36300, 36301]),
        (
            "handshake_ports",
            (30000, {"tensor": 2, "prefill_context": 2}),
            {"node": 1, "nodes": 2},
            [30002, 30003],
        ),
        ("handshake_ports", ("30000",), {}, [30000]),
        ("reserved_ports", (PLAN, "p1"), {}, "8004"),
        ("port_table", (PLAN,), {}, "host  port  purpose  instance\np1    8004  API      prefiller"),
        ("port_table", (PLAN, "p1"), {}, "host  port  purpose  instance\np1    8004  API      prefiller"),
    ],
)
def test_results(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    assert apply(name, *args, **kwargs) == result


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("engine_ids", (2,), "expected a list with the number of nodes of each instance, not 2"),
        ("engine_ids", ([0],), "a whole number from 1"),
        ("engine_ids", ([100_000, 1],), "at most 100000 nodes"),
        ("kv_ports", ([1], 0), "expected chips to be a whole number from 1"),
        ("kv_ports", ([1], 16, "v9"), "a release of v0.13.0"),
        ("handshake_ports", (0,), "a whole number from 1 to 65535"),
        ("handshake_ports", (30000, {"tp": 2}), "tp is not a size"),
        ("handshake_ports", (30000, {}, 2, 2), "expected node to be a whole number from 0 to 1"),
        ("reserved_ports", ({}, "p1"), "the plan that ascend.pd_rollout.plan makes"),
        ("reserved_ports", (PLAN, "p9"), "expected a host of the plan: p1, not 'p9'"),
        ("port_table", ("x",), "the plan that ascend.pd_rollout.plan makes"),
    ],
)
def test_refusals_are_sentences(name: str, args: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"ascend.pd_rollout.{name}: ") as caught:
        apply(name, *args)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "name", ["engine_ids", "kv_ports", "handshake_ports", "reserved_ports", "port_table"]
)
def test_documentation_is_complete(name: str) -> None:
    module = importlib.import_module(f"{PLUGINS}.{name}")
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["name"] == name
    assert documentation["version_added"] == "0.1.0"
    assert "# =>" in module.EXAMPLES
    assert yaml.safe_load(module.RETURN)["_value"]["type"]
