# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle replaces an earlier one, and nothing else that has a list of sums."""

from __future__ import annotations

import runpy
from pathlib import Path

BUNDLE = runpy.run_path(str(Path(__file__).resolve().parents[3] / "scripts" / "bundle.py"))


def test_only_a_bundle_is_replaced(tmp_path: Path) -> None:
    is_bundle, readme = BUNDLE["is_bundle"], BUNDLE["README"]
    assert not is_bundle(tmp_path)
    (tmp_path / "SHA256SUMS").write_text("", encoding="utf-8")
    assert not is_bundle(tmp_path)
    (tmp_path / "README.md").write_text("# Weights\n", encoding="utf-8")
    assert not is_bundle(tmp_path)
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    assert is_bundle(tmp_path)
