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
        ("engine_ids", ({"p": 2, "d": 1},), {}, {"p": ["p-0", "p-1"], "d": ["d-0"]}),
        ("engine_ids", ([{"name": "p", "nodes": ["a", "b"]}],), {}, {"p": ["p-0", "p-1"]}),
        ("engine_ids", ({},), {}, {}),
        ("kv_ports", ({"p": 2, "d": 1},), {}, {"p": 36100, "d": 36100}),
        ("kv_ports", ({"p": 2, "d": 1},), {"chips": 8}, {"p": 28100, "d": 28100}),
        (
            "kv_ports",
            (
                [
                    {"name": "p", "nodes": ["a"], "chips": "0-7"},
                    {"name": "d", "nodes": ["a"], "chips": "8-15"},
                ],
            ),
            {},
            {"p": 36100, "d": 36900},
        ),
        (
            "kv_ports",
            ([{"name": "p", "nodes": ["a"]}, {"name": "d", "nodes": ["a"]}],),
            {},
            {"p": 36100, "d": 36200},
        ),
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
        ("engine_ids", (2,), "expected instances: their names with numbers of nodes, or a list, not 2"),
        ("engine_ids", ([2, 1],), "expected an instance with name, nodes and chips, not 2"),
        ("engine_ids", ([{"name": "p", "hosts": ["a"]}],), "expected an instance with name, nodes and chips"),
        ("engine_ids", ({"p/q": 1},), "expected the name of an instance"),
        ("engine_ids", ([{"name": "p"}, {"name": "p"}],), "expected each instance once, not 'p'"),
        ("engine_ids", ([{"name": "p", "nodes": []}],), "nodes to be a number or the names of servers"),
        ("engine_ids", ({"p": 0},), "a whole number from 1"),
        ("engine_ids", ({"p": 100_000, "d": 1},), "at most 100000 nodes"),
        ("kv_ports", ([{"name": "p", "chips": "x"}],), "expected chip numbers"),
        ("kv_ports", ({"p": 1}, 0), "expected chips to be a whole number from 1"),
        ("kv_ports", ({"p": 1}, 16, "v9"), "a release of v0.13.0"),
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
