# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Variables of the roles that an inventory sets, against the argument specifications of the roles.

Ansible validates them for each role on each host. The playbooks of the collection leave that out: the plan
does it once for all hosts, before any of them is contacted, and reports everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..rollout import data
from ..rollout.findings import Finding, few, shown
from ..rollout.rules.inventory import BAD_VALUE

ROLES = Path(__file__).resolve().parents[3] / "roles"

# Roles whose names begin so are given their arguments by other roles.
INTERNAL = "_"

Options = dict[str, dict[str, Any]]


@cache
def specifications() -> Mapping[str, Options]:
    """The options of each public role, by the role's name."""
    return {
        path.parents[1].name: data.read(path)["argument_specs"]["main"]["options"]
        for path in sorted(ROLES.glob("*/meta/argument_specs.yml"))
        if not path.parents[1].name.startswith(INTERNAL)
    }


def findings(hosts: Mapping[str, Mapping[str, Any]], evaluated: Callable[[Any], Any]) -> list[Finding]:
    """What the roles would refuse.

    hosts: the variables of each host, evaluated when they are read; evaluated: makes plain values of them,
    and raises where a value refers to something that is not there. Such a value is left to the role, which
    may have it.
    """
    known = {name: option for options in specifications().values() for name, option in options.items()}
    places: dict[tuple[str, str], list[str]] = {}
    for host, variables in hosts.items():
        for name in known.keys() & set(variables):
            try:
                value = evaluated(variables[name])
            except Exception:  # any filter or lookup can raise anything
                continue
            for reason in reasons(name, known[name], value):
                places.setdefault((name, reason), []).append(host)
    return [_finding(name, reason, at) for (name, reason), at in sorted(places.items())]


def reasons(name: str, option: Mapping[str, Any], value: Any) -> list[str]:
    """Why Ansible would not take a value for an option of a role; empty where it would."""
    validator = ArgumentSpecValidator({name: _of_ansible(option)})
    return list(validator.validate({name: value}).error_messages)


def _finding(name: str, reason: str, hosts: Sequence[str]) -> Finding:
    more = f" (on {few(hosts)})" if len(hosts) > 1 else ""
    return BAD_VALUE.at(
        f"{name} has a value that its role cannot take: {shown(reason)}{more}",
        host=hosts[0] if len(hosts) == 1 else None,
        variable=name,
    )


def _of_ansible(option: Mapping[str, Any]) -> dict[str, Any]:
    """The option without what is only documentation."""
    kept = ("type", "elements", "choices", "no_log", "options")
    return {key: item for key, item in option.items() if key in kept}
