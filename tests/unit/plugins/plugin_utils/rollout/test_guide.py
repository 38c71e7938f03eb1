# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guide's inventory gives the guide's commands: nothing is missing, nothing is added."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

GUIDE = yaml.safe_load((Path(__file__).parent / "fixtures" / "guide_v0.13.0.yml").read_text(encoding="utf-8"))


def flags(argv: list[str]) -> dict[str, Any]:
    """Flags by name as the fixture has them: true without a value, JSON parsed."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name = word[2:]
            assert name not in found, f"--{name} is given twice"
            found[name] = []
        elif name:
            found[name].append(word)
    return {key: _value(words) for key, words in found.items()}


def _value(words: list[str]) -> Any:
    if not words:
        return True
    if len(words) > 1:
        return words
    return json.loads(words[0]) if words[0].startswith("{") else words[0]


@pytest.mark.parametrize("host", ["prefill1", "prefill2", "decode1"])
def test_engine_is_the_guides(shipped_plan: Callable[[str], dict[str, Any]], host: str) -> None:
    (engine,) = shipped_plan("guide_1p1d")["hosts"][host]["engines"]
    expected = GUIDE["nodes"][host]
    assert engine["argv"][:3] == expected["command"]
    assert flags(engine["argv"]) == expected["flags"]
    assert engine["env"] == expected["env"]


def test_proxy_is_the_guides(shipped_plan: Callable[[str], dict[str, Any]]) -> None:
    proxy = shipped_plan("guide_1p1d")["hosts"]["prefill1"]["proxy"]
    assert proxy["argv"][:2] == GUIDE["proxy"]["command"]
    assert flags(proxy["argv"]) == GUIDE["proxy"]["flags"]


def test_what_is_known_against_the_guide(shipped_plan: Callable[[str], dict[str, Any]]) -> None:
    found = {(f["code"], f["severity"], f["host"]) for f in shipped_plan("guide_1p1d")["findings"]}
    assert {
        ("PD302", "warning", "prefill1, prefill2"),
        ("PD603", "warning", "prefill1, prefill2"),
        ("PD125", "warning", "decode1, prefill1, prefill2"),
    } <= found


@pytest.mark.parametrize(("name", "warnings"), [("simulated_1p1d", set()), ("atlas_a3_1p1d", {"PD601"})])
def test_recommended_inventories_are_quiet(
    shipped_plan: Callable[[str], dict[str, Any]], name: str, warnings: set[str]
) -> None:
    """atlas_a3_1p1d still asks for a registry: that is for its user to fill in."""
    assert {f["code"] for f in shipped_plan(name)["findings"] if f["severity"] != "hint"} == warnings


def test_recommended_ports_are_clear_of_every_range(shipped_plan: Callable[[str], dict[str, Any]]) -> None:
    for row in shipped_plan("atlas_a3_1p1d")["ports"]:
        if row["bound"]:
            for low, high in ((15000, 17000), (20000, 36000), (60000, 60031)):
                assert row["last"] < low or row["first"] > high, row


def test_no_text_of_the_plan_names_a_registry(shipped_plan: Callable[[str], dict[str, Any]]) -> None:
    text = json.dumps(shipped_plan("simulated_1p1d"))
    assert re.search(r'"image": "ascend/vllm-ascend:v0\.13\.0-a3"', text)
