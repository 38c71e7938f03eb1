# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Findings: what is wrong or risky, each with its place, the value seen and expected, its cure and source.

The planner's rules, the checks of servers and of weights, and the transfers all create the same kind of
finding from an entry of a catalogue, and all print it the same way. A new check is one entry and one use:

    HOST_CHECKS = Catalogue(Check("host-thp", "Transparent huge pages are off", "It …", "hint", …), …)
    yield HOST_CHECKS.finding("host-thp", host=name, seen="never")

Errors that carry findings:

    RolloutError
      PlanError          the inventory cannot be planned
      TransferError      weights or an image could not be transferred to a server
        RegistryError    a registry does not provide the image
      DockerError        the Docker Engine does not answer, or refuses a request
        ImageError       it rejects an archive, or does not provide one
      UnsafeFolder       other users could replace what root keeps in a folder
      Refused            root must not work with a name or a path
      LockError          the lock of a server cannot be used
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:  # novm
    from typing import Literal

    Severity = Literal["error", "warning", "hint"]
else:
    # Python 3.7 has no Literal.
    Severity = str

ERROR: Severity = "error"
WARNING: Severity = "warning"
HINT: Severity = "hint"
SEVERITIES: tuple[Severity, ...] = (ERROR, WARNING, HINT)

# Characters of a line on the screen.
WIDTH = 108
# The most names or differing values that the screen shows; of more, only the first ones.
FEW = 8
_LABELS = ("seen", "expected", "cure", "source")


@dataclass(frozen=True)
class Finding:
    """A finding. Its place consists of those of host, instance, variable, chips and path that are set.

    ``host`` and ``instance`` may name several, separated by a comma and a space. ``chips`` are ids of chips,
    ``path`` is a file or directory on the host, and ``files`` are the names of all affected files below it.
    """

    code: str
    severity: Severity
    message: str
    host: str | None = None
    instance: str | None = None
    variable: str | None = None
    chips: tuple[int, ...] = ()
    path: str | None = None
    files: tuple[str, ...] = ()
    seen: str | None = None
    expected: str | None = None
    cure: str = ""
    source: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of its servers."""
        return tuple((self.host or "").split(", ")) if self.host else ()

    @property
    def instances(self) -> tuple[str, ...]:
        """The names of its instances."""
        return tuple((self.instance or "").split(", ")) if self.instance else ()

    @property
    def place(self) -> str:
        """Its place, such as ``prefill1 / prefiller / pd_kv_port``; the message names chips and paths."""
        parts = (few(self.hosts), few(self.instances), self.variable)
        return shown(" / ".join(part for part in parts if part), 400)

    @property
    def sentence(self) -> str:
        """The finding in one line, for places without room for a block."""
        seen = f" ({self.seen})" if self.seen else ""
        return f"{self.code}: {self.message}{seen}; {self.cure}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "chips": list(self.chips), "files": list(self.files)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Finding:
        """Return the finding from a JSON object; unknown keys are ignored."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        for name in ("chips", "files"):
            known[name] = tuple(known.get(name) or ())
        return cls(**known)


@dataclass(frozen=True)
class ByFabric:
    """A severity that depends on the network that carries the traffic between servers."""

    hccs: Severity
    roce: Severity

    def over(self, fabric: str) -> Severity:
        """Return the severity over ``hccs`` or ``roce``; over ``both``, the worse of the two."""
        if fabric == "both":
            return min(self.hccs, self.roce, key=SEVERITIES.index)
        return self.roce if fabric == "roce" else self.hccs


