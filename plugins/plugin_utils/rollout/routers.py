# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The routers between clients and engines: the proxy script of vllm-ascend, and vllm-router."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from .data import load

# The unmodified proxy script of the release for the connector, or the router of the vLLM project.
Router = Literal["upstream", "vllm_router"]

# The kind of an option's value: int, float, str, words (several), repeated (the option once for each), switch
# (none), or the allowed values.
Kind = str | tuple[str, ...]


@dataclass(frozen=True)
class VllmRouter:
    """vllm-router in the version that is pinned here."""

    version: str
    # By architecture of a server: file names of wheels, with the SHA-256 of each.
    wheels: Mapping[str, Mapping[str, str]]
    options: Mapping[str, Kind]
    # The lowest and the highest values that it accepts, where its parser does not limit them.
    at_least: Mapping[str, float]
    at_most: Mapping[str, float]
    # Bytes of the largest request, unless max-payload-size is set.
    max_payload: int

    @property
    def directory(self) -> str:
        """The name of the directory into which the wheels are unpacked: it changes with any of them."""
        pins = sorted(f"{name} {pin}" for wheels in self.wheels.values() for name, pin in wheels.items())
        return f"vllm-router-{self.version}-{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:12]}"


@cache
def vllm_router() -> VllmRouter:
    """Load the facts about vllm-router."""
    raw = load("routers", "vllm_router")
    version = str(raw["version"])
    return VllmRouter(
        version=version,
        wheels={
            machine: {str(name): str(pin) for name, pin in wheels.items()}
            for machine, wheels in raw["wheels"].items()
        },
        options=kinds(load("router_options", version)["options"]),
        at_least={name: float(value) for name, value in raw["at_least"].items()},
        at_most={name: float(value) for name, value in raw["at_most"].items()},
        max_payload=int(raw["max_payload"]),
    )


def kinds(raw: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the options of a data file with the kinds of their values."""
    return {
        str(name): tuple(str(choice) for choice in kind) if isinstance(kind, list) else str(kind)
        for name, kind in raw.items()
    }


@dataclass(frozen=True)
class Option:
    """An option of pd_router_args as it is spelt, and the option that is meant."""

    spelt: str
    name: str
    value: Any


def given_options(options: Mapping[str, Kind], args: Mapping[str, Any]) -> Iterator[Option]:
    """Yield the options of pd_router_args. Underscores count as dashes, and an unambiguous beginning is
    enough, as for argparse."""
    for spelt, value in args.items():
        name = spelt.replace("_", "-")
        if name not in options:
            begun = [known for known in options if known.startswith(name)]
            name = begun[0] if len(begun) == 1 else name
        yield Option(spelt, name, value)
