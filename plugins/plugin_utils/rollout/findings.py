# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Findings: what is wrong or risky in an inventory, each with its place and its cure."""

from __future__ import annotations

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


def report(findings: Iterable[Finding], width: int = 108) -> Iterator[str]:
    """The findings as text, one short block each; the same finding on many hosts is one block."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for f in findings:
        key = (f.code, f.severity, f.instance, f.variable, f.message, f.cure, f.host is None)
        alike.setdefault(key, []).append(f)
    for same in alike.values():
        first = same[0]
        yield f"{first.severity.upper()} {first.code}  {_place(same)}"
        yield from _wrapped("", first.message, width)
        for label in ("seen", "expected"):
            yield from _wrapped(label, _per_host(same, label), width)
        yield from _wrapped("cure", first.cure, width)
        yield from _wrapped("source", first.source, width)
        yield ""


def _place(same: list[Finding]) -> str:
    """Where it is, as `prefill1, prefill2 / prefiller / pd_kv_port`."""
    first = same[0]
    hosts = [f.host for f in same if f.host is not None]
    more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
    parts = [", ".join(hosts[:3]) + more if hosts else None, first.instance, first.variable]
    return " / ".join(part for part in parts if part) or "the whole inventory"


def _per_host(same: list[Finding], label: str) -> str:
    values = [getattr(f, label) for f in same]
    if len(set(values)) == 1:
        return values[0] or ""
    shown_values = [f"{f.host}: {value}" for f, value in zip(same[:3], values[:3], strict=True)]
    return "; ".join(shown_values) + ("; …" if len(same) > 3 else "")


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
        errors = [f for f in self.findings if f.severity == ERROR]
        codes = ", ".join(sorted({f.code for f in errors}))
        noun = "error" if len(errors) == 1 else "errors"
        super().__init__(f"{len(errors)} {noun} in the inventory: {codes}")