@dataclass(frozen=True)
class Check:
    """The meaning of a code: an entry of a catalogue, from which the documentation is generated.

    ``cure`` is a command or a sentence; words in braces are filled in for each finding: ``{host}``,
    ``{chip}`` (the first of the chips), ``{chips}``, ``{path}``, and the further arguments of ``at``.
    ``hccs_cure``: the cure where HCCS carries the traffic, if it differs. ``between``: the check compares
    servers. ``limit``: the most characters of the values seen and expected that are kept.
    """

    code: str
    title: str
    why: str = ""
    severity: Severity | ByFabric = ERROR
    expected: str | None = None
    cure: str = ""
    source: str = ""
    between: bool = False
    hccs_cure: str = ""
    limit: int = 2000

    def severity_over(self, fabric: str) -> Severity:
        """Return the severity, over a fabric (``hccs``, ``roce`` or ``both``) if it depends on that."""
        return self.severity.over(fabric) if isinstance(self.severity, ByFabric) else self.severity

    def at(
        self,
        message: str = "",
        *,
        host: str | None = None,
        instance: str | None = None,
        variable: str | None = None,
        chips: Iterable[int] = (),
        path: str | None = None,
        files: Iterable[str] = (),
        seen: object = None,
        expected: object = None,
        severity: Severity | None = None,
        cure: str | None = None,
        fabric: str = "",
        **fill: object,
    ) -> Finding:
        """Return the finding at a place.

        Without a message the title is used, with the path. ``severity``, ``expected`` and ``cure`` replace
        those of the entry; ``fabric`` selects among its severities and cures. ``fill``: values for the words
        in braces in the cure.
        """
        concerned = tuple(sorted(set(chips)))
        text = cure or (self.hccs_cure if fabric == "hccs" and self.hccs_cure else self.cure)
        words = {
            "host": host or "all",
            "chip": concerned[0] if concerned else 0,
            "chips": " ".join(map(str, concerned)) or "$(seq 0 15)",
            "path": path or "PATH",
            **fill,
        }
        for name, value in words.items():
            text = text.replace("{" + name + "}", str(value))
        wanted = self.expected if expected is None else expected
        return Finding(
            code=self.code,
            severity=severity or self.severity_over(fabric),
            message=message or (f"{self.title}: {path}" if path else self.title),
            host=host,
            instance=instance,
            variable=variable,
            chips=concerned,
            path=path,
            files=tuple(files),
            seen=None if seen is None else shown(seen, self.limit),
            expected=None if wanted is None else shown(wanted, self.limit),
            cure=text,
            source=self.source,
        )


class Catalogue(Dict[str, Check]):
    """Checks by code; each code belongs to one check."""

    def __init__(self, *checks: Check) -> None:
        super().__init__()
        for check in checks:
            self.declare(check)

    def declare(self, check: Check) -> Check:
        """Add a check and return it; raise ValueError if its code is already used."""
        if check.code in self:
            raise ValueError(f"two checks have the code {check.code}")
        self[check.code] = check
        return check

    def finding(self, code: str, message: str = "", **place: Any) -> Finding:
        """Return a finding of the check with this code; ``place``: arguments of ``Check.at``."""
        return self[code].at(message, **place)


class RolloutError(Exception):
    """An error that ends a run or a part of it; carries all its findings, the worst first."""

    def __init__(self, findings: Finding | Iterable[Finding], summary: str = "") -> None:
        listed = [findings] if isinstance(findings, Finding) else findings
        self.findings = ordered(listed)
        super().__init__(summary or "; ".join(finding.sentence for finding in self.findings))

    @property
    def finding(self) -> Finding:
        """The first of its findings."""
        return self.findings[0]

    def failure(self, headline: str = "") -> dict[str, Any]:
        """Return the result of a task that fails because of this error; ``headline`` begins its message."""
        found = [finding.to_dict() for finding in self.findings]
        return {
            "failed": True,
            "changed": False,
            "findings": found,
            "msg": text_of(self.findings, headline),
        }


