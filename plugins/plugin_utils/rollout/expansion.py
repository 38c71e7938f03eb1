# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""References to variables in values of ``pd_engine_env``, as bash expands them within double quotes.

``$NAME``, ``${NAME}`` and ``${NAME:-text}`` with its variants are expanded in the launch script; ``\\$`` is a
dollar sign. Everything else that bash would run or expand is rejected, never quoted silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

# Variables that the launch script sets before its exports.
LOCAL_IP = "local_ip"
NIC_NAME = "nic_name"
MASTER_ADDR = "master_addr"
SCRIPT_NAMES = (LOCAL_IP, NIC_NAME, MASTER_ADDR)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Longer ones first.
_OPERATORS = (":-", ":+", ":?", "-", "+", "?")
# The deepest nesting of braces; nobody writes more.
_DEEPEST = 10
# Characters with a special meaning within double quotes.
_SPECIAL = re.compile(r'([\\"`$])')


@dataclass(frozen=True)
class Reference:
    """``$name``; with an operator ``${name:-operand}``."""

    name: str
    operator: str = ""
    operand: tuple[Part, ...] = ()


Part = str | Reference


class NotExpandable(Exception):
    """A value with shell syntax other than references to variables; ``what`` names it, ``seen`` shows it."""

    def __init__(self, what: str, seen: str) -> None:
        super().__init__(what)
        self.what = what
        self.seen = seen


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Part, ...]:
    """Split a value into text and references; raises NotExpandable for any other shell syntax."""
    if "$" not in text and "`" not in text:
        return (text,) if text else ()
    return _Parser(text).parts(inside=False)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def parts(self, *, inside: bool) -> tuple[Part, ...]:
        """Return the parts up to the end, or with ``inside`` up to the closing brace."""
        found: list[Part] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if inside and char == "}":
                break
            if char == "$":
                part = self._dollar()
            elif char == "`":
                raise NotExpandable("a command", "`…`")
            elif inside and char == '"':
                raise NotExpandable("a quotation mark within braces", '"')
            else:
                part = self._backslashes(inside) if char == "\\" else self._plain()
            if found and isinstance(part, str) and isinstance(found[-1], str):
                found[-1] += part
            else:
                found.append(part)
        return tuple(found)

    def _plain(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in '$`\\}"':
            self.at += 1
        # A character without a special meaning here is literal.
        self.at = max(self.at, start + 1)
        return self.text[start : self.at]

    def _backslashes(self, inside: bool) -> str:
        """Read backslashes: before $ or ` they escape it, as within double quotes; others are literal."""
        start = self.at
        while self.text[self.at : self.at + 1] == "\\":
            self.at += 1
        count = self.at - start
        following = self.text[self.at : self.at + 1]
        if inside and following in ("}", '"'):
            raise NotExpandable(f"an escaped {following} within braces", f"\\{following}")
        if following not in ("$", "`"):
            return "\\" * count
        if count % 2 == 0:
            return "\\" * (count // 2)
        self.at += 1
        return "\\" * (count // 2) + following

    def _dollar(self) -> Part:
        rest = self.text[self.at + 1 :]
        name = _NAME.match(rest)
        if name and name[0] != "_":
            self.at += 1 + name.end()
            return Reference(name[0])
        if rest.startswith("{"):
            return self._braces()
        if rest.startswith("("):
            arithmetic = rest.startswith("((")
            raise NotExpandable(
                "arithmetic" if arithmetic else "a command", "$((…))" if arithmetic else "$(…)"
            )
        if rest.startswith("["):
            raise NotExpandable("arithmetic", "$[…]")
        if re.match(r"[0-9@*#?$!_-]", rest):
            raise NotExpandable("a parameter of the shell itself", f"${rest[0]}")
        # Before anything else, and at the end, bash too reads it as a dollar sign.
        self.at += 1
        return "$"

    def _braces(self) -> Reference:
        start = self.at
        self.at += 2
        name = _NAME.match(self.text, self.at)
        if name and name[0] != "_":
            self.at = name.end()
            operator = next((o for o in _OPERATORS if self.text.startswith(o, self.at)), "")
            self.at += len(operator)
            self.depth += 1
            if self.depth > _DEEPEST:
                raise NotExpandable("braces in braces in braces", f"{{{name[0]}")
            operand = self.parts(inside=True) if operator else ()
            self.depth -= 1
            if self.text.startswith("}", self.at):
                self.at += 1
                return Reference(name[0], operator, operand)
        # Show no more: a secret may follow.
        seen = self.text[start : self.at + 1]
        if self.text.find("}", start) < 0:
            raise NotExpandable("braces that are not closed", f"{seen}…")
        raise NotExpandable("an expansion other than a variable", f"{seen}…}}")


def references(parts: tuple[Part, ...]) -> Iterator[Reference]:
    """Yield every reference, including those within another's operand."""
    for part in parts:
        if isinstance(part, Reference):
            yield part
            yield from references(part.operand)


def names(value: str) -> frozenset[str]:
    """Return the variables that a value refers to; none if it cannot be expanded."""
    try:
        return frozenset(reference.name for reference in references(parse(value)))
    except NotExpandable:
        return frozenset()


def ordered(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in their order, but each after those that its value refers to. A variable that
    refers to itself means its previous value."""
    result, rest = _in_order(env)
    return {**result, **{name: env[name] for name in rest}}


def circle(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return variables that refer to each other in a circle, the first again at the end; empty if none do."""
    _, rest = _in_order(env)
    path: list[str] = []
    name = next(iter(rest), None)
    while name is not None and name not in path:
        path.append(name)
        name = next(other for other in rest[path[-1]] if other in rest)
    return () if name is None else (*path[path.index(name) :], name)


def _in_order(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the variables, each after those that it refers to, and the variables that cannot be ordered,
    with those that they need."""
    result: dict[str, str] = {}
    rest = {name: sorted((names(value) & env.keys()) - {name}) for name, value in env.items()}
    placed = True
    while placed:
        placed = False
        for name in list(rest):
            if result.keys() >= set(rest[name]):
                result[name] = env[name]
                del rest[name]
                placed = True
    return result, rest


def resolved(env: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Expand values as far as the plan knows them. ``env`` must be in order (``ordered``), ``known`` has
    other values. What only the server or the image knows stays ``$NAME``."""
    result: dict[str, str] = {}
    for name, value in env.items():
        try:
            result[name] = _text(parse(value), {**known, **result})
        except NotExpandable:
            result[name] = value
    return result


def _text(parts: tuple[Part, ...], known: Mapping[str, str]) -> str:
    text = ""
    for part in reversed(parts):
        text = (part if isinstance(part, str) else _known(part, known, text)) + text
    return text


def _known(reference: Reference, known: Mapping[str, str], behind: str) -> str:
    value = known.get(reference.name)
    if value is None:
        if not reference.operator:
            ends = re.match(r"[A-Za-z0-9_]", behind) is None
            return f"${reference.name}" if ends else f"${{{reference.name}}}"
        return f"${{{reference.name}{reference.operator}{_text(reference.operand, known)}}}"
    there = bool(value) or not reference.operator.startswith(":")
    if reference.operator.endswith("+"):
        return _text(reference.operand, known) if there else ""
    return value if there or not reference.operand else _text(reference.operand, known)


def written(value: str, is_set: frozenset[str], quoted: Callable[[str], str]) -> str:
    """Return a value as the script writes it; ``quoted`` quotes text without references.

    The script stops at a variable that is not set (``set -u``), but here it should expand to nothing, as in
    an interactive shell: references to names that are not in ``is_set`` get an empty default.
    """
    parts = parse(value)
    if not any(isinstance(part, Reference) for part in parts):
        return quoted("".join(part for part in parts if isinstance(part, str)))
    if value in [f"${name}" for name in SCRIPT_NAMES]:
        return value
    return f'"{_shell(parts, is_set)}"'


def _shell(parts: tuple[Part, ...], is_set: frozenset[str]) -> str:
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(_SPECIAL.sub(r"\\\1", part))
        elif part.operator:
            out.append(f"${{{part.name}{part.operator}{_shell(part.operand, is_set)}}}")
        else:
            out.append(f"${{{part.name}}}" if part.name in is_set else f"${{{part.name}:-}}")
    return "".join(out)
