# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The rules that an inventory must keep, one function each.

Most of them are upstream's own, which the engines check only after minutes of start-up; the messages carry
the same words and numbers. A new rule is one function here with a code, a severity, a message, a cure and a
source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..findings import Finding
from ..model import Cluster
from ..ports import PortUse
from . import (
    advice,
    agreement,
    config,
    connector,
    engine,
    network,
    pipeline,
    ports,
    release,
    release_sizes,
    shell,
    sizes,
    transfer,
)
from .base import Context, all_rules

__all__ = [
    "advice",
    "agreement",
    "all_rules",
    "check",
    "config",
    "connector",
    "engine",
    "network",
    "pipeline",
    "ports",
    "release",
    "release_sizes",
    "shell",
    "sizes",
    "transfer",
]


def check(
    cluster: Cluster, table: Mapping[str, tuple[PortUse, ...]], wanted_topology: str | None = None
) -> Iterator[Finding]:
    """What every rule finds in a cluster."""
    context = Context(cluster, table, wanted_topology)
    for rule, function in all_rules():
        yield from function(rule, context)
