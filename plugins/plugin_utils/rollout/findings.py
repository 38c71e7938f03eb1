# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Findings: what is wrong or risky in an inventory, each with its place and its cure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "hint"]

ERROR: Severity = "error"
WARNING: Severity = "warning"
HINT: Severity = "hint"

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "hint": 2}


@dataclass(frozen=True)
class Finding:
    """One finding. ``host``, ``instance`` and ``variable`` are its place, each None where it does not
    apply."""

    code: str
    severity: Severity
    host: str | None
    instance: str | None
    variable: str | None
    message: str
    seen: str | None
    expected: str | None
    cure: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """What a code means: the entry of the catalogue that ``docs/rules.md`` is made from."""

    code: str
    severity: Severity
    title: str
    cure: str
    source: str

    def at(
        self,
        message: str,
        *,
        host: str | None = None,
        instance: str | None = None,
        variable: str | None = None,
        seen: object = None,
        expected: object = None,
        cure: str | None = None,
    ) -> Finding:
        return Finding(
            code=self.code,
            severity=self.severity,
            host=host,
            instance=instance,
            variable=variable,
            message=message,
            seen=None if seen is None else shown(seen),
            expected=None if expected is None else shown(expected),
            cure=cure or self.cure,
            source=self.source,
        )


_CATALOGUE: dict[str, Rule] = {}


def declare(code: str, severity: Severity, title: str, *, cure: str, source: str) -> Rule:
    """Enter a rule into the catalogue; a code stands for one rule only."""
    if code in _CATALOGUE:
        raise ValueError(f"two rules have the code {code}")
    rule = Rule(code, severity, title, cure, source)
    _CATALOGUE[code] = rule
    return rule


def catalogue() -> tuple[Rule, ...]:
    """Every rule that has been declared, by code."""
    return tuple(_CATALOGUE[code] for code in sorted(_CATALOGUE))


def shown(value: object, limit: int = 200) -> str:
    """A value as one short line for people."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then by code and place, so that two runs print the same; each finding once."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda f: (
            _RANK[f.severity],
            f.code,
            f.instance or "",
            f.host or "",
            f.variable or "",
            f.message,
        ),
    )


@dataclass(frozen=True)
class Group:
    """What one cause makes of a rule: findings that are alike but for their places and what was seen
    there."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        return self.findings[0]

    @property
    def message(self) -> str:
        """The message of the first; where it names its place, it says of the others that they are alike."""
        alike = all(f.message == self.first.message for f in self.findings)
        return self.first.message if alike else f"{self.first.message} (and likewise the others)"

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.host for f in self.findings if f.host is not None))

    @property
    def instances(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.instance for f in self.findings if f.instance is not None))

    def to_dict(self) -> dict[str, Any]:
        """As one finding, with all of its hosts and instances as the place."""
        return {
            **self.first.to_dict(),
            "message": self.message,
            "host": ", ".join(self.hosts) or None,
            "instance": ", ".join(self.instances) or None,
            "seen": self.told_apart("seen", None),
            "expected": self.told_apart("expected", None),
        }

    def told_apart(self, field: str, limit: int | None = 3) -> str | None:
        """A field's value; where places differ in it, each value with its places, for people a few of
        them."""
        places: dict[str, dict[str, None]] = {}
        for f in self.findings:
            value = getattr(f, field)
            if value is not None:
                places.setdefault(value, {})[f.host or f.instance or ""] = None
        if len(places) < 2:
            return next(iter(places), None)
        parts = [
            f"{few(named) if limit else ', '.join(named)}: {value}"
            for value, named in list(places.items())[:limit]
        ]
        return "; ".join(parts) + ("; …" if len(places) > len(parts) else "")


# Names of groups, and ordinary words of the messages.
_ROLE_WORDS = frozenset({"prefiller", "decoder", "proxy"})


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """One group for each cause: a setting of all instances that breaks a rule in sixty of them is one.

    Findings with one message are one, whatever was seen at each place. Where a message names instances or
    hosts, those with other names in it are the same where the same was seen.
    """
    listed = list(findings)
    names = {f.host for f in listed} | {f.instance for f in listed}
    groups: list[list[Finding]] = []
    known: dict[tuple[object, ...], list[Finding]] = {}
    for f in listed:
        place = (f.code, f.severity, f.variable, f.host is None, f.instance is None, f.cure, f.source)
        same, alike = (*place, f.message), (*place, _unnamed(f.message, f, names), _unnamed(f.seen, f, names))
        group = known.get(same) or known.get(alike)
        if group is None:
            group = []
            groups.append(group)
        group.append(f)
        known.setdefault(same, group)
        known.setdefault(alike, group)
    return [Group(tuple(group)) for group in groups]


def _unnamed(text: str | None, f: Finding, names: set[str | None]) -> str:
    """A text without the names of instances and hosts. The word for a role is a name only at its own
    place."""

    def blank(match: re.Match[str]) -> str:
        word = match[0].rstrip(".")
        named = word in names and (word not in _ROLE_WORDS or word in (f.host, f.instance))
        return "\0" + match[0][len(word) :] if named else match[0]

    return re.sub(r"\w[\w.-]*", blank, text or "")


def few(names: Iterable[str]) -> str:
    """Names for people: at most three, of more the first two and the number of the others."""
    listed = list(names)
    if len(listed) <= 3:
        return ", ".join(listed)
    return f"{listed[0]}, {listed[1]} and {len(listed) - 2} more"


def report(findings: Iterable[Finding], width: int = 108) -> Iterator[str]:
    """The findings as text, one short block for each cause."""
    for group in grouped(findings):
        first = group.first
        yield f"{first.severity.upper()} {first.code}  {_place(group)}"
        yield from _wrapped("", group.message, width)
        for label in ("seen", "expected"):
            yield from _wrapped(label, group.told_apart(label) or "", width)
        yield from _wrapped("cure", first.cure, width)
        yield from _wrapped("source", first.source, width)
        yield ""


def _place(group: Group) -> str:
    """Where it is, as `prefill1, prefill2 / prefiller / pd_kv_port`."""
    parts = [few(group.hosts), few(group.instances), group.first.variable]
    return shown(" / ".join(part for part in parts if part), 400) or "the whole inventory"


def _wrapped(label: str, text: str, width: int) -> Iterator[str]:
    if not text:
        return
    indent = "  " + " " * (10 if label else 0)
    line = f"  {label:<10}" if label else "  "
    filled = False
    for word in text.split():
        if filled and len(line) + len(word) + 1 > width:
            yield line.rstrip()
            line, filled = indent, False
        line += (" " if filled else "") + word
        filled = True
    yield line.rstrip()


class PlanError(Exception):
    """The inventory cannot be planned; carries every finding, not only the first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = ordered(findings)
        # As many as report() prints.
        errors = [group for group in grouped(self.findings) if group.first.severity == ERROR]
        codes = ", ".join(sorted({group.first.code for group in errors}))
        noun = "error" if len(errors) == 1 else "errors"
        super().__init__(f"{len(errors)} {noun} in the inventory: {codes}")
