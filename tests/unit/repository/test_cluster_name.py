# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The name of an inventory: the folder's where that says it, and another one for another inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.plan import cluster_name

GROUPS = "prefiller:\n  hosts: {a: }\ndecoder:\n  hosts: {b: }\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files = {
        "my_cluster/hosts.yml": GROUPS,
        "my_cluster/README.md": GROUPS,
        "my_cluster/group_vars/all.yml": "pd_release: v0.13.0\n",
        "two/east.yml": GROUPS,
        "two/west.yml": GROUPS,
        "twins/site.yml": GROUPS,
        "twins/site.ini": "[prefiller]\na\n",
        "main/hosts.yml": GROUPS,
        "main/other.yml": GROUPS,
        "alone/prod.ini": "[prefiller]\na\n[decoder]\nb\n",
        "alone/site.yml": "- hosts: prefiller:decoder\n",
        "alone/prod.ini.bak": "[prefiller]\na\n",
        "project/inventory/hosts.yml": GROUPS,
        "project/inventory/dev.yml": GROUPS,
        "same/same.yml": GROUPS,
        "same/other.yml": GROUPS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["my_cluster"], "my_cluster"),
        (["my_cluster/hosts.yml"], "my_cluster"),
        (["alone/prod.ini"], "alone"),
        (["project/inventory"], "project"),
        (["project/inventory/hosts.yml"], "project"),
        (["project/inventory/dev.yml"], "project-dev"),
        (["two/east.yml"], "two-east"),
        (["two/west.yml"], "two-west"),
        (["two"], "two"),
        (["twins/site.yml"], "twins-site.yml"),
        (["twins/site.ini"], "twins-site.ini"),
        (["main/hosts.yml"], "main"),
        (["main/other.yml"], "main-other"),
        (["same/same.yml"], "same"),
        (["my_cluster", "two/east.yml"], "my_cluster+two-east"),
        (["two/east.yml", "my_cluster"], "two-east+my_cluster"),
        (["my_cluster", "my_cluster/hosts.yml", "missing"], "my_cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_name_of_an_inventory(site: Path, sources: list[str], name: str) -> None:
    assert cluster_name(str(site / source) for source in sources) == name


def test_lists_of_hosts_have_no_name(site: Path) -> None:
    assert cluster_name(["a,b,", str(site / "two")]) == "two"
    assert cluster_name(["a,b,"]) == "cluster"
    assert cluster_name([]) == "cluster"


def test_a_long_name_is_cut_and_stays_its_own(site: Path) -> None:
    names = set()
    for last in "xy":
        sources = [site / (letter * 60 + last) for letter in "abcd"]
        for source in sources:
            source.mkdir()
        names.add(cluster_name(map(str, sources)))
    assert len(names) == 2
    assert all(len(name) < 100 for name in names)


def test_a_script_beside_is_another_inventory(site: Path) -> None:
    script = site / "alone" / "dynamic.py"
    script.write_text("#!/usr/bin/env python3\n", encoding="utf-8")
    assert cluster_name([str(site / "alone" / "prod.ini")]) == "alone"
    script.chmod(0o755)
    assert cluster_name([str(site / "alone" / "prod.ini")]) == "alone-prod"
