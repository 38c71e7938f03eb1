#!/usr/bin/env python3
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write the tables of variables in the READMEs of the roles, from their argument_specs.yml and defaults.

.venv/bin/python scripts/gen_roles_docs.py [--check]

With --check: only say which READMEs are not current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- Variables: written by scripts/gen_roles_docs.py from meta/argument_specs.yml. -->"
END = "<!-- End of the variables. -->"
_BLOCK = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}\n", re.DOTALL)
# Ansible's markup for names and values.
_MARKUP = re.compile(r"\b(?:C|V|O|M|RV)\(([^()]*)\)")


def read(path: Path) -> Any:
    """The content of a YAML file; nothing where there is none."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(role: Path) -> str:
    """The table of a role's variables, between its marks."""
    specification = read(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    defaults = read(role / "defaults" / "main.yml") or {}
    return "\n".join([BEGIN, *_rows(specification["options"], defaults), END]) + "\n"


def _rows(options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "| variable | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, option in options.items():
        cells = (f"`{name}`", _type(option), _default(name, option, defaults), _meaning(option))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _type(option: Mapping[str, Any]) -> str:
    if option.get("choices"):
        return ", ".join(f"`{choice}`" for choice in option["choices"])
    elements = f" of {option['elements']}" if "elements" in option else ""
    return f"{option['type']}{elements}"


def _default(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if name not in defaults:
        return "none"
    value = defaults[name]
    if isinstance(value, str) and "{{" in value:
        whole = re.fullmatch(r"\{\{ (.*) \}\}", value.strip(), re.DOTALL)
        return f"`{whole[1] if whole and '{{' not in whole[1] else value}`"
    if value in ("", [], {}):
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _meaning(option: Mapping[str, Any]) -> str:
    given = option["description"]
    text = " ".join(given) if isinstance(given, list) else str(given)
    return _MARKUP.sub(r"`\1`", " ".join(text.split()))


def updated(role: Path) -> tuple[str, str]:
    """The README of a role as it is, and as it should be."""
    text = (role / "README.md").read_text(encoding="utf-8")
    if BEGIN not in text:
        raise SystemExit(f"{role.name}/README.md has no place for its variables: {BEGIN}")
    return text, _BLOCK.sub(lambda _: table(role), text)


def main(arguments: list[str]) -> int:
    stale = []
    for role in sorted(path.parents[1] for path in ROOT.glob("roles/*/meta/argument_specs.yml")):
        text, wanted = updated(role)
        if text == wanted:
            continue
        stale.append(role.name)
        if arguments != ["--check"]:
            (role / "README.md").write_text(wanted, encoding="utf-8")
    if arguments == ["--check"] and stale:
        print(f"not current, run scripts/gen_roles_docs.py: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
