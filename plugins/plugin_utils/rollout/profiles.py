# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Profiles: a model's default engine arguments and environment per role, one data file per model, under
``data/profiles``.

Changes of later releases are in the same file under ``releases``: they are merged over the rest from that
release on; ``null`` removes an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .connectors import version
from .data import load, names


@dataclass(frozen=True)
class RoleProfile:
    env: Mapping[str, str]
    args: Mapping[str, Any]
    # The same flags with dashes only, as vLLM's parser reads them.
    flags: Mapping[str, Any]
    # Computed flags that are written even if their value is vLLM's default.
    explicit: frozenset[str]
    kv_module_path: str | None
    kv_extra_config: Mapping[str, Any]


@dataclass(frozen=True)
class Profile:
    name: str
    description: str
    # The sources of the settings, one line each.
    sources: tuple[str, ...]
    # The model's name, None for any model.
    model: str | None
    # "mla", "gqa" or None if not known: rules about the attention then report nothing.
    attention: str | None
    experts: bool | None
    heads: int | None
    kv_heads: int | None
    # Number of hidden layers.
    layers: int | None
    preload: tuple[str, ...]
    library_path: tuple[str, ...]
    roles: Mapping[str, RoleProfile]


def profile_names() -> tuple[str, ...]:
    return names("profiles")


@cache
def load_profile(name: str, release: str) -> Profile:
    """Load a profile in the form for a release; raises KeyError if there is no profile of that name."""
    raw = load("profiles", name)
    model = raw["model"]
    for since in sorted(raw.get("releases") or {}, key=version):
        if version(since) <= version(release):
            raw["roles"] = _laid_over(raw["roles"], raw["releases"][since])
    return Profile(
        name=str(raw["name"]),
        description=str(raw["description"]),
        sources=tuple(raw["sources"]),
        model=model["name"],
        attention=model.get("attention"),
        experts=model.get("experts"),
        heads=model.get("heads"),
        kv_heads=model.get("kv_heads"),
        layers=model.get("layers"),
        preload=tuple(raw["preload"]),
        library_path=tuple(raw["library_path"]),
        roles={
            role: RoleProfile(
                env={str(k): str(v) for k, v in value["env"].items()},
                args=dict(value["args"]),
                flags={name.replace("_", "-"): flag for name, flag in value["args"].items()},
                explicit=frozenset(value["explicit"]),
                kv_module_path=value.get("kv_module_path"),
                kv_extra_config=dict(value["kv_extra_config"]),
            )
            for role, value in raw["roles"].items()
        },
    )


def _laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` merged over it at every depth; null removes an entry."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = _laid_over(below, value)
        else:
            result[key] = value
    return result
