# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The tarball holds what a user of the installed collection needs, and nothing of its development."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = {
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "docs",
    "inventory",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths in the tarball that `ansible-galaxy collection build` makes of this checkout."""
    folder = tmp_path_factory.mktemp("tarball")
    galaxy = Path(sys.executable).parent / "ansible-galaxy"
    built = subprocess.run(
        [str(galaxy), "collection", "build", "--output-path", str(folder)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


def test_top_level_entries(shipped: set[str]) -> None:
    assert {name.split("/")[0] for name in shipped} == ALLOWED


def test_no_file_of_development(shipped: set[str]) -> None:
    odd = [
        name
        for name in shipped
        if name.endswith((".pyc", "ansible.cfg")) or "/." in name or name.startswith("changelogs/fragments/")
    ]
    assert not odd
    assert {name for name in shipped if name.startswith("changelogs/")} == {"changelogs/changelog.yaml"}
