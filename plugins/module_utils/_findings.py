# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Findings: what is wrong or risky, each with its place, what was seen and expected, its cure and source.

The planner's rules, the checks of servers and of weights, and the transfers all make the same kind of
finding, each from an entry of a catalogue, and all print it the same way. A new check is one entry and one
use of it:

    HOST_CHECKS = Catalogue(Check("host-thp", "Transparent huge pages are off", "It …", "hint", …), …)
    yield HOST_CHECKS.finding("host-thp", host=name, seen="never")

Errors that carry findings:

    RolloutError
      PlanError          the inventory cannot be planned
      TransferError      weights or an image did not come to a server
        RegistryError    a registry does not give the image
      DockerError        the Docker Engine does not answer, or refuses
        ImageError       it has no use for an archive, or does not give one
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
# Names, and values that differ from place to place, that a screen shows; of more the first ones.
FEW = 8
_LABELS = ("seen", "expected", "cure", "source")


@dataclass(frozen=True)
class Finding:
    """One finding. Its place is what is set of host, instance, variable, chips and path.

    `host` and `instance` may name several, separated by a comma and a space. `chips` are the ids of chips,
    `path` a file or directory on the host, and `files` the names of all files concerned, below it.
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
        """The servers that it names."""
        return tuple((self.host or "").split(", ")) if self.host else ()

    @property
    def instances(self) -> tuple[str, ...]:
        """The instances that it names."""
        return tuple((self.instance or "").split(", ")) if self.instance else ()

    @property
    def place(self) -> str:
        """Where it is, as `prefill1 / prefiller / pd_kv_port`; the message names chips and paths."""
        parts = (few(self.hosts), few(self.instances), self.variable)
        return shown(" / ".join(part for part in parts if part), 400)

    @property
    def sentence(self) -> str:
        """All of it in one line, where there is no room for a block."""
        seen = f" ({self.seen})" if self.seen else ""
        return f"{self.code}: {self.message}{seen}; {self.cure}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "chips": list(self.chips), "files": list(self.files)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Finding:
        """From JSON; what a finding does not have is left out."""
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
        """The severity over `hccs` or `roce`; over `both` the worse of the two."""
        if fabric == "both":
            return min(self.hccs, self.roce, key=SEVERITIES.index)
        return self.roce if fabric == "roce" else self.hccs


@dataclass(frozen=True)
class Check:
    """What a code means: an entry of a catalogue, from which the documentation is made.

    `cure` is a command or a sentence; words in braces are filled in for each finding: `{host}`, `{chip}` (the
    first of the chips), `{chips}`, `{path}`, and whatever else `at` is given. `hccs_cure` is the cure where
    HCCS carries the traffic, if it is another one. `between`: the check compares servers. `limit`: characters
    of what was seen and expected that are kept.
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
        """The severity, over a fabric where it depends on that: `hccs`, `roce` or `both`."""
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
        """The finding at a place.

        Without a message the title stands for it, with the path. `severity`, `expected` and `cure` replace
        those of the entry; `fabric` chooses between its severities and cures. `fill` has values for words in
        braces of the cure.
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
    """Checks by their codes; a code stands for one check only."""

    def __init__(self, *checks: Check) -> None:
        super().__init__()
        for check in checks:
            self.declare(check)

    def declare(self, check: Check) -> Check:
        """Enter a check; raises ValueError where its code is taken."""
        if check.code in self:
            raise ValueError(f"two checks have the code {check.code}")
        self[check.code] = check
        return check

    def finding(self, code: str, message: str = "", **place: Any) -> Finding:
        """A finding of the check with this code; the rest is what `Check.at` takes."""
        return self[code].at(message, **place)


class RolloutError(Exception):
    """What ends a run or a part of it; carries every finding about that, the worst first."""

    def __init__(self, findings: Finding | Iterable[Finding], summary: str = "") -> None:
        listed = [findings] if isinstance(findings, Finding) else findings
        self.findings = ordered(listed)
        super().__init__(summary or "; ".join(one.sentence for one in self.findings))

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
    """A value as one short line for people."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


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


