# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The one report of all checks: waivers, the table on the screen, check.json and check.md. Pure functions."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ...module_utils._findings import counted, few, grouped, hosts_of, ordered
from ...module_utils._host.catalogue import host_finding

VERSION = 1
WIDTH = 108
_WAIVER = ("code", "place", "reason", "expires")
# How many values are told apart where servers differ.
_ON_SCREEN = 8
# What a rollout that goes on cures by itself.
REPAIRED = frozenset({"host-deployed-stopped", "host-deployed-silent", "host-deployed-apart"})
_FIELDS = ("seen", "expected", "cure", "source")


@dataclass(frozen=True)
class Waiver:
    """A finding that somebody takes responsibility for. `place`: a server, or a pattern such as `decode*`."""

    code: str
    place: str
    reason: str
    expires: datetime.date

    def meets(self, one: Mapping[str, Any]) -> bool:
        """Every server that the finding names must be waived."""
        places = hosts_of(dict(one)) or [""]
        return self.code == one["code"] and all(fnmatchcase(name, self.place) for name in places)


def read_waivers(raw: Iterable[Any]) -> tuple[list[Waiver], list[dict[str, Any]]]:
    """Waivers, and what is wrong with those that cannot be read."""
    waivers: list[Waiver] = []
    wrong: list[dict[str, Any]] = []
    for number, one in enumerate(raw, 1):
        problem = ""
        expires = None
        if not isinstance(one, Mapping):
            problem = "not a mapping"
        else:
            unknown = sorted(set(map(str, one)) - set(_WAIVER))
            lacking = [
                key for key in ("code", "place", "reason", "expires") if not str(one.get(key) or "").strip()
            ]
            if lacking:
                problem = f"without {', '.join(lacking)}"
            elif unknown:
                problem = f"with unknown {', '.join(unknown)}"
            else:
                expires = _date(one["expires"])
                problem = "" if expires else f"expires {one['expires']}, which is no date"
        if problem or expires is None:
            wrong.append(
                host_finding(
                    "check-waiver-invalid", f"waiver {number} of check_waivers: {problem}", seen=str(one)
                )
            )
        else:
            waivers.append(Waiver(str(one["code"]), str(one["place"]), str(one["reason"]), expires))
    return waivers, wrong


def _date(value: Any) -> datetime.date | None:
    """A date as YAML or a text gives it."""
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(str(value).strip())
    except ValueError:
        return None


