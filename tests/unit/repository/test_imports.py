# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the table of docs/architecture.md."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"
COLLECTION = "ansible_collections.ascend.pd_rollout"
# From what begins with the first, the longest that fits decides, to what begins with one of the others.
MAY = {
    "module_utils": ("module_utils",),
    "module_utils/_module.py": ("ansible/module_utils/basic",),
    "plugin_utils": ("ansible", "jinja2", "yaml", "matplotlib", "module_utils", "plugin_utils"),
    # ansible-core requires cryptography.
    "plugin_utils/_front": ("cryptography", "module_utils", "plugin_utils"),
    "plugin_utils/rollout": (
        "yaml",
        "module_utils/_findings",
        "module_utils/_serving/router_list",
        "plugin_utils/rollout",
    ),
    "modules": ("ansible/module_utils", "module_utils"),
    "action": ("action", "ansible", "module_utils", "plugin_utils"),
    "filter": ("ansible", "module_utils", "plugin_utils"),
    "doc_fragments": (),
}
FILES = sorted(PLUGINS.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Level and path of everything that a file imports; relative ones as paths below plugins/."""
    package = file.relative_to(PLUGINS).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name.replace(".", "/")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = tuple(node.module.split(".")) if node.module else ()
            outer = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield node.level, "/".join((*outer, *inner, alias.name))


def below(path: str, start: str) -> bool:
    return path == start or path.startswith(f"{start}/")


def test_imports_go_down_only() -> None:
    odd: dict[str, list[str]] = {}
    for file in FILES:
        own = str(file.relative_to(PLUGINS))
        may = MAY[max((start for start in MAY if below(own, start)), key=len)]
        for level, path in imported(file):
            known = not level and path.partition("/")[0] in sys.stdlib_module_names
            if not known and not any(below(path, start) for start in may):
                odd.setdefault(name(file), []).append(path)
    assert not odd


def test_imports_within_the_collection_are_relative() -> None:
    start = COLLECTION.replace(".", "/")
    assert not [name(file) for file in FILES if any(below(path, start) for _, path in imported(file))]


def room(path: str) -> str:
    """The first two parts of a path: a domain, or a file beside them."""
    return "/".join(path.split("/")[:2]).removesuffix(".py")


def test_no_circle_of_domains() -> None:
    """Of module_utils and plugin_utils: each can be understood, and moved, with what is below it."""
    uses: dict[str, set[str]] = {}
    for file in FILES:
        own = str(file.relative_to(PLUGINS))
        if own.startswith(("module_utils/", "plugin_utils/")):
            below_it = {room(path) for level, path in imported(file) if level}
            uses.setdefault(room(own), set()).update(below_it - {room(own)})
    assert list(TopologicalSorter(uses).static_order())


def test_the_simulator_and_the_collection_know_nothing_of_each_other() -> None:
    simulator = {path.stem for path in (ROOT / "simulator").rglob("*.py")} | {"pdsim", "pd_sim_engine"}
    simulator -= {path.stem for path in FILES} | set(sys.stdlib_module_names)
    for file in FILES:
        assert not {path.partition("/")[0] for level, path in imported(file) if not level} & simulator, name(
            file
        )
    for file in sorted((ROOT / "simulator").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert COLLECTION not in text and "plugins.plugin_utils" not in text, name(file)
