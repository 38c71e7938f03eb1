# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the codes of rules and checks, and the faults that are tested, with the recorded list.

    .venv/bin/python scripts/codes.py            what is missing or not yet recorded; either exits with 1
    .venv/bin/python scripts/codes.py --record   adds what is new to the list

The list, tests/codes.yml, only grows: users quote codes in waivers, tickets and monitoring. A code that gets
another name stays in it, below `renamed`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "codes.yml"
FAULTS = ROOT / "molecule" / "faults" / "faults.yml"
# The planner and the tables need no Ansible.
sys.path.insert(0, str(ROOT))

from plugins.plugin_utils._checks.catalogue import CHECKS  # noqa: E402
from plugins.plugin_utils.rollout import plan  # noqa: E402, F401  (declares the rules)
from plugins.plugin_utils.rollout.findings import catalogue  # noqa: E402

HEAD = """\
---
# Every code that a rule or a check has had since 0.1.0, and every fault that is injected and found in
# the scenario `faults`. scripts/codes.py compares the code with this list. Nothing is taken out of it.
"""


def rules() -> list[str]:
    """The codes of the planner's rules."""
    return [rule.code for rule in catalogue()]


def checks() -> list[str]:
    """The codes of all checks, and of what else can end a run."""
    return list(CHECKS)


def faults() -> list[str]:
    """The faults that the scenario `faults` injects, as the table words them."""
    runs = yaml.safe_load(FAULTS.read_text(encoding="utf-8"))
    return [row["fault"] for run in runs for row in run["rows"]]


KINDS: dict[str, Callable[[], list[str]]] = {"rules": rules, "checks": checks, "faults": faults}


def missing(recorded: dict[str, Any], kind: str, present: Iterable[str]) -> list[str]:
    """What the list has and the code has not, under that name or its newer one."""
    renamed = recorded.get("renamed") or {}
    there = set(present)
    return sorted(
        name for name in recorded.get(kind) or () if name not in there and renamed.get(name) not in there
    )


def record(recorded: dict[str, Any], present: dict[str, list[str]]) -> None:
    """Write the list with what has been added."""
    listed = {kind: sorted({*(recorded.get(kind) or ()), *names}) for kind, names in present.items()}
    renamed = {"renamed": recorded["renamed"]} if recorded.get("renamed") else {}
    text = yaml.safe_dump({**listed, **renamed}, allow_unicode=True, sort_keys=False, width=160)
    RECORDED.write_text(HEAD + text.replace("\n- ", "\n  - "), encoding="utf-8")


def main() -> int:
    recorded = yaml.safe_load(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    present = {kind: names() for kind, names in KINDS.items()}
    if "--record" in sys.argv[1:]:
        record(recorded, present)
        return 0
    lost = False
    for kind, names in present.items():
        gone = missing(recorded, kind, names)
        new = sorted(set(names) - set(recorded.get(kind) or ()))
        print(f"{kind}: {len(set(names))}, recorded {len(recorded.get(kind) or ())}")
        for name in gone:
            print(f"  missing: {name}")
        for name in new:
            print(f"  not recorded: {name}")
        lost = lost or bool(gone or new)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
