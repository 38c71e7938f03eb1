# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The rules that an inventory must keep, one function each.

Most of them are upstream's own, which the engines check only after minutes of start-up; their messages have
the same words and numbers. A new rule is one function here with a code, a severity, a message, a cure and a
source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import Finding, Rule
from ..model import Cluster
from ..ports import PortUse
from . import (
    advice,
    agreement,
    batches,
    config,
    connector,
    features,
    flags,
    front,
    inventory,
    network,
    pipeline,
    ports,
    release,
    release_sizes,
    router,
    secrets,
    shell,
    sizes,
    transfer,
    transfer_sizes,
)
from .base import Check, Context, all_rules

__all__ = [
    "advice",
    "agreement",
    "all_rules",
    "batches",
    "check",
    "config",
    "connector",
    "features",
    "flags",
    "front",
    "inventory",
    "network",
    "pipeline",
    "ports",
    "release",
    "release_sizes",
    "router",
    "secrets",
    "shell",
    "sizes",
    "transfer",
    "transfer_sizes",
]


def check(
    cluster: Cluster, table: Mapping[str, tuple[PortUse, ...]], wanted_topology: str | None = None
) -> Iterator[Finding]:
    """Yield the findings of every rule in a cluster.

    ``table`` has every host's ports, ``wanted_topology`` the topology that a playbook requires, if any.
    """
    context = Context(cluster, table, wanted_topology)
    for rule, function in all_rules():
        if cluster.declaration.release_known or not _of_release(rule, function):
            yield from function(rule, context)


# Rules about a release's features: if the default replaces an unknown release, their findings would mislead.
_RELEASES = frozenset({release.__name__, release_sizes.__name__, connector.__name__})
_FLAGS = frozenset({"PD401", "PD403", "PD418", "PD448", "PD449"})


def _of_release(rule: Rule, function: Check) -> bool:
    return rule.code in _FLAGS or function.__module__ in _RELEASES
