# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the findings of all checks have in common: their fields, their order, how they are put together.

A finding is a dict with code, severity, host, instance, variable, chips, message, seen, expected, cure and
source. Those of the planner have the same fields, except chips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SEVERITIES = ("error", "warning", "hint")


def numbers(values: Iterable[int]) -> str:
    """Ranges as people write them: 0-3, 7."""
    ordered_values = sorted(set(values))
    parts: list[str] = []
    begin = 0
    for at, value in enumerate(ordered_values):
        if at + 1 == len(ordered_values) or ordered_values[at + 1] != value + 1:
            first = ordered_values[begin]
            parts.append(str(first) if first == value else f"{first}-{value}")
            begin = at + 1
    return ", ".join(parts)


def ordered(findings: Iterable[dict]) -> list[dict]:
    """Worst first, then by code and place."""
    return sorted(
        findings,
        key=lambda one: (
            SEVERITIES.index(one["severity"]),
            one["code"],
            one["host"] or "",
            one["chips"],
            one["message"],
        ),
    )


def counted(findings: Sequence[dict]) -> str:
    """`2 errors, 1 warning`, or `all good`."""
    parts = []
    for name in SEVERITIES:
        number = sum(1 for one in findings if one["severity"] == name)
        if number:
            parts.append(f"{number} {name}{'s' if number > 1 else ''}")
    return ", ".join(parts) or "all good"


def hosts_of(one: dict) -> list[str]:
    """The servers that a finding names."""
    return [name for name in (one.get("host") or "").split(", ") if name]


def grouped(findings: Iterable[dict]) -> list[dict]:
    """The same finding of several servers as one, with all their names as its place.

    What was seen, and the cure, are told apart by server where they differ.
    """
    groups: dict[tuple, list[dict]] = {}
    for one in findings:
        key = (one["code"], one["severity"], one["message"], tuple(one.get("chips") or ()))
        groups.setdefault(key, []).append(one)
    return [
        {
            **same[0],
            "host": ", ".join(dict.fromkeys(name for one in same for name in hosts_of(one))) or None,
            **{name: _told_apart(same, name) for name in ("seen", "expected", "cure")},
        }
        for same in groups.values()
    ]


def _told_apart(same: Sequence[dict], name: str) -> str | None:
    places: dict[str, list[str]] = {}
    for one in same:
        if one[name]:
            places.setdefault(str(one[name]), []).append(one.get("host") or "")
    if len(places) < 2:
        return next(iter(places), None)
    return "; ".join(f"{', '.join(hosts)}: {value}" for value, hosts in places.items())
