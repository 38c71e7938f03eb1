# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The planner's data files next to this module: YAML, and the parts of launch scripts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

_ROOT = Path(__file__).parent
# libyaml is ten times as fast; PyYAML may be built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of the data files of a kind, such as ``releases``."""
    return tuple(sorted(path.stem for path in (_ROOT / kind).glob("*.yml")))


def load(kind: str, name: str) -> dict[str, Any]:
    """Load one data file; raises KeyError if there is none of that name."""
    if name not in names(kind):
        raise KeyError(name)
    return read(_ROOT / kind / f"{name}.yml")


def read(path: Path) -> dict[str, Any]:
    """Load a YAML file of the collection whose content is a mapping."""
    return cast("dict[str, Any]", yaml.load(path.read_text(encoding="utf-8"), _LOADER))


@cache
def text(kind: str, name: str) -> str:
    """Return a file of the front or of the guard: a configuration, a unit, or what they run."""
    return (_ROOT / kind / name).read_text(encoding="utf-8")


@cache
def script(name: str) -> str:
    """Return a part of the launch scripts without the comments at its head; a complete script as it is."""
    text = (_ROOT / "scripts" / name).read_text(encoding="utf-8")
    return text if text.startswith("#!") else text.split("\n\n", 1)[1]
