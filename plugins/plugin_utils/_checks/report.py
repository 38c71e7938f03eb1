# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The report of all checks: waivers, the table on the screen, check.json and check.md. Pure functions."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ...module_utils._findings import (
    FEW,
    HINT,
    Finding,
    counted,
    errors_of,
    few,
    grouped,
    ordered,
    render_markdown,
    render_text,
)
from ...module_utils._host.catalogue import HOST_CHECKS

VERSION = 1
_WAIVER = ("code", "place", "reason", "expires")
# Findings that a rollout fixes by itself.
REPAIRED = frozenset(
    {
        *("host-deployed-stopped", "host-deployed-silent", "host-deployed-apart", "host-front-stopped"),
        *("host-guard-stopped", "host-guard-gave-up", "host-guard-left-out", "host-guard-alarm"),
    }
)
# A problem is reported once: a finding is dropped if one of these codes on the same server is its cause.
CAUSES = {
    # A server that could not be checked at all has one finding, whichever check tried.
    "host-not-checked": {"hccn-not-checked", "host-python-old"},
    "hccn-not-checked": {"host-python-old"},
    # Without root, little can be read.
    "weights-unreadable": {"host-not-root"},
}


@dataclass(frozen=True)
class Waiver:
    """A finding that is accepted for a time. ``place``: a server, or a pattern such as ``decode*``."""

    code: str
    place: str
    reason: str
    expires: datetime.date

    def meets(self, finding: Finding) -> bool:
        """Return whether the waiver covers the finding: every server that it names."""
        return self.code == finding.code and all(
            fnmatchcase(name, self.place) for name in finding.hosts or ("",)
        )


@dataclass(frozen=True)
class Waived:
    """A finding that does not count, with the waiver that covers it."""

    finding: Finding
    waiver: Waiver

    def to_dict(self) -> dict[str, Any]:
        """Return it as an entry of check.json."""
        expires = self.waiver.expires.isoformat()
        return {**self.finding.to_dict(), "waived": {"reason": self.waiver.reason, "expires": expires}}


def read_waivers(raw: Iterable[Any]) -> tuple[list[Waiver], list[Finding]]:
    """Return the valid waivers, and findings about the invalid ones."""
    waivers: list[Waiver] = []
    wrong: list[Finding] = []
    for number, entry in enumerate(raw, 1):
        problem = _problem(entry)
        expires = None if problem else _date(entry["expires"])
        if problem or expires is None:
            text = problem or f"expires {entry['expires']}, which is not a date"
            message = f"waiver {number} of check_report_waivers: {text}"
            wrong.append(HOST_CHECKS.finding("check-waiver-invalid", message, seen=str(entry)))
        else:
            # Codes of weights had underscores before.
            code = str(entry["code"]).replace("_", "-")
            waivers.append(Waiver(code, str(entry["place"]), str(entry["reason"]), expires))
    return waivers, wrong


def _problem(entry: Any) -> str:
    """Return what is wrong with the keys of a waiver; empty if nothing is."""
    if not isinstance(entry, Mapping):
        return "not a mapping"
    lacking = [key for key in _WAIVER if not str(entry.get(key) or "").strip()]
    unknown = sorted(set(map(str, entry)) - set(_WAIVER))
    if lacking:
        return f"without {', '.join(lacking)}"
    return f"with unknown {', '.join(unknown)}" if unknown else ""


def _date(value: Any) -> datetime.date | None:
    """Return a date from YAML or text; None if it is not a date."""
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(str(value).strip())
    except ValueError:
        return None


