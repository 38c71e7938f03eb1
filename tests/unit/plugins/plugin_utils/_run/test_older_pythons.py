# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is sent to servers, run by every Python of this machine; where it has only one, vermin is the proof
(scripts/lint)."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import entry as hccn
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import fast_script, server_python

ROOT = Path(__file__).resolve().parents[5]
OURS = server_python.OURS


PYTHONS: dict[tuple[int, int], Path] = runpy.run_path(str(ROOT / "scripts" / "environments.py"))["pythons"]()
each_python = pytest.mark.parametrize(
    ("version", "python"), PYTHONS.items(), ids=[f"{major}.{minor}" for major, minor in PYTHONS]
)
our_pythons = pytest.mark.parametrize(
    "python",
    [python for version, python in PYTHONS.items() if version >= OURS],
    ids=[f"{major}.{minor}" for major, minor in PYTHONS if (major, minor) >= OURS],
)


def run(python: Path, text: str) -> dict[str, Any]:
    """What a script tells, run as on a server."""
    done = subprocess.run(
        [python, *fast_script.FLAGS.split(), "-"], input=text, capture_output=True, text=True, check=False
    )
    found = fast_script.result_in(done.stdout)
    assert found is not None, done.stderr
    return found


@pytest.fixture(autouse=True)
def _our_own_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection's, not that of the ansible-core that the tests run with."""
    monkeypatch.setattr(server_python, "NEEDED", OURS)


@each_python
def test_a_script_runs_or_says_that_python_is_too_old(
    version: tuple[int, int], python: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho 'link status: UP'\n")
    tool.chmod(0o755)
    options = {name: one.get("default") for name, one in hccn.ARGUMENTS.items()}
    options |= {"chips": [0, 1], "hccn_tool": str(tool), "npu_smi": str(tmp_path / "none")}
    found = run(python, fast_script.script("_hccn.entry", "check", options))
    if version < OURS:
        assert found["failed"] and found["python"].startswith(".".join(map(str, version)))
    else:
        here = json.loads(json.dumps(hccn.check(options)))
        assert {**found, "seconds": 0, "msg": ""} == {**here, "seconds": 0, "msg": ""}


def standalone() -> list[str]:
    """The files of module_utils that need no Ansible, by their names with dots."""
    folder = fast_script.SOURCES
    names = [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in sorted(folder.rglob("*.py"))
        if path.name != "__init__.py"
    ]
    return [
        name
        for name in names
        if not any("ansible.module_utils" in (text or "") for text in fast_script.sources(name).values())
    ]


def importing(names: list[str]) -> str:
    """A script's first lines, after which it can import these files of module_utils."""
    texts = {key: text for name in names for key, text in fast_script.sources(name).items()}
    head, _, _ = fast_script.script("_hccn.entry", "check", {}).partition("class Sources")
    loader = fast_script._SCRIPT.partition("class Sources")[2].partition("from {package}")[0]
    modules = {f"{fast_script.PACKAGE}.{name}".rstrip("."): text for name, text in texts.items()}
    return f"{head}class Sources{loader.format(texts=ascii(modules))}"


@our_pythons
def test_everything_that_needs_no_ansible_is_imported(python: Path) -> None:
    names = standalone()
    imports = "".join(f"import {fast_script.PACKAGE}.{name}\n" for name in names)
    assert len(names) > 30
    assert run(python, importing(names) + imports + 'tell({"imported": True})\n') == {"imported": True}


COMMANDS = f"""
from {fast_script.PACKAGE}._commands import Command, run_commands
commands = {{
    "says": Command("sh", "x", ["sh", "-c", "echo out; echo err >&2; exit 3"], 60),
    "missing": Command("no", "x", ["/no/such/tool"], 60),
    "hangs": Command("sh", "x", ["sh", "-c", "trap '' TERM; sleep 600 & wait"], 0.2),
}}
tell({{name: [one.text, one.status, one.problem] for name, one in run_commands(commands).items()}})
"""


@our_pythons
def test_commands_run(python: Path) -> None:
    found = run(python, importing(["_commands"]) + COMMANDS)
    assert found["says"] == ["out\nerr\n", 3, None]
    assert found["missing"][1:] == [None, "missing"]
    assert found["hangs"] == ["", None, "timeout"]


def test_the_python_of_the_tests_is_among_them() -> None:
    assert sys.version_info[:2] in PYTHONS
