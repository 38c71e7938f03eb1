# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads variables one by one, and collects what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..findings import Finding, Rule, shown
from ..rules.inventory import BAD_VALUE, MISSING, NUMBER_AS_TEXT, UNREADABLE
from ..secrecy import masked
from ..values import BadValue
from ..variables import DEFAULT_RELEASE, Variable
from .raw import Unreadable

T = TypeVar("T")


@dataclass
class Reader:
    """Reads variables and collects findings; the same problem on many hosts becomes one finding."""

    # The release for which profiles are read.
    release: str = DEFAULT_RELEASE
    # (rule, variable, message, seen, expected, cure) -> places
    troubles: dict[
        tuple[Rule, str | None, str, str | None, str | None, str | None], list[tuple[str | None, str | None]]
    ] = field(default_factory=dict)

    def add(
        self,
        rule: Rule,
        message: str,
        *,
        host: str | None = None,
        instance: str | None = None,
        variable: str | None = None,
        seen: object = None,
        expected: str | None = None,
        cure: str | None = None,
    ) -> None:
        key = (rule, variable, message, None if seen is None else shown(seen), expected, cure)
        self.troubles.setdefault(key, []).append((host, instance))

    def findings(self) -> Iterator[Finding]:
        for (rule, variable, message, seen, expected, cure), places in self.troubles.items():
            hosts = list(dict.fromkeys(host for host, _ in places if host is not None))
            instances = list(dict.fromkeys(instance for _, instance in places if instance is not None))
            if len(hosts) > 1:
                more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
                message += f" (on {', '.join(hosts[:3])}{more})"
            yield rule.at(
                message,
                host=hosts[0] if len(hosts) == 1 else None,
                instance=instances[0] if len(instances) == 1 else None,
                variable=variable,
                seen=seen,
                expected=expected,
                cure=cure,
            )

    def value(
        self,
        variable: Variable[T],
        variables: Mapping[str, Any],
        host: str | None,
        instance: str | None,
        unread: set[str],
    ) -> T:
        """Return a variable's value, or its default if it is not set or cannot be read.

        ``variables`` are those of ``host`` as ``instance`` sees them. If the value is missing or cannot be
        read, a finding is added, and the variable's name to ``unread``.
        """
        missing = object()
        raw = variables.get(variable.name, missing)
        if raw is missing or (variable.required and raw in (None, "")):
            if variable.required:
                unread.add(variable.name)
                self.add(
                    MISSING,
                    f"{variable.name} is not set",
                    host=host,
                    instance=instance,
                    variable=variable.name,
                )
            return variable.default
        if isinstance(raw, Unreadable):
            unread.add(variable.name)
            self.add(
                UNREADABLE,
                f"{variable.name} cannot be evaluated: {shown(masked(raw.reason), 300)}",
                host=host,
                instance=instance,
                variable=variable.name,
            )
            return variable.default
        try:
            value = variable.read(raw)
            if type(value) is int and isinstance(raw, str) and not variable.private:
                self.add(
                    NUMBER_AS_TEXT,
                    f"{variable.name} is text that looks like a number, and is read as one",
                    host=host,
                    instance=instance,
                    variable=variable.name,
                    seen=repr(str(raw)),
                    expected=str(value),
                )
            return value
        except BadValue as error:
            unread.add(variable.name)
            self.add(
                BAD_VALUE,
                error.message or f"{variable.name} has an invalid value",
                host=host,
                instance=instance,
                variable=variable.name,
                seen=error.seen or ("(not shown)" if variable.private else raw),
                expected=error.expected,
            )
            return variable.default