def waive(
    findings: Iterable[Finding], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[list[Finding], list[Waived]]:
    """Return the findings that count, including those about the waivers themselves, and the waived ones."""
    standing: list[Finding] = []
    waived: list[Waived] = []
    used: set[Waiver] = set()
    for finding in findings:
        fitting = [waiver for waiver in waivers if waiver.meets(finding)]
        used.update(fitting)
        valid = next((waiver for waiver in fitting if waiver.expires >= today), None)
        if valid is None:
            standing.append(finding)
        else:
            waived.append(Waived(finding, valid))
    for waiver in waivers:
        what = f"waiver of {waiver.code} at {waiver.place}"
        if waiver not in used:
            message = f"{what} matches no finding"
            standing.append(HOST_CHECKS.finding("check-waiver-unused", message, seen=waiver.reason))
        elif waiver.expires < today:
            seen = f"expired {waiver.expires.isoformat()}: {waiver.reason}"
            standing.append(HOST_CHECKS.finding("check-waiver-expired", f"{what} has expired", seen=seen))
    return standing, waived


@dataclass(frozen=True)
class Report:
    """All findings: separately for each server (``findings``), and grouped for display (``shown``)."""

    title: str
    findings: tuple[Finding, ...]
    shown: tuple[Finding, ...]
    waived: tuple[Waived, ...]
    table: tuple[str, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        return errors_of(self.shown)

    @property
    def headline(self) -> str:
        waived = f" ({len(self.waived)} waived)" if self.waived else ""
        return f"{self.title}: {counted(self.shown)}{waived}"


def make(
    title: str,
    findings: Iterable[Finding],
    waivers: Iterable[Any],
    today: datetime.date,
    table: Sequence[str] = (),
) -> Report:
    """Return the report. Findings are grouped only after waivers have been applied.

    ``waivers``: check_report_waivers as given; ``today``: the date that decides whether a waiver has expired;
    ``table``: the lines of the table of servers.
    """
    read, wrong = read_waivers(waivers)
    standing, waived = waive(one_cause(list(findings)), read, today)
    kept = ordered([*standing, *wrong])
    return Report(title, tuple(kept), tuple(ordered(grouped(kept))), tuple(_together(waived)), tuple(table))


def _together(waived: Iterable[Waived]) -> Iterator[Waived]:
    """Merge the same finding on several servers if the same waiver covers it."""
    by_waiver: dict[Waiver, list[Finding]] = {}
    for exempt in waived:
        by_waiver.setdefault(exempt.waiver, []).append(exempt.finding)
    for waiver, findings in by_waiver.items():
        yield from (Waived(finding, waiver) for finding in ordered(grouped(findings)))


def one_cause(findings: Sequence[Finding]) -> list[Finding]:
    """Drop findings whose cause is another finding on the same server."""
    places: dict[str, set[str]] = {}
    for finding in findings:
        for name in finding.hosts:
            places.setdefault(name, set()).add(finding.code)

    def said(finding: Finding) -> bool:
        causes = CAUSES.get(finding.code)
        return bool(causes and finding.hosts) and all(
            (causes or set()) & places[name] for name in finding.hosts
        )

    return [finding for finding in findings if not said(finding)]


def repaired(finding: Finding) -> Finding:
    """Return the finding as a hint if this run starts the containers again and so fixes it."""
    if finding.code not in REPAIRED:
        return finding
    return replace(finding, severity=HINT, message=f"{finding.message}; this run restarts it")


def screen(report: Report, directory: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield what is printed: lines, and the severity that determines their colour."""
    yield report.headline, None
    if report.table:
        yield "\n".join(["", *(f"  {line}" for line in report.table)]), None
    if report.shown:
        yield "", None
        yield from _rows(report.shown)
    for finding in ordered(grouped(report.findings, FEW)):
        # Hints are in the table and, in full, in check.md.
        if finding.severity != HINT:
            yield "\n".join(["", *list(render_text([finding]))[:-1]]), finding.severity
    if report.waived:
        yield "", None
    for waived in report.waived:
        until, code = waived.waiver.expires.isoformat(), waived.finding.code
        yield (
            f"waived until {until}: {code} at {few(waived.finding.hosts) or 'all'}: {waived.waiver.reason}",
            None,
        )
    if directory:
        yield f"\nFull report: {directory}/check.md, {directory}/check.json", None


def _rows(findings: Sequence[Finding]) -> Iterator[tuple[str, str | None]]:
    """Yield the table of all findings."""
    rows = [("", "code", "place", "what")]
    rows += [(finding.severity, finding.code, few(finding.hosts), finding.message) for finding in findings]
    widths = [min(40, max(len(row[at]) for row in rows)) for at in range(3)]
    for row, severity in zip(rows, [None, *(finding.severity for finding in findings)], strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        yield "  ".join([*cells, row[3]]).rstrip(), severity


def document(report: Report, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of check.json; ``head``: what it begins with."""
    return {
        "version": VERSION,
        **head,
        "ok": not report.errors,
        "findings": [finding.to_dict() for finding in report.findings],
        "waived": [exempt.to_dict() for exempt in report.waived],
    }


def markdown(report: Report, head: Mapping[str, Any]) -> str:
    """Return the content of check.md; ``head``: the values listed at its top."""
    lines = [f"# {report.headline}", ""]
    lines += [
        f"- {name}: {value}"
        for name, value in head.items()
        if value is not None and not isinstance(value, dict)
    ]
    if report.table:
        lines += ["", "```text", *report.table, "```"]
    if report.shown:
        lines += ["", "| | code | place | what |", "|---|---|---|---|"]
        lines += [
            f"| {finding.severity} | `{finding.code}` | {_cell(finding.host or '')} "
            f"| {_cell(finding.message)} |"
            for finding in report.shown
        ]
        lines += ["", "## Findings", "", *render_markdown(report.findings)]
    if report.waived:
        lines += ["", "## Waived", "", "| code | place | what | reason | until |", "|---|---|---|---|---|"]
        lines += [
            f"| `{waived.finding.code}` | {_cell(waived.finding.host or '')} "
            f"| {_cell(waived.finding.message)} | {_cell(waived.waiver.reason)} "
            f"| {waived.waiver.expires.isoformat()} |"
            for waived in report.waived
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