def few(names: Iterable[str]) -> str:
    """Names for a screen: at most eight, of more the first two and the number of the others."""
    listed = list(names)
    if len(listed) <= FEW:
        return ", ".join(listed)
    return f"{listed[0]}, {listed[1]} and {len(listed) - 2} more"


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop a rollout."""
    return [one for one in findings if one.severity == ERROR]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, then by code and place, so that two runs print the same; each finding once."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda one: (
            SEVERITIES.index(one.severity),
            one.code,
            one.instance or "",
            one.host or "",
            one.variable or "",
            one.chips,
            one.message,
        ),
    )


def counted(findings: Iterable[Finding]) -> str:
    """`2 errors, 1 warning`, or `all good`."""
    listed = [one.severity for one in findings]
    numbers_of = ((name, listed.count(name)) for name in SEVERITIES)
    parts = [f"{number} {name}{'s' * (number > 1)}" for name, number in numbers_of if number]
    return ", ".join(parts) or "all good"


# ---- The same finding at several places

# What differs from server to server although the cause is one: addresses, processes, and how much is used or
# free. The finding of each server has them in what was seen or expected.
_MEASURED = re.compile(r"\b[0-9]+(?:\.[0-9]+){3}\b|\bpid [0-9]+\b|\b[0-9]+(?:\.[0-9]+)? [KMGT]?B\b")
_WORD = re.compile(r"\w[\w.-]*")
# Names of groups, and ordinary words of the messages.
_ROLE_WORDS = frozenset({"prefiller", "decoder", "proxy"})


def grouped(findings: Iterable[Finding], limit: int | None = None) -> list[Finding]:
    """One finding for each cause, with all its places; a setting of all instances that breaks a rule in sixty
    of them is one.

    Findings with one message are one, whatever was seen at each place; measured values in it do not count.
    Where messages name their own place, they are the same where the same was seen. So are, in findings about
    the inventory, those that name other instances or hosts. Two findings at one place that say different
    things stay two.

    What was seen, what is expected and the cure are told apart by place where they differ. `limit`: how many
    such values are told, for a screen; None: all.
    """
    listed = list(findings)
    names = {name for one in listed for name in (one.host, one.instance) if name}
    groups: list[_Group] = []
    known: dict[tuple[object, ...], list[_Group]] = {}
    for one in listed:
        keys = _causes(one, names)
        group = next((group for key in keys for group in known.get(key, ()) if group.takes(one)), None)
        if group is None:
            group = _Group([], {})
            groups.append(group)
        group.add(one)
        for key in keys:
            if group not in known.setdefault(key, []):
                known[key].append(group)
    return [group.merged(limit) for group in groups]


@dataclass(eq=False)
class _Group:
    findings: list[Finding]
    messages: dict[tuple[str | None, str | None], str]

    def takes(self, one: Finding) -> bool:
        """Whether nothing else is said of the finding's place."""
        return self.messages.get((one.host, one.instance), one.message) == one.message

    def add(self, one: Finding) -> None:
        self.findings.append(one)
        self.messages[(one.host, one.instance)] = one.message

    def merged(self, limit: int | None) -> Finding:
        first = self.findings[0]
        message = first.message
        if any(one.message != message for one in self.findings):
            named = any(name in message for name in (first.host, first.instance) if name)
            message += f" ({'' if named else f'{first.host}, '}and likewise the others)"
        return replace(
            first,
            message=message,
            host=", ".join(dict.fromkeys(name for one in self.findings for name in one.hosts)) or None,
            instance=", ".join(dict.fromkeys(name for one in self.findings for name in one.instances))
            or None,
            seen=self._told_apart("seen", limit),
            expected=self._told_apart("expected", limit),
            cure=self._told_apart("cure", limit) or "",
        )

    def _told_apart(self, name: str, limit: int | None) -> str | None:
        """A field's value; where places differ in it, each value with its places."""
        places: dict[str, dict[str, None]] = {}
        for one in self.findings:
            value = getattr(one, name)
            if value:
                places.setdefault(value, {})[one.host or one.instance or ""] = None
        if len(places) < 2:
            return next(iter(places), None)
        parts = [
            f"{', '.join(named) if limit is None else few(named)}: {value}"
            for value, named in list(places.items())[:limit]
        ]
        return "; ".join(parts) + ("; …" if len(places) > len(parts) else "")


