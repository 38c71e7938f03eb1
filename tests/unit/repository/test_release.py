# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Version, changelog and `version_added` tell of the same releases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]


def loaded(name: str) -> dict[str, Any]:
    """A YAML file of the repository."""
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return found


def versions() -> set[str]:
    """Releases of the changelog, and the one that is being made."""
    return {*loaded("changelogs/changelog.yaml")["releases"], loaded("galaxy.yml")["version"]}


def test_version_added_names_a_release() -> None:
    for folder in ("plugins", "roles"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yml"):
                named = set(re.findall(r"^ *version_added: *[\"']?([\d.]+)", path.read_text(), re.MULTILINE))
                assert named <= versions(), path.relative_to(ROOT)


def test_the_changelog_is_that_of_the_releases() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"^v([\d.]+)$", text, re.MULTILINE)) == set(
        loaded("changelogs/changelog.yaml")["releases"]
    )
