# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What runs on servers keeps to their Python, and one that is too old is one finding in plain words."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import (
    hccn_cluster,
    host_cluster,
    report,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import fast_script as p
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import server_python

PLUGINS = Path(p.__file__).parents[2]
SENT = sorted([*PLUGINS.glob("module_utils/**/*.py"), *PLUGINS.glob("modules/*.py")])
# Names and arguments of the standard library that came after 3.7, as far as people reach for them.
NEWER_NAMES = {
    "cache",
    "cached_property",
    "graphlib",
    "hardlink_to",
    "is_relative_to",
    "pairwise",
    "pidfd_open",
    "prod",
    "readlink",
    "removeprefix",
    "removesuffix",
    "to_thread",
    "tomllib",
    "waitstatus_to_exitcode",
    "with_stem",
    "zoneinfo",
}
NEWER_ARGUMENTS = {
    "unlink": {"missing_ok"},
    "zip": {"strict"},
    "copytree": {"dirs_exist_ok"},
    "dataclass": {"slots", "kw_only"},
    "split": set(),
}


@pytest.mark.parametrize("path", SENT, ids=lambda path: path.name)
def test_what_is_sent_runs_on_the_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.NamedExpr), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.FunctionDef):
            assert not node.args.posonlyargs, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and not (node.attr == "readlink" and _is_os(node.value)):
            assert node.attr not in NEWER_NAMES, f"{path.name}:{node.lineno}: {node.attr}"
        if isinstance(node, ast.ImportFrom):
            assert not {one.name for one in node.names} & NEWER_NAMES, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            # Of two mappings; sound syntax for older ones, too, which end in the middle of the work.
            sides = (node.left, node.right)
            assert not any(isinstance(one, (ast.Dict, ast.DictComp)) for one in sides), (
                f"{path.name}:{node.lineno}"
            )
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {one.arg for one in node.keywords}
            assert not given & NEWER_ARGUMENTS.get(name, set()), f"{path.name}:{node.lineno}: {name}"


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def test_the_script_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_python, "NEEDED", (9, 9))
    text = p.script("_hccn.entry", "check", {})
    done = subprocess.run(
        [sys.executable, *p.FLAGS.split(), "-"], input=text, capture_output=True, text=True, check=False
    )
    found = p.result_in(done.stdout)
    assert found == {"failed": True, "changed": False, "python": ".".join(map(str, sys.version_info[:3]))}
    # Every Python 3 reads it so far.
    head = text.partition("class Sources")[0]
    ast.parse(head, feature_version=(3, 4))


TRACE = """Traceback (most recent call last):
  File "<stdin>", line 260, in _ansiballz_main
    def import_controller_module(_module_name: str, /) -> t.Any:
                                                    ^
SyntaxError: invalid syntax
"""


@pytest.mark.parametrize(
    ("theirs", "needed"),
    [(True, (3, 7)), ((3, 7), (3, 7)), ((3, 8), (3, 8)), ((3, 9), (3, 9))],
    ids=["2.16", "2.17", "2.19", "2.21"],
)
def test_the_floor_is_the_higher_one_of_both(
    theirs: Any, needed: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_python.basic, "_PY_MIN", theirs)
    assert server_python._needed() == needed


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ({"module_stderr": TRACE, "msg": "Module result deserialization failed"}, ""),
        ({"module_stderr": "SyntaxError: future feature annotations is not defined", "msg": "x"}, ""),
        (
            {"msg": "ansible-core requires a minimum of Python version 3.8. Current version: 3.7.16 (x)"},
            " 3.7.16",
        ),
        (
            {"msg": "Ansible requires Python 3.9 or newer on the target. Current version: 3.8.10 (x)"},
            " 3.8.10",
        ),
    ],
)
def test_a_traceback_becomes_a_sentence(said: dict[str, Any], version: str) -> None:
    found = server_python.reworded({"failed": True, "rc": 1, **said}, "/usr/bin/python3")
    assert found is not None
    assert found["failed"]
    assert found["msg"].startswith(f"Python{version} at /usr/bin/python3 is too old")
    assert "ansible_python_interpreter" in found["msg"]
    assert "Traceback" not in json.dumps(found)


@pytest.mark.parametrize(
    "result",
    [{"failed": True, "msg": "no such file"}, {"msg": "SyntaxError: invalid syntax", "failed": False}],
)
def test_other_failures_keep_their_words(result: dict[str, Any]) -> None:
    assert server_python.reworded(result, "/usr/bin/python3") is None


@pytest.mark.parametrize("check", [host_cluster.not_checked, hccn_cluster.not_checked])
def test_it_is_one_finding_with_its_cure(check: Any) -> None:
    reason = server_python.too_old("3.6.8", "/usr/bin/python3")
    found = check(["a", "b"], {"a": f"Task failed: {reason}", "b": "no such file"})
    old, other = found if found[0].host == "a" else reversed(found)
    assert (old.code, old.host, old.seen) == ("host-python-old", "a", reason)
    assert old.cure.startswith("ansible_python_interpreter: ")
    assert server_python.needed() in old.expected
    assert other.code.endswith("-not-checked")


def test_it_hides_what_follows_from_it() -> None:
    reason = server_python.too_old("3.6.8", "/usr/bin/python3")
    found = [
        *hccn_cluster.not_checked(["a", "b"], {"a": reason, "b": ""}),
        *host_cluster.not_checked(["a", "b"], {}),
    ]
    assert sorted((one.code, one.host) for one in report.one_cause(found)) == [
        ("hccn-not-checked", "b"),
        ("host-python-old", "a"),
    ]


def test_the_documents_say_the_same() -> None:
    text = (PLUGINS.parent / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    release = ".".join(server_python.__version__.split(".")[:2])
    floors = [row[3] for row in rows if len(row) == 4 and release in row[0].split(", ")]
    assert floors == [f"{server_python.needed()} or later"]