def _causes(one: Finding, names: set[str]) -> list[tuple[object, ...]]:
    """What findings of one cause have in common, in either of two ways."""
    own = {name for name in (one.host, one.instance) if name}
    # What stands in the inventory names others as it names its own place. Between servers, from where to
    # where is all that there is to say.
    blanked = names if one.variable or one.instance else own
    message = _MEASURED.sub("\0", one.message)
    cure = re.sub(r"[0-9]+", "\0", _unnamed(one.cure, own, own))
    kind = (one.code, one.severity, one.variable, one.chips, one.source)
    place = (*kind, cure, not one.host, not one.instance)
    return [
        (*place, message),
        (*place, _unnamed(message, blanked, own), _unnamed(one.seen or "", blanked, own)),
    ]


def _unnamed(text: str, names: set[str], own: set[str]) -> str:
    """A text without these names. The word for a role is a name only at its own place."""

    def blank(match: re.Match[str]) -> str:
        word = match.group(0).rstrip(".")
        named = word in names and (word not in _ROLE_WORDS or word in own)
        return "\0" + match.group(0)[len(word) :] if named else match.group(0)

    return _WORD.sub(blank, text)


# ---- For people


def render_text(findings: Iterable[Finding], everywhere: str = "") -> Iterator[str]:
    """The findings for a screen, line by line: one short block for each cause, with an empty line behind it.

    `everywhere` stands for the place of a finding that has none.
    """
    for one in grouped(findings, FEW):
        yield f"{one.severity.upper()} {one.code}  {one.place or everywhere}".rstrip()
        yield from _wrapped("  ", one.message)
        for label in _LABELS:
            yield from _wrapped(f"  {label:<10}", getattr(one, label) or "")
        yield ""


def _wrapped(begin: str, text: str) -> list[str]:
    # A cure is to be copied: no word of it is broken.
    return textwrap.wrap(
        re.sub(r"\s*\n\s*", " ", text.strip()),
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def brief(findings: Iterable[Finding]) -> list[str]:
    """One line for each finding, without cures: the result of one server."""
    return [f"{one.severity.upper():<8}{one.code}: {one.message}" for one in findings]


def text_of(findings: Iterable[Finding], head: str = "", log: Sequence[str] = ()) -> str:
    """One text for the message that a task ends with: a headline, the findings, the last lines of a log."""
    lines = [head] if head else []
    lines += list(render_text(findings))[:-1]
    lines += [f"  {'log' if at == 0 else '':<10}{line}" for at, line in enumerate(log)]
    return "\n".join(lines)


def render_markdown(findings: Iterable[Finding], limit: int | None = None) -> Iterator[str]:
    """The findings as a list of Markdown, with all places of each; with a limit a few of them."""
    for one in grouped(findings, limit):
        all_of_it = " / ".join(part for part in (one.host, one.instance, one.variable) if part)
        place = one.place if limit else all_of_it
        where = f" ({_prose(place)})" if place else ""
        yield f"- **{one.severity} `{one.code}`**{where}: {_prose(one.message)}"
        for label in ("seen", "expected"):
            value = getattr(one, label)
            if value:
                yield f"  - {label}: {_prose(value)}"
        yield f"  - cure: {_code(one.cure)}"
        yield f"  - source: {_prose(one.source)}"


def _prose(text: str) -> str:
    """Text in which Markdown reads nothing of its own."""
    return re.sub(r"([\\`*|])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def _code(text: str) -> str:
    """A command to be copied."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"
