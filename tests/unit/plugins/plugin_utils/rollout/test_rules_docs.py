# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What stands in docs/ as generated is what the code, the data and the inventories say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from planner_inventories import ROOT


@pytest.mark.parametrize("name", ["gen_rules_docs.py", "gen_releases_docs.py", "gen_topologies_docs.py"])
def test_documents_are_current(name: str) -> None:
    script = ROOT / "scripts" / name
    done = subprocess.run(
        [sys.executable, str(script), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nrun scripts/{name}"
