# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Profiles: a model's default engine arguments and environment per role, a data file each, under
``data/profiles``.

What a later release changes stands in the file too, under ``releases``: laid over the rest from that release
on, where ``null`` takes something away.
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
    # The same flags with dashes only, as vLLM's parser sees them.
    flags: Mapping[str, Any]
    # Computed flags that are written even where their value is vLLM's default.
    explicit: frozenset[str]
    kv_module_path: str | None
    kv_extra_config: Mapping[str, Any]


@dataclass(frozen=True)
class Profile:
    name: str
    description: str
    # Where the settings are from, one line each.
    sources: tuple[str, ...]
    # The model's name, None for any.
    model: str | None
    # "mla", "gqa" or None where it is not known: rules about the attention then stay silent.
    attention: str | None
    experts: bool | None
    heads: int | None
    kv_heads: int | None
    # Hidden layers.
    layers: int | None
    preload: tuple[str, ...]
    library_path: tuple[str, ...]
    roles: Mapping[str, RoleProfile]


def profile_names() -> tuple[str, ...]:
    return names("profiles")


@cache
def load_profile(name: str, release: str) -> Profile:
    """The profile of that name as a release wants it; KeyError if there is none."""
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
    """Mappings with changes laid over them at every depth; null takes an entry away."""
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
