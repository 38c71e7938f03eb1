# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Every role names the same platforms, licence and oldest ansible-core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "roles").glob("*/meta/main.yml"))
SAME = ("author", "license", "min_ansible_version", "platforms")


def info(file: Path) -> dict[str, Any]:
    """The `galaxy_info` of one role."""
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["galaxy_info"]
    return loaded


def test_each_role_has_one() -> None:
    assert [file.parents[1] for file in FILES] == sorted(
        path for path in (ROOT / "roles").iterdir() if path.is_dir()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parents[1].name)
def test_roles_agree(file: Path) -> None:
    assert {key: info(file)[key] for key in SAME} == {key: info(FILES[0])[key] for key in SAME}


def test_oldest_ansible_core_is_that_of_the_collection() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert runtime["requires_ansible"].startswith(f">={info(FILES[0])['min_ansible_version']}.")
