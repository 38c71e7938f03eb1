# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The plan's files: complete, idempotent, well-formed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render
from planner_inventories import DECODER, PREFILLER, many, small


@pytest.fixture
def plan() -> dict[str, Any]:
    return planner.make(small()).to_dict()


def test_every_file_is_there(plan: dict[str, Any]) -> None:
    assert set(render.files(plan)) == {
        "plan.json",
        "topology.md",
        "topology.svg",
        "p1/prefiller.sh",
        "p1/proxy.sh",
        "p2/prefiller.sh",
        "d1/decoder.sh",
    }


def test_plan_json_is_the_plan(plan: dict[str, Any]) -> None:
    assert json.loads(render.files(plan)["plan.json"]) == plan
    assert plan["version"] == 1
    assert len(plan["hash"]) == 64


def test_writing_twice_changes_nothing(plan: dict[str, Any], tmp_path: Path) -> None:
    assert set(render.write(tmp_path, plan, dry_run=False)) == set(render.files(plan))
    assert render.write(tmp_path, plan, dry_run=False) == {}
    assert (tmp_path / "p1" / "prefiller.sh").stat().st_mode & 0o777 == 0o700


def test_a_dry_run_writes_nothing(plan: dict[str, Any], tmp_path: Path) -> None:
    assert render.write(tmp_path / "new", plan, dry_run=True)
    assert not (tmp_path / "new").exists()


def test_scripts_of_an_earlier_plan_go_and_foreign_files_stay(plan: dict[str, Any], tmp_path: Path) -> None:
    render.write(tmp_path, plan, dry_run=False)
    old = tmp_path / "p3" / "prefiller.sh"
    old.parent.mkdir()
    old.write_text((tmp_path / "p2" / "prefiller.sh").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "p2" / "mine.sh").write_text("echo", encoding="utf-8")
    assert set(render.write(tmp_path, plan, dry_run=True)) == {"p3/prefiller.sh"}
    assert set(render.write(tmp_path, plan, dry_run=False)) == {"p3/prefiller.sh"}
    assert not old.parent.exists()
    assert (tmp_path / "p2" / "mine.sh").exists()


def test_topology_names_every_host_and_port(plan: dict[str, Any]) -> None:
    text = render.files(plan)["topology.md"]
    for host, share in plan["hosts"].items():
        assert host in text
        assert share["address"] in text
    assert "36100-36115" in text
    assert "TP 16, PCP 2, DCP 8" in text


@pytest.mark.parametrize("pairs", [1, 3, 40])
def test_picture_is_well_formed(pairs: int) -> None:
    raw = many(
        {
            "prefiller": [(f"p{i}", [f"p{i}a", f"p{i}b"], PREFILLER) for i in range(pairs)],
            "decoder": [(f"d{i}", [f"d{i}a"], DECODER) for i in range(pairs)],
        }
    )
    text = render.files(planner.make(raw).to_dict())["topology.svg"]
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "p0a" in text
    assert len(text) < 400_000


def test_picture_tells_the_order_of_what_happens() -> None:
    pulled = render.files(planner.make(small()).to_dict())["topology.svg"]
    assert all(label in pulled for label in ("1 prompt", "2 KV cache", "3 answer"))
    layers = small(
        {"pd_kv_connector": "MooncakeLayerwiseConnector"},
        prefiller={"pd_parallel": {"tensor": 32}},
    )
    pushed = render.files(planner.make(layers).to_dict())["topology.svg"]
    assert all(label in pushed for label in ("1 request, answer", "2 prompt", "3 KV cache"))


def test_a_deployment_with_a_name_of_its_own_is_named() -> None:
    files = render.files(planner.make(small({"pd_deployment": "chat"})).to_dict())
    assert "small · chat" in files["topology.svg"]
    assert files["topology.md"].startswith("# small · chat: 1P1D\n")


def test_names_cannot_break_the_picture() -> None:
    name = 'a<b>&"c'
    raw = small({"pd_served_model_name": name})
    ElementTree.fromstring(render.files(planner.make(raw).to_dict())["topology.svg"])


def test_summary_has_the_listeners(plan: dict[str, Any]) -> None:
    text = render.summary(plan, "/plans/small", ["plan.json"], dry_run=False)
    assert "1P1D" in text
    assert "/plans/small" in text
    assert "p1    8005         proxy" in text
    assert "Mooncake" not in text
