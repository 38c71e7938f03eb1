# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Which Python servers need, and how it shows that theirs is too old."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils import basic
from ansible.release import __version__

# What runs on servers keeps to it: pyproject.toml has ruff look at its syntax.
OURS = (3, 7)


def _needed() -> tuple[int, ...]:
    """The oldest Python that both this collection and the running ansible-core send their code to.

    docs/versions.md lists the floor of each ansible-core. 2.16 keeps its own (2.7 and 3.6) in another form.
    """
    theirs = getattr(basic, "_PY_MIN", None)
    return max(OURS, theirs[:2]) if isinstance(theirs, tuple) else OURS


NEEDED = _needed()

# The words of the failure, which the report looks for.
WORDS = "is too old for what runs on servers"
_TOLD = re.compile(rf"Python\b[^\n]*? {WORDS}[^\n]*")

# How a Python that is too old refuses what ansible-core or this collection sends it.
_SIGNS = re.compile(
    r"requires a minimum of Python version"
    r"|Ansible requires Python [\d.]+ or newer on the target"
    r"|SyntaxError: (future feature annotations is not defined|invalid syntax|positional-only)"
    r"|No module named '?(dataclasses|importlib\.machinery)'?|Unknown option: -I"
)
_VERSION = re.compile(r"Current version: (\d+\.\d+\S*)")


def needed() -> str:
    return ".".join(map(str, NEEDED))


def too_old(version: str, path: str) -> str:
    """The failure, in words. `version` may not be known."""
    return (
        f"Python{f' {version}' if version else ''} at {path} {WORDS}: ansible-core {__version__} and this "
        f"collection need {needed()} or newer there. Name another one with ansible_python_interpreter."
    )


def stated(reason: str) -> str | None:
    """That sentence in the words of a failed task, if it failed for that."""
    found = _TOLD.search(" ".join(reason.split()))
    return found.group() if found else None


def reworded(result: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The result of a module that could not even start, in words that say why; None where it is another."""
    texts = [str(result.get(name) or "") for name in ("msg", "module_stderr", "module_stdout", "exception")]
    said = "\n".join(texts)
    if not result.get("failed") or not _SIGNS.search(said):
        return None
    found = _VERSION.search(said)
    kept = {
        name: value
        for name, value in result.items()
        if not name.startswith("module_") and name != "exception"
    }
    return {**kept, "msg": too_old(found.group(1) if found else "", path)}
