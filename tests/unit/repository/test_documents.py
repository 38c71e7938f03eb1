# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Documents lead somewhere: links, headings, the index of docs/, the lists of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "roles", "plugins", "simulator")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
# Patterns of what is not in the tarball.
IGNORED: list[str] = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """File and heading of each link of a document that stays in the repository."""
    for target in _LINK.findall(_CODE.sub("", document.read_text(encoding="utf-8"))):
        if "://" not in target:
            file, _, heading = target.partition("#")
            yield (document.parent / file).resolve() if file else document, heading


@cache
def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub and most renderers make them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(next(a for a in (anchor, *(f"{anchor}-{i}" for i in range(1, 99))) if a not in found))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = [
        f"{name(file)}#{heading}" if file.is_relative_to(ROOT) else str(file)
        for file, heading in links(document)
        if not file.exists() or (heading and heading not in headings(file))
    ]
    assert not broken


def shipped(path: Path) -> bool:
    """Whether a file is in the tarball: neither it nor a folder above it is left out."""
    every = [str(part) for part in (path.relative_to(ROOT), *path.relative_to(ROOT).parents)]
    return not any(fnmatch(part, pattern) for part in every[:-1] for pattern in IGNORED)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if shipped(path)], ids=name)
def test_what_is_shipped_links_to_what_is_shipped(document: Path) -> None:
    """Who has installed the collection can follow each link."""
    assert not [name(file) for file, _ in links(document) if not shipped(file)]


def test_every_page_is_reachable_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    reached = {index}
    waiting = [index]
    while waiting:
        for file, _ in links(waiting.pop()):
            if file not in reached:
                reached.add(file)
                waiting.extend([file] if file.suffix == ".md" and file.is_file() else [])
    assert set((ROOT / "docs").glob("*.md")) <= reached
    assert set((ROOT / "roles").glob("[a-z]*/README.md")) <= reached


def test_the_readme_lists_every_playbook() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # Those whose names begin with _ are parts of these.
    playbooks = {path.name for path in (ROOT / "playbooks").glob("[a-z]*.yml")}
    assert set(re.findall(r"^\| `(\w+\.yml)` \|", text, flags=re.MULTILINE)) == playbooks


def test_the_readme_lists_every_role_module_and_filter() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gen_contents_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nrun scripts/gen_contents_docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_is_named_exists(document: Path) -> None:
    """Roles, plugins and playbooks that a document names in full."""
    known = {
        path.stem if path.is_file() else path.name
        for pattern in ("roles/*", "playbooks/*.yml", "plugins/modules/*.py", "plugins/filter/*.py")
        for path in ROOT.glob(pattern)
    }
    named = re.findall(r"\bascend\.pd_rollout\.(\w+)", document.read_text(encoding="utf-8"))
    assert set(named) - {"NAME"} <= known


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_exist(document: str) -> None:
    """What those who carry on are sent to: paths in code spans, without a placeholder."""
    folders = "changelogs|docs|inventory|molecule|playbooks|plugins|roles|scripts|simulator|tests"
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
