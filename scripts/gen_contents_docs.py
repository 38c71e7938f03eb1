# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write the lists of roles, modules and filters in README.md, from their own descriptions."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from doc_generator import ROOT, main

README = ROOT / "README.md"
BEGIN = (
    "<!-- Written by scripts/gen_contents_docs.py from roles and plugins: change these, not the lists. -->"
)
END = "<!-- End of what scripts/gen_contents_docs.py writes. -->"
# How the description of a role or module begins that other playbooks should not use.
INTERNAL = "Internal"


def documentation(plugin: Path) -> dict[str, Any]:
    """The DOCUMENTATION of a module or filter."""
    for node in ast.parse(plugin.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            loaded: dict[str, Any] = yaml.safe_load(ast.literal_eval(node.value))
            return loaded
    raise SystemExit(f"{plugin.relative_to(ROOT)} has no DOCUMENTATION")


def plain(text: str) -> str:
    """Ansible's markup as Markdown."""
    return re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", text)


def plugins(kind: str) -> Iterator[tuple[str, str, bool]]:
    """Name, short description, and whether it is internal, of each plugin of a kind."""
    for file in sorted((ROOT / "plugins" / kind).glob("[a-z]*.py")):
        read = documentation(file)
        described = read.get("description") or ""
        first = described[0] if isinstance(described, list) else described
        short = str(read["short_description"])
        internal = short.startswith(INTERNAL) or str(first).startswith(INTERNAL)
        yield file.stem, plain(re.sub(rf"^{INTERNAL}[.:]? *", "", short)), internal


def roles() -> Iterator[tuple[str, str, bool]]:
    """The same of each role."""
    for folder in sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()):
        meta = yaml.safe_load((folder / "meta" / "main.yml").read_text(encoding="utf-8"))
        text = str(meta["galaxy_info"]["description"])
        name = f"[{folder.name}](roles/{folder.name}/README.md)"
        yield name, re.sub(rf"^{INTERNAL}\. ", "", text), text.startswith(INTERNAL)


def table(rows: list[tuple[str, str]], head: str) -> Iterator[str]:
    yield f"| {head} | |"
    yield "|---|---|"
    yield from (f"| {name} | {text[0].upper()}{text[1:].rstrip('.')} |" for name, text in rows)
    yield ""


def contents() -> Iterator[str]:
    all_roles = list(roles())
    modules = [(f"`{name}`", text, internal) for name, text, internal in plugins("modules")]
    filters = [(f"`{name}`", text, internal) for name, text, internal in plugins("filter")]
    yield BEGIN
    yield ""
    yield from table([(name, text) for name, text, internal in all_roles if not internal], "role")
    yield from table([(name, text) for name, text, internal in modules if not internal], "module")
    yield from table([(name, text) for name, text, internal in filters if not internal], "filter")
    hidden = [(name, text) for name, text, internal in (*all_roles, *modules, *filters) if internal]
    if hidden:
        yield "Internal, for the roles above; they may change with any release:"
        yield ""
        yield from table(hidden, "role or plugin")
    yield END


def written() -> str:
    """README.md with the lists as they should be."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + "\n".join(contents()) + after


def documents() -> dict[str, str]:
    return {"README.md": written()}


if __name__ == "__main__":
    sys.exit(main(documents))
