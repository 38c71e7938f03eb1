# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the generators of documentation share: they write their files, or say which are not current.

    from doc_generator import ROOT, main
    from plugins.plugin_utils.rollout import …

Importing it makes the planner and the tables importable from the repository's root, without Ansible.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(documents: Callable[[], Mapping[str, str]]) -> int:
    """Run a generator.

    documents: makes the texts of its files, by their paths below the repository's root.
    Returns the exit code: 1 if files are not current and `--check` asks for no more than that.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail unless all is current")
    check = parser.parse_args().check
    stale = []
    for name, text in documents().items():
        path = ROOT / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if not stale:
        return 0
    if check:
        print(f"not current, run `make docs`: {', '.join(stale)}", file=sys.stderr)
        return 1
    print(f"written: {', '.join(stale)}")
    return 0
