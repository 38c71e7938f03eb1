# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""docs/checks.md is made from the table of checks, and every code that is used stands in that table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks.catalogue import CHECKS

ROOT = Path(__file__).resolve().parents[3]


def test_docs_are_current() -> None:
    script = ROOT / "scripts" / "gen_checks_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_code_has_its_entry() -> None:
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("checks.md", "failures.md")]
    listed = re.findall(r"(?m)^### (\S+)$", "".join(pages))
    assert sorted(set(listed) & set(CHECKS)) == sorted(CHECKS)


CODE = re.compile(
    r'"((?:canary|change|check|docker|engine|folder|front|guard|hccn|host|image|lock|npu|router|weights)-[a-z-]+)"'
)
# Words of this form that are no codes: names of programs and of containers.
OTHERS = {"npu-smi", "router-blue", "router-green"}


def used() -> set[str]:
    """What looks like a code outside of the catalogues."""
    tables = ("catalogue.py", "_findings.py")
    sources = [path for path in (ROOT / "plugins").rglob("*.py") if path.name not in tables]
    return set(CODE.findall("".join(path.read_text(encoding="utf-8") for path in sources))) - OTHERS


def test_every_check_is_used_and_every_code_is_a_check() -> None:
    assert used() == set(CHECKS)


def test_the_catalogue_is_sound() -> None:
    for code, check in CHECKS.items():
        assert code == check.code
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", code)
        assert all((check.title, check.why, check.expected, check.cure, check.source)), code
