"""Who may import whom: the simulator stands for itself, and its modules import one another in no circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SIMULATOR = ROOT / "simulator"
PACKAGES = {
    "pdsim": SIMULATOR / "pdsim",
    "pd_sim_engine": SIMULATOR / "engine/rootfs/opt/pd-sim-engine/pd_sim_engine",
    "faults": SIMULATOR / "server/rootfs/opt/pd-sim/faults",
}
SIMULATED = {"pdsim", "pd_sim_engine"}
COLLECTION = {"plugins", "ansible_collections"}


def imported(path: Path, package: str = "") -> Iterator[str]:
    """The dotted names that a file imports; relative ones are resolved within its package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def python_files(folder: Path) -> list[Path]:
    """Its Python files, also those whose name does not say so."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return [path for path in files if path.suffix == ".py" or re.match(rb"#!.*python", path.read_bytes())]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_circle(name: str) -> None:
    folder = PACKAGES[name]
    modules = {
        ".".join([name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    graph = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        # What a package's own file says is there before its modules are imported.
        graph[module] = {one for one in imported(path, package) if one in modules and one != package} - {
            module
        }
    assert list(TopologicalSorter(graph).static_order())


def test_the_simulator_imports_nothing_of_the_collection() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(SIMULATOR)
        for name in imported(path)
        if name.partition(".")[0] in COLLECTION
    }
    assert not found


def test_nothing_but_its_command_imports_the_simulator() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("plugins", "roles", "scripts")
        for path in python_files(ROOT / folder)
        for name in imported(path)
        if name.partition(".")[0] in SIMULATED
    }
    assert not found