def waive(
    findings: Iterable[dict[str, Any]], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Findings that stand, with those about the waivers themselves; and the waived ones with their reason."""
    standing: list[dict[str, Any]] = []
    waived: list[dict[str, Any]] = []
    used: set[Waiver] = set()
    for one in findings:
        fitting = [waiver for waiver in waivers if waiver.meets(one)]
        used.update(fitting)
        valid = next((waiver for waiver in fitting if waiver.expires >= today), None)
        if valid is None:
            standing.append(one)
        else:
            waived.append({**one, "waived": {"reason": valid.reason, "expires": valid.expires.isoformat()}})
    for waiver in waivers:
        what = f"waiver of {waiver.code} at {waiver.place}"
        if waiver not in used:
            standing.append(
                host_finding("check-waiver-unused", f"{what} meets no finding", seen=waiver.reason)
            )
        elif waiver.expires < today:
            standing.append(
                host_finding(
                    "check-waiver-expired",
                    f"{what} has expired",
                    seen=f"expired {waiver.expires.isoformat()}: {waiver.reason}",
                )
            )
    return standing, waived


@dataclass(frozen=True)
class Report:
    """All findings, told apart by server (`findings`), put together for people (`shown`), and cut for a
    screen (`brief`)."""

    title: str
    findings: tuple[dict[str, Any], ...]
    shown: tuple[dict[str, Any], ...]
    brief: tuple[dict[str, Any], ...]
    waived: tuple[dict[str, Any], ...]
    table: tuple[str, ...] = ()

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [one for one in self.shown if one["severity"] == "error"]

    @property
    def headline(self) -> str:
        waived = f" ({len(self.waived)} waived)" if self.waived else ""
        return f"{self.title}: {counted(list(self.shown))}{waived}"


def make(
    title: str,
    findings: Iterable[dict[str, Any]],
    waivers: Iterable[Any],
    today: datetime.date,
    table: Sequence[str] = (),
) -> Report:
    """The report; grouped only after waivers have taken out what they cover."""
    read, wrong = read_waivers(waivers)
    standing, waived = waive(one_cause(list(findings)), read, today)
    kept = ordered([*standing, *wrong])
    return Report(
        title,
        tuple(kept),
        tuple(ordered(grouped(kept))),
        tuple(ordered(grouped(kept, _ON_SCREEN))),
        tuple(ordered(grouped(waived))),
        tuple(table),
    )


def one_cause(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what another finding of the same server says as the cause."""
    places: dict[str, set[str]] = {}
    for one in findings:
        for name in hosts_of(one):
            places.setdefault(name, set()).add(one["code"])
    # A server that could not be checked at all is one finding, whoever tried; who is not root sees little.
    causes = {
        "host-not-checked": {"hccn-not-checked", "host-python-old"},
        "hccn-not-checked": {"host-python-old"},
        "weights_unreadable": {"host-not-root"},
    }
    return [
        one
        for one in findings
        if not (
            one["code"] in causes
            and hosts_of(one)
            and all(causes[one["code"]] & places[name] for name in hosts_of(one))
        )
    ]


def repaired(one: dict[str, Any]) -> dict[str, Any]:
    """A finding as it counts where the play goes on and starts what was deployed."""
    if one["code"] not in REPAIRED:
        return one
    return {**one, "severity": "hint", "message": f"{one['message']}; this run starts it again"}


def screen(report: Report, directory: str | None) -> Iterator[tuple[str, str | None]]:
    """What is printed: lines, and the severity that colours them."""
    yield report.headline, None
    if report.table:
        yield "\n".join(["", *(f"  {line}" for line in report.table)]), None
    if report.brief:
        rows = [("", "code", "place", "what")]
        rows += [(one["severity"], one["code"], one["host"] or "", one["message"]) for one in report.brief]
        widths = [min(40, max(len(row[at]) for row in rows)) for at in range(3)]
        yield "", None
        for row, severity in zip(rows, [None, *(one["severity"] for one in report.brief)], strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
            yield "  ".join([*cells, row[3]]).rstrip(), severity
    for one in report.brief:
        # Hints stand in the table and, in full, in check.md.
        if one["severity"] != "hint":
            yield "", None
            yield "\n".join(block(one)), one["severity"]
    if report.waived:
        yield "", None
    for one in report.waived:
        until, reason = one["waived"]["expires"], one["waived"]["reason"]
        yield f"waived until {until}: {one['code']} at {few(hosts_of(one)) or 'all'}: {reason}", None
    if directory:
        yield f"\nEverything in full: {directory}/check.md, {directory}/check.json", None


def block(one: Mapping[str, Any]) -> list[str]:
    """One finding with its place, what was seen and expected, cure and source."""
    place = f" [{one['host']}]" if one["host"] else ""
    lines = textwrap.wrap(f"{one['severity'].upper()} {one['code']}{place}: {one['message']}", WIDTH)
    for name in _FIELDS:
        if one[name]:
            lines += textwrap.wrap(
                str(one[name]),
                WIDTH,
                initial_indent=f"  {name + ':':<10}",
                subsequent_indent=" " * 12,
                # A cure is to be copied.
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def document(report: Report, head: Mapping[str, Any]) -> dict[str, Any]:
    """check.json."""
    return {
        "version": VERSION,
        **head,
        "ok": not report.errors,
        "findings": list(report.findings),
        "waived": list(report.waived),
    }


def markdown(report: Report, head: Mapping[str, Any]) -> str:
    """check.md."""
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
            f"| {one['severity']} | `{one['code']}` | {_cell(one['host'] or '')} | {_cell(one['message'])} |"
            for one in report.shown
        ]
    for one in report.shown:
        lines += [
            "",
            f"## {one['severity']} `{one['code']}`{' at ' + one['host'] if one['host'] else ''}",
            "",
        ]
        lines += [one["message"], ""]
        lines += [
            f"- {name}: {f'`{one[name]}`' if name == 'cure' else one[name]}" for name in _FIELDS if one[name]
        ]
    if report.waived:
        lines += ["", "## Waived", "", "| code | place | what | reason | until |", "|---|---|---|---|---|"]
        lines += [
            "| "
            + " | ".join(
                (
                    f"`{one['code']}`",
                    _cell(one["host"] or ""),
                    _cell(one["message"]),
                    _cell(one["waived"]["reason"]),
                    one["waived"]["expires"],
                )
            )
            + " |"
            for one in report.waived
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