def shown(value: object, limit: int = 200) -> str:
    """Return a value as one printable line of at most ``limit`` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def numbers(values: Iterable[int]) -> str:
    """Return numbers as ranges: ``0-3, 7``."""
    ordered_values = sorted(set(values))
    parts: list[str] = []
    begin = 0
    for at, value in enumerate(ordered_values):
        if at + 1 == len(ordered_values) or ordered_values[at + 1] != value + 1:
            first = ordered_values[begin]
            parts.append(str(first) if first == value else f"{first}-{value}")
            begin = at + 1
    return ", ".join(parts)


def few(names: Iterable[str]) -> str:
    """Return names for the screen: all if there are at most eight, else the first two and a count."""
    listed = list(names)
    if len(listed) <= FEW:
        return ", ".join(listed)
    return f"{listed[0]}, {listed[1]} and {len(listed) - 2} more"


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that stop a rollout."""
    return [finding for finding in findings if finding.severity == ERROR]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return each finding once, the worst first, then by code and place, so that output is stable."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda finding: (
            SEVERITIES.index(finding.severity),
            finding.code,
            finding.instance or "",
            finding.host or "",
            finding.variable or "",
            finding.chips,
            finding.message,
        ),
    )


def counted(findings: Iterable[Finding]) -> str:
    """Return the numbers by severity: ``2 errors, 1 warning``, or ``all good``."""
    listed = [finding.severity for finding in findings]
    numbers_of = ((name, listed.count(name)) for name in SEVERITIES)
    parts = [f"{number} {name}{'s' * (number > 1)}" for name, number in numbers_of if number]
    return ", ".join(parts) or "all good"


# ---- The same finding at several places

# Values that differ between servers although the cause is the same: addresses, process ids, and amounts used
# or free. The finding of each server contains them in the value seen or expected.
_MEASURED = re.compile(r"\b[0-9]+(?:\.[0-9]+){3}\b|\bpid [0-9]+\b|\b[0-9]+(?:\.[0-9]+)? [KMGT]?B\b")
_WORD = re.compile(r"\w[\w.-]*")
# Names of groups that are also ordinary words in messages.
_ROLE_WORDS = frozenset({"prefiller", "decoder", "proxy"})


def grouped(findings: Iterable[Finding], limit: int | None = None) -> list[Finding]:
    """Return one finding for each cause, with all its places: a setting of all instances that breaks a rule
    in sixty of them is one finding.

    Findings with the same message are merged, whatever was seen at each place; measured values in the message
    are ignored. Messages that name their own place count as equal if the same was seen. In findings about the
    inventory, so do messages that name other instances or hosts. Two findings at one place with different
    messages stay separate.

    If the values seen, the values expected or the cures differ, each is listed with its places. ``limit``:
    how many such values are listed, for the screen; None: all.
    """
    listed = list(findings)
    names = {name for finding in listed for name in (finding.host, finding.instance) if name}
    groups: list[_Group] = []
    known: dict[tuple[object, ...], list[_Group]] = {}
    for finding in listed:
        keys = _causes(finding, names)
        group = next((group for key in keys for group in known.get(key, ()) if group.takes(finding)), None)
        if group is None:
            group = _Group([], {})
            groups.append(group)
        group.add(finding)
        for key in keys:
            if group not in known.setdefault(key, []):
                known[key].append(group)
    return [group.merged(limit) for group in groups]


@dataclass(eq=False)
class _Group:
    findings: list[Finding]
    messages: dict[tuple[str | None, str | None], str]

    def takes(self, finding: Finding) -> bool:
        """Return whether the group has no different message for the finding's place."""
        return self.messages.get((finding.host, finding.instance), finding.message) == finding.message

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.messages[(finding.host, finding.instance)] = finding.message

    def merged(self, limit: int | None) -> Finding:
        first = self.findings[0]
        message = first.message
        if any(finding.message != message for finding in self.findings):
            named = any(name in message for name in (first.host, first.instance) if name)
            message += f" ({'' if named else f'{first.host}, '}and likewise the others)"
        return replace(
            first,
            message=message,
            host=", ".join(dict.fromkeys(name for finding in self.findings for name in finding.hosts))
            or None,
            instance=", ".join(dict.fromkeys(name for finding in self.findings for name in finding.instances))
            or None,
            seen=self._told_apart("seen", limit),
            expected=self._told_apart("expected", limit),
            cure=self._told_apart("cure", limit) or "",
        )

    def _told_apart(self, name: str, limit: int | None) -> str | None:
        """Return a field's value; if it differs between places, each value with its places."""
        places: dict[str, dict[str, None]] = {}
        for finding in self.findings:
            value = getattr(finding, name)
            if value:
                places.setdefault(value, {})[finding.host or finding.instance or ""] = None
        if len(places) < 2:
            return next(iter(places), None)
        parts = [
            f"{', '.join(named) if limit is None else few(named)}: {value}"
            for value, named in list(places.items())[:limit]
        ]
        return "; ".join(parts) + ("; …" if len(places) > len(parts) else "")


