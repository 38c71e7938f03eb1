# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about secrets: they belong in files, not in what everyone can read."""

from __future__ import annotations

from collections.abc import Iterator

from .. import secrecy
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..model import canonical
from .base import (
    Context,
    at_node,
    given,
    rule,
)

# Flags that carry a secret: a command line is readable by every user of the server.
SECRET_FLAGS = frozenset({"api-key", "hf-token"})

_SECRET_ENV = frozenset(
    {"VLLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"}
)


@rule(
    "PD404",
    ERROR,
    "No secret is on a command line or in the plan",
    cure=(
        "use pd_api_key for the API key; pass other secrets in a file that pd_extra_mounts mounts into "
        "the container"
    ),
    source="docs/variables.md",
)
def no_secrets(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        names = [
            f"--{name}" for _, name, value in given(c, node) if name in SECRET_FLAGS and value is not None
        ]
        names += [
            name
            for name, value in node.settings.engine_env.items()
            if name in _SECRET_ENV and value is not None
        ]
        for name in names:
            yield r.at(
                f"{name} would expose a secret to every user of the server and in plan.json",
                **at_node(instance, node),
                variable="pd_engine_args" if name.startswith("--") else "pd_engine_env",
                seen=f"{name} (value not shown)",
                expected="no secret",
            )


@rule(
    "PD450",
    WARNING,
    "Values that look like secrets are passed in a file",
    cure="pass it in a file that pd_extra_mounts mounts into the container; keep it if it is not a secret",
    source="docs/variables.md",
)
def likely_secrets(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes():
        found = dict.fromkeys((variable, place) for variable, place, _ in secrecy.in_settings(node.settings))
        for variable, place in found:
            if place in _SECRET_ENV or canonical(place) in SECRET_FLAGS:
                continue  # of these PD404 speaks
            where = (
                "the launch script, which root can read"
                if variable == "pd_engine_env"
                else "the engine's command line, which every user of the server can read"
            )
            yield r.at(
                f"{shown(place, 80)} looks like a secret: it is written to {where}, and to the plan's files",
                **at_node(instance, node),
                variable=variable,
                seen=f"{shown(place, 80)} (value not shown)",
            )
