# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The list of engines with which a router is started: its options, its labels, and routers with other lists.

The planner writes the list of all engines, each step of a change and the guard those of some of them: all of
them must write the same, byte for byte, or routers would be replaced by equal ones.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

Plan = TypeVar("Plan", bound="Mapping[str, Any]")


def backend_words(
    router: str, prefillers: Sequence[Mapping[str, Any]], decoders: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Return the options with which a router is told its backends, each with its words.

    router: ``upstream`` or ``vllm_router``.
    prefillers, decoders: APIs, with ``host`` and ``port``.
    """
    if router == "upstream":
        return [
            ["--prefiller-hosts", *(str(one["host"]) for one in prefillers)],
            ["--prefiller-ports", *(str(one["port"]) for one in prefillers)],
            ["--decoder-hosts", *(str(one["host"]) for one in decoders)],
            ["--decoder-ports", *(str(one["port"]) for one in decoders)],
        ]
    return [
        *(["--prefill", url(one)] for one in prefillers),
        *(["--decode", url(one)] for one in decoders),
    ]


def expected_backends(
    router: str, prefillers: Sequence[Mapping[str, Any]], decoders: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a router's health check reports of its backends: the upstream script numbers, vllm-router
    URLs by role."""
    if router == "upstream":
        return {"prefill_instances": len(prefillers), "decode_instances": len(decoders)}
    return {"prefill": [url(one) for one in prefillers], "decode": [url(one) for one in decoders]}


def list_labels(
    prefillers: Sequence[Mapping[str, Any]], decoders: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the labels of a router's container that say which APIs it lists."""
    return {
        "pd_rollout.prefillers": places(prefillers),
        "pd_rollout.decoders": places(decoders),
    }


def relisted(
    router: Plan,
    before: Mapping[str, Any],
    prefillers: Sequence[Mapping[str, Any]],
    decoders: Sequence[Mapping[str, Any]],
) -> Plan:
    """Return a router of a plan with another list of backends; the rest of its container and of its script
    stays as it is.

    router: its slice of the plan, also one without ``argv``.
    before: ``prefillers`` and ``decoders`` that it lists, such as ``proxy`` of the plan.
    prefillers, decoders: those that it is to list.
    """
    old = backend_words(router["router"], before["prefillers"], before["decoders"])
    new = backend_words(router["router"], prefillers, decoders)
    text = router["script"].replace(continued(old), continued(new), 1)
    content = {"image": router["image"], "mounts": router["mounts"], "script": text}
    found: dict[str, Any] = {
        **router,
        "script": text,
        "expected": expected_backends(router["router"], prefillers, decoders),
        "labels": {
            **router["labels"],
            "pd_rollout.hash": digest(content),
            **list_labels(prefillers, decoders),
        },
    }
    if "argv" in router:
        found["argv"] = _replaced(router["argv"], _flat(old), _flat(new))
    return cast(Plan, found)


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a container is made of."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def places(apis: Iterable[Mapping[str, Any]]) -> str:
    """Return APIs as a label has them: ``address:port``, separated by commas."""
    return ",".join(f"{api['host']}:{api['port']}" for api in apis)


def url(api: Mapping[str, Any]) -> str:
    """Return the URL of an engine's API."""
    return f"http://{api['host']}:{api['port']}"


def continued(options: Iterable[Sequence[str]]) -> str:
    """Return options as shell words, one option per line, as the launch scripts have them."""
    return " \\\n  ".join(" ".join(shlex.quote(word) for word in option) for option in options)


def _flat(options: Iterable[Sequence[str]]) -> list[str]:
    return [word for option in options for word in option]


def _replaced(argv: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return a command line with other words where the first of the old ones is."""
    start = argv.index(old[0])
    return [*argv[:start], *new, *argv[start + len(old) :]]