def _causes(finding: Finding, names: set[str]) -> list[tuple[object, ...]]:
    """Return the keys by which findings with the same cause are recognized; one in common is enough."""
    own = {name for name in (finding.host, finding.instance) if name}
    # Findings about the inventory may name other places, which are blanked too. In findings between servers
    # the names of both ends are the content.
    blanked = names if finding.variable or finding.instance else own
    message = _MEASURED.sub("\0", finding.message)
    cure = re.sub(r"[0-9]+", "\0", _unnamed(finding.cure, own, own))
    kind = (finding.code, finding.severity, finding.variable, finding.chips, finding.source)
    place = (*kind, cure, not finding.host, not finding.instance)
    return [
        (*place, message),
        (*place, _unnamed(message, blanked, own), _unnamed(finding.seen or "", blanked, own)),
    ]


def _unnamed(text: str, names: set[str], own: set[str]) -> str:
    """Return the text without these names. A word for a role counts as a name only at its own place."""

    def blank(match: re.Match[str]) -> str:
        word = match.group(0).rstrip(".")
        named = word in names and (word not in _ROLE_WORDS or word in own)
        return "\0" + match.group(0)[len(word) :] if named else match.group(0)

    return _WORD.sub(blank, text)


# ---- Output


def render_text(findings: Iterable[Finding], everywhere: str = "") -> Iterator[str]:
    """Yield the lines for the screen: a short block for each cause, each followed by an empty line.

    ``everywhere``: the place that is printed for a finding without a place.
    """
    for finding in grouped(findings, FEW):
        yield f"{finding.severity.upper()} {finding.code}  {finding.place or everywhere}".rstrip()
        yield from _wrapped("  ", finding.message)
        for label in _LABELS:
            yield from _wrapped(f"  {label:<10}", getattr(finding, label) or "")
        yield ""


def _wrapped(begin: str, text: str) -> list[str]:
    # Cures are copied by users, so no word is broken.
    return textwrap.wrap(
        re.sub(r"\s*\n\s*", " ", text.strip()),
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def brief(findings: Iterable[Finding]) -> list[str]:
    """Return one line for each finding, without cures, for the result of one server."""
    return [f"{finding.severity.upper():<8}{finding.code}: {finding.message}" for finding in findings]


def text_of(findings: Iterable[Finding], head: str = "", log: Sequence[str] = ()) -> str:
    """Return the message with which a task ends: a headline, the findings, and the last lines of a log."""
    lines = [head] if head else []
    lines += list(render_text(findings))[:-1]
    lines += [f"  {'log' if at == 0 else '':<10}{line}" for at, line in enumerate(log)]
    return "\n".join(lines)


def render_markdown(findings: Iterable[Finding], limit: int | None = None) -> Iterator[str]:
    """Yield the findings as a Markdown list with all their places; ``limit``: show at most so many values."""
    for finding in grouped(findings, limit):
        all_of_it = " / ".join(part for part in (finding.host, finding.instance, finding.variable) if part)
        place = finding.place if limit else all_of_it
        where = f" ({_prose(place)})" if place else ""
        yield f"- **{finding.severity} `{finding.code}`**{where}: {_prose(finding.message)}"
        for label in ("seen", "expected"):
            value = getattr(finding, label)
            if value:
                yield f"  - {label}: {_prose(value)}"
        yield f"  - cure: {_code(finding.cure)}"
        yield f"  - source: {_prose(finding.source)}"


def _prose(text: str) -> str:
    """Return the text escaped for Markdown."""
    return re.sub(r"([\\`*|])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def _code(text: str) -> str:
    """Return a command as Markdown code."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"
