# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""docs/checks.md is made from the table of checks, and every code that is used stands in that table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.catalogue import HCCN_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.catalogue import HOST_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._weights.catalogue import WEIGHTS_CHECKS

ROOT = Path(__file__).resolve().parents[3]


def test_docs_are_current() -> None:
    script = ROOT / "scripts" / "gen_checks_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_check_is_used() -> None:
    sources = [
        ROOT / "plugins/module_utils/_hccn/evaluate.py",
        ROOT / "plugins/plugin_utils/_checks/hccn_cluster.py",
    ]
    used = set(re.findall(r'"((?:hccn|npu)-[a-z-]+)"', "".join(path.read_text() for path in sources)))
    assert used - {"npu-smi"} == set(HCCN_CHECKS)


def test_every_host_check_is_used() -> None:
    sources = [
        ROOT / "plugins/module_utils/_host/evaluate.py",
        ROOT / "plugins/plugin_utils/_checks/host_cluster.py",
        ROOT / "plugins/plugin_utils/_checks/report.py",
    ]
    used = set(re.findall(r'"((?:host|check)-[a-z-]+)"', "".join(path.read_text() for path in sources)))
    assert used == set(HOST_CHECKS)


def test_every_check_of_weights_is_used() -> None:
    text = (ROOT / "plugins/module_utils/_weights/model_directory.py").read_text()
    used = set(re.findall(r'"(weights_[a-z_]+)"', text))
    assert used == set(WEIGHTS_CHECKS)
