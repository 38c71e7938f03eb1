#!/usr/bin/env python3
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write down which environment variables a release reads, and which keys of `--additional-config`: names.

    python scripts/gen_environment.py [v0.18.0 …]

They are read from the syntax of the two source distributions of the release, vLLM's and vllm-ascend's,
which are fetched with unearth, pinned by their hashes, and never run. One file for each release is written
under plugins/plugin_utils/rollout/data/environment.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "plugins" / "plugin_utils" / "rollout" / "data" / "environment"

# Release -> the requirement and the sha256 of each source distribution.
SOURCES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "v0.13.0": (
        ("vllm==0.13.0", "4ad43db45fef37114b550d03a4f423fb3fa3a31d8bc09ee810ef8b9cdcd4b5fe"),
        ("vllm-ascend==0.13.0", "ab0e9bc12b9a4042c261901ccad96f4faab6e6d04cf5131f7cc2358aafda3a36"),
    ),
    "v0.18.0": (
        ("vllm==0.18.0", "9a1bee091db8dbb4664a2a09cd9c61912e9912a44af1ce12b8593a231d05971c"),
        ("vllm-ascend==0.18.0", "8df042cfaae06fab993bff5f38bb45097634c3f398b2cf74e068347abdddb344"),
    ),
    "v0.23.0": (
        ("vllm==0.23.0", "760269db3d9611e12e524681df1bca0977d5d2f5fcb4481cc34d33efc4ae7ff5"),
        ("vllm-ascend==0.23.0.post1", "a3b9f4a5dd7aa50c37e03d1f35937c4ae5aeacc49b734cac74d59ce5757738e1"),
    ),
}

# The dictionaries of envs.py whose keys are variables.
TABLES = frozenset({"environment_variables", "env_variables"})
PACKAGES = ("vllm", "vllm_ascend")


def fetch(requirement: str, sha256: str, folder: Path) -> Path:
    """The source distribution in the folder; SystemExit if it is another than the pinned one."""
    unearth = Path(sys.executable).with_name("unearth")
    subprocess.run(
        [str(unearth), requirement, "--no-binary", "--download", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    (archive,) = folder.glob("*.tar.gz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{archive.name} has sha256 {found}, expected {sha256}: not used")
    return archive


def modules(archive: Path) -> Iterator[ast.Module]:
    """The syntax of every module of the packages in a source distribution."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if len(parts) > 2 and parts[1] in PACKAGES and member.name.endswith(".py") and member.isfile():
                handle = tar.extractfile(member)
                if handle is not None:
                    yield ast.parse(handle.read(), member.name)


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_environ(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def _named(node: ast.expr) -> str:
    """The last name of an expression such as a.b.c."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def environment(tree: ast.Module) -> Iterator[str]:
    """Variables that a module reads: keys of the tables of envs.py, os.getenv, os.environ."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if any(_named(target) in TABLES for target in targets):
                yield from (name for key in node.value.keys if key and (name := _constant(key)))
        elif isinstance(node, ast.Call) and node.args and (name := _constant(node.args[0])):
            function = node.func
            if _named(function) == "getenv" or (
                isinstance(function, ast.Attribute)
                and function.attr in ("get", "setdefault", "pop")
                and _is_environ(function.value)
            ):
                yield name
        elif (
            isinstance(node, ast.Subscript) and _is_environ(node.value) and (name := _constant(node.slice))
        ) or (
            isinstance(node, ast.Compare)
            and (name := _constant(node.left))
            and any(_is_environ(other) for other in node.comparators)
        ):
            yield name


def additional_config(tree: ast.Module) -> Iterator[str]:
    """Top-level keys of --additional-config that a module reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            read = node.func.attr in ("get", "pop") and _named(node.func.value) == "additional_config"
            name = _constant(node.args[0]) if read else None
        elif isinstance(node, ast.Subscript) and _named(node.value) == "additional_config":
            name = _constant(node.slice)
        else:
            continue
        if name is not None:
            yield name


def moved(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(key, variable) where a key of --additional-config takes the place of a variable, by vllm-ascend's
    helper."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _named(node.func) == "_get_config_value" and len(node.args) > 2:
            key, variable = _constant(node.args[1]), _constant(node.args[2])
            if key and variable:
                yield key, variable


def text(release: str, variables: set[str], keys: set[str], places: dict[str, str]) -> str:
    wanted = sorted(name for name in variables if name.replace("_", "").isalnum() and name.isupper())
    lines = [
        "---",
        f"# What the code of release {release} reads. Written by scripts/gen_environment.py: not by hand.",
        "# Environment variables of vLLM and of vllm-ascend.",
        "variables:",
        *(f"  - {name}" for name in wanted),
        "# Keys of --additional-config.",
        "additional_config:",
        *(f"  - {name}" for name in sorted(keys)),
        "# Deprecated variables, and the key of --additional-config that takes the place of each.",
        "deprecated:" + ("" if places else " {}"),
        *(f"  {name}: {key}" for name, key in sorted(places.items())),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", nargs="*", default=[], help="releases (default: all of them)")
    for release in parser.parse_args().release or SOURCES:
        variables: set[str] = set()
        keys: set[str] = set()
        places: dict[str, str] = {}
        for requirement, sha256 in SOURCES[release]:
            with tempfile.TemporaryDirectory() as folder:
                for tree in modules(fetch(requirement, sha256, Path(folder))):
                    variables.update(environment(tree))
                    keys.update(additional_config(tree))
                    places.update((name, key) for key, name in moved(tree))
        keys.update(places.values())
        DATA.mkdir(exist_ok=True)
        (DATA / f"{release}.yml").write_text(text(release, variables, keys, places), encoding="utf-8")
        print(f"{release}: {len(variables)} variables, {len(keys)} keys of --additional-config")


if __name__ == "__main__":
    main()
