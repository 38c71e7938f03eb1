# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""References from code, data and tests to the documents lead to a page and a heading that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("inventory", "molecule", "playbooks", "plugins", "roles", "scripts", "simulator", "tests")
SUFFIXES = {"", ".j2", ".md", ".py", ".sh", ".yml"}
# A page of docs/, alone or with headings in quotes behind it, also after a line break.
_REFERENCE = re.compile(r'\bdocs/([\w-]+\.md)((?:,?(?: and)?\s+(?:# )?"[^"\n]+")*)')


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and "__pycache__" not in path.parts:
                yield path


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_references_lead_somewhere() -> None:
    broken = []
    for path, text in texts():
        for page, named in _REFERENCE.findall(text):
            target = ROOT / "docs" / page
            known = (
                set(re.findall(r"^#+ +(.+?) *$", target.read_text(), re.MULTILINE))
                if target.is_file()
                else set()
            )
            broken += [
                f"{path.relative_to(ROOT)}: docs/{page} {heading}"
                for heading in re.findall(r'"([^"]+)"', named) or ([] if known else [""])
                if heading not in known
            ]
    assert not broken


def test_no_reference_leaves_the_repository() -> None:
    """Numbered sections are those of notes that nobody else has."""
    sign = "\N{SECTION SIGN}"
    assert not [str(path.relative_to(ROOT)) for path, text in texts() if sign in text]
