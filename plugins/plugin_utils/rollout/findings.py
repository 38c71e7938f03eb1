# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The planner's rules as a catalogue of findings; module_utils/_findings.py defines what a finding is."""

from __future__ import annotations

from collections.abc import Iterable

from ...module_utils._findings import (
    ERROR,
    FEW,
    HINT,
    WARNING,
    Catalogue,
    Check,
    Finding,
    RolloutError,
    Severity,
    errors_of,
    few,
    grouped,
    ordered,
    render_markdown,
    shown,
)

__all__ = [
    "ERROR",
    "FEW",
    "HINT",
    "WARNING",
    "Finding",
    "PlanError",
    "Rule",
    "Severity",
    "catalogue",
    "declare",
    "few",
    "grouped",
    "ordered",
    "render_markdown",
    "shown",
]

Rule = Check
RULES = Catalogue()

# Characters of a user's value that a finding shows.
VALUE_SHOWN = 200


def declare(code: str, severity: Severity, title: str, *, cure: str, source: str) -> Rule:
    """Add a rule to the catalogue; raises ValueError if its code is taken."""
    return RULES.declare(
        Check(code, title, severity=severity, cure=cure, source=source, limit=VALUE_SHOWN),
    )


def catalogue() -> tuple[Rule, ...]:
    """Return all declared rules, ordered by code."""
    return tuple(RULES[code] for code in sorted(RULES))


class PlanError(RolloutError):
    """The inventory cannot be planned; has every finding, not only the first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        listed = list(findings)
        # As many as are printed.
        errors = grouped(errors_of(ordered(listed)))
        codes = ", ".join(sorted({error.code for error in errors}))
        noun = "error" if len(errors) == 1 else "errors"
        super().__init__(listed, f"{len(errors)} {noun} in the inventory: {codes}")
