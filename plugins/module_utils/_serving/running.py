# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a deployment's containers say of themselves by their labels, whichever plan they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._files import safe_paths

# States of a container that holds its chips and ports, or will in a moment.
UP = ("running", "restarting", "paused")

INSTANCE, ROLE = "pd_rollout.instance", "pd_rollout.role"


def containers(found: Sequence[Mapping[str, Any]], images: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the engines among containers, by name.

    found: the Docker Engine's list of the deployment's containers.
    images: IDs of the planned images by name of the container, as far as they are on this server.
    """
    engines = [one for one in found if one["Labels"].get(ROLE) in ("prefiller", "decoder")]
    return sorted((_engine(one, images) for one in engines), key=lambda one: str(one["name"]))


def _engine(found: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Any]:
    labels = found["Labels"]
    return {
        "name": name_of(found),
        "instance": labels.get(INSTANCE, ""),
        "role": labels[ROLE],
        "state": found["State"],
        "up": found["State"] in UP,
        "image": found["ImageID"],
        "other_image": found["ImageID"] != images.get(name_of(found), found["ImageID"]),
        "release": labels.get("pd_rollout.release", ""),
        "version": labels.get("pd_rollout.version", ""),
        "chips": [int(chip) for chip in _listed(labels, "pd_rollout.chips")],
        # None: it was made before there was such a label.
        "apis": _listed(labels, "pd_rollout.apis") if "pd_rollout.apis" in labels else None,
        "model": labels.get("pd_rollout.model", ""),
        "key": labels.get("pd_rollout.key", ""),
    }


# Stands for all APIs in a list of which nothing is known.
EVERY = "*"


def lists(
    found: Sequence[Mapping[str, Any]], routers: Mapping[str, Any] | None
) -> dict[str, list[str]] | None:
    """Return the APIs, as ``address:port``, that the router of this server lists, by role; None if none runs.

    found: the Docker Engine's list of the deployment's containers.
    routers: ``routers`` of deployment_info; with a front, only the router that gets the requests counts.
    """
    active = (routers or {}).get("active")
    for one in found:
        if one["Labels"].get(ROLE) != "proxy" or one["State"] not in UP:
            continue
        # Without a front yet, clients ask the router that there is.
        if active is not None and name_of(one).rpartition("-")[2] != active:
            continue
        return {role: _list_of(one["Labels"], f"pd_rollout.{role}") for role in ("prefillers", "decoders")}
    return None


def _list_of(labels: Mapping[str, str], label: str) -> list[str]:
    """Return what a router lists. One from before there was such a label may list every engine."""
    return _listed(labels, label) if label in labels else [EVERY]


def drained(directory: str | None) -> str:
    """Return whether a server is ``drained``, or ``stopped`` besides; empty if it is in service.

    directory: the deployment's directory on the server.
    """
    if directory is None:
        return ""
    path = Path(directory, safe_paths.DRAINED)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        # Somebody has begun to take it out of service.
        return "drained"
    return "stopped" if isinstance(found, dict) and found.get("stop") else "drained"


def routers_up(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the routers that run: their names, and the hashes of what they were made from."""
    return sorted(
        (
            {"name": name_of(one), "hash": one["Labels"].get("pd_rollout.hash", "")}
            for one in found
            if one["Labels"].get(ROLE) == "proxy" and one["State"] in UP
        ),
        key=lambda one: one["name"],
    )


def made_of(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return what runs, engines and routers, each with the hash of what it was made from.

    found: the Docker Engine's list of the deployment's containers.
    """
    return sorted(
        (
            {
                "name": name_of(one),
                "role": one["Labels"].get(ROLE, ""),
                "image": one["ImageID"],
                "hash": one["Labels"].get("pd_rollout.hash", ""),
            }
            for one in found
            if one["State"] in UP
        ),
        key=lambda one: one["name"],
    )


def name_of(found: Mapping[str, Any]) -> str:
    """Return a container's name."""
    return str(found["Names"][0]).lstrip("/")


def _listed(labels: Mapping[str, str], label: str) -> list[str]:
    return [part for part in labels.get(label, "").split(",") if part]
