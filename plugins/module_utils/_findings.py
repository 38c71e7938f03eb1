# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the findings of all checks have in common: their fields, their order, how they are put together.

A finding is a dict with code, severity, host, instance, variable, chips, message, seen, expected, cure and
source. Those of the planner have the same fields, except chips.
"""

from __future__ import annotations

import re
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


def few(names: Iterable[str]) -> str:
    """Names for a screen: at most eight, of more the first two and the number of the others."""
    listed = list(names)
    if len(listed) <= 8:
        return ", ".join(listed)
    return f"{listed[0]}, {listed[1]} and {len(listed) - 2} more"


# What differs from server to server although the cause is one: addresses, processes, and how much is used or
# free. The finding of each server has them in what was seen or expected.
_ITS_OWN = re.compile(r"\b[0-9]+(?:\.[0-9]+){3}\b|\bpid [0-9]+\b|\b[0-9]+(?:\.[0-9]+)? [KMGT]?B\b")


def grouped(findings: Iterable[dict], limit: int | None = None) -> list[dict]:
    """The same finding of several servers as one, with all their names as its place; with a limit a few of
    them, for a screen.

    What was seen, and the cure, are told apart by server where they differ.
    """
    groups: dict[tuple, list[dict]] = {}
    # Two processes on one server are two findings there.
    messages: dict[tuple, list[str]] = {}
    for one in findings:
        alike = (
            one["code"],
            one["severity"],
            _ITS_OWN.sub("\0", one["message"]),
            tuple(one.get("chips") or ()),
        )
        here = messages.setdefault((*alike, one.get("host")), [])
        if one["message"] not in here:
            here.append(one["message"])
        groups.setdefault((*alike, here.index(one["message"])), []).append(one)
    return [_one(same, limit) for same in groups.values()]


def _one(same: Sequence[dict], limit: int | None) -> dict:
    names = list(dict.fromkeys(name for one in same for name in hosts_of(one)))
    message = same[0]["message"]
    if any(one["message"] != message for one in same):
        message += " ({}, and likewise the others)".format(same[0].get("host") or "")
    return {
        **same[0],
        "message": message,
        "host": (", ".join(names) if limit is None else few(names)) or None,
        **{name: _told_apart(same, name, limit) for name in ("seen", "expected", "cure")},
    }


def _told_apart(same: Sequence[dict], name: str, limit: int | None) -> str | None:
    places: dict[str, list[str]] = {}
    for one in same:
        if one[name]:
            places.setdefault(str(one[name]), []).append(one.get("host") or "")
    if len(places) < 2:
        return next(iter(places), None)
    parts = [
        "{}: {}".format(", ".join(hosts) if limit is None else few(hosts), value)
        for value, hosts in list(places.items())[:limit]
    ]
    return "; ".join(parts) + ("; …" if len(places) > len(parts) else "")
