# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Functions of module_utils as scripts: the same result, from all that they import and from nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import entry as hccn_server
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import fast_script as p

DEFAULTS = {name: one.get("default") for name, one in hccn_server.ARGUMENTS.items()}


def piped(options: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The script as a server runs it: from its input, in a directory that it must not import from."""
    (folder / "json.py").write_text("raise SystemExit('imported from the directory')")
    return subprocess.run(
        [sys.executable, *p.FLAGS.split(), "-"],
        input=p.script("_hccn.entry", "check", options),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("seconds", "msg")}


def test_the_script_gives_the_module_s_result(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho 'link status: 正常 \"'\n")
    tool.chmod(0o755)
    options = {**DEFAULTS, "chips": [0, 1], "hccn_tool": str(tool), "npu_smi": str(tool / "none")}
    done = piped(options, tmp_path)
    found = p.result_in(f"Welcome!\n{done.stdout}")
    assert found is not None, done.stderr
    assert without_time(found) == without_time(json.loads(json.dumps(hccn_server.check(options))))
    assert found["failed"]


@pytest.mark.parametrize(
    "entry",
    ["_hccn.entry", "_host.entry", "_host.reach", "_serving.entry", "_docker.entry", "_transfer.image_entry"],
)
def test_the_script_needs_nothing_that_a_server_may_lack(entry: str) -> None:
    for name, text in p.sources(entry).items():
        for node in ast.walk(ast.parse(text or "")):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            assert {one.split(".")[0] for one in names} <= sys.stdlib_module_names, name


def test_the_other_scripts_start(tmp_path: Path) -> None:
    for entry, function, options, key in (
        (
            "_hccn.entry",
            "ping",
            {"targets": {}, "timeout": 1, "hccn_tool": "~/none", "kind": "ping"},
            "count",
        ),
        (
            "_host.reach",
            "reach",
            {"targets": [], "timeout": 1, **dict.fromkeys(("listener", "stop"))},
            "count",
        ),
    ):
        text = p.script(entry, function, {"name": "", "patience": 0, **options})
        done = subprocess.run(
            [sys.executable, *p.FLAGS.split(), "-"], input=text, capture_output=True, text=True, check=False
        )
        assert (p.result_in(done.stdout) or {}).get(key) == 0, done.stderr


@pytest.mark.parametrize("output", ["", "bash: python: not found\n", f"{p.MARK}[]\n"])
def test_no_result(output: str) -> None:
    assert p.result_in(output) is None


FILES = [
    ".".join(path.relative_to(p.SOURCES).with_suffix("").parts)
    for path in sorted(p.SOURCES.rglob("*.py"))
    if path.name != "__init__.py"
]


@pytest.mark.parametrize("name", FILES)
def test_all_imports_are_found(name: str) -> None:
    text = p.SOURCES.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    expected = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = name.split(".")[: -node.level]
            package = ".".join([*parents, *(node.module or "").split(".")]).strip(".")
            folder = p.SOURCES.joinpath(*package.split("."))
            expected |= (
                {f"{package}.{n.name}".lstrip(".") for n in node.names} if folder.is_dir() else {package}
            )
    assert set(p._imported(name, text)) == expected
