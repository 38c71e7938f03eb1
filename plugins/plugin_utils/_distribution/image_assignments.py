# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who gets an image from where, so that it crosses the site's uplink once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils._findings import Finding
from ...module_utils._transfer.catalogue import TRANSFER_CHECKS

DIGEST, ARCHIVE = "docker_image_digest", "pd_image_archive"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What a registry's name has and a user's has not: a dot, a port, or it is this host.
QUALIFIED = re.compile(r"([^/]*[.:][^/]*|localhost)/")
LOCAL = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?$")


@dataclass(frozen=True)
class Request:
    """What the role is asked for. `source`: registry, pull, archive or none."""

    source: str
    digest: str = ""
    archive: str = ""
    archive_on_server: bool = True
    spread: bool = True
    mirrors: tuple[str, ...] = ()
    allow_unqualified: bool = False


@dataclass
class Decision:
    """`assignments`: what each host does, by name: its kind, and from whom it takes, best first."""

    assignments: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[Finding] = field(default_factory=list)


def problems(request: Request, image: str) -> list[Finding]:
    """Return all that is wrong with a request."""
    found = []
    if request.digest and not _DIGEST.fullmatch(request.digest):
        found.append(TRANSFER_CHECKS.finding("image-digest-invalid", seen=request.digest, variable=DIGEST))
    if request.source == "archive" and not request.archive:
        found.append(TRANSFER_CHECKS.finding("image-archive-unnamed", seen="nothing", variable=ARCHIVE))
    if request.source in ("archive", "registry") and "@" in image:
        found.append(TRANSFER_CHECKS.finding("image-named-by-digest", seen=image, variable="pd_image"))
    return found


def decide(states: Mapping[str, Mapping[str, Any]], request: Request) -> Decision:
    """The assignments of all hosts, in their order. A host that needs nothing and gives nothing has none."""
    decision = Decision()
    for image in dict.fromkeys(state["image"] for state in states.values()):
        group = {host: state for host, state in states.items() if state["image"] == image}
        wrong = problems(request, image)
        decision.errors += wrong
        lacking = [host for host, state in group.items() if not state["right"]]
        if wrong or not lacking:
            continue
        having = [host for host, state in group.items() if state["right"]]
        if request.source == "pull":
            decision.assignments.update({host: {"kind": "pull", "order": []} for host in lacking})
        elif request.spread and having:
            _spread(decision, {having[0]: "docker"}, lacking)
        else:
            _fetch(decision, image, group, lacking, request)
    return decision


def _fetch(
    decision: Decision,
    image: str,
    group: Mapping[str, Mapping[str, Any]],
    lacking: Sequence[str],
    request: Request,
) -> None:
    if request.source == "none":
        decision.errors += [_unlike(image, host, group[host], request.digest) for host in lacking]
        return
    if request.source == "registry":
        if not (request.mirrors or request.allow_unqualified or QUALIFIED.match(image)):
            decision.errors.append(
                TRANSFER_CHECKS.finding("image-registry-unnamed", seen=image, variable="pd_image")
            )
            return
        origins = lacking[:1] if request.spread else lacking
    elif not request.archive_on_server:
        origins = lacking[:1] if request.spread else lacking
    else:
        there = [host for host in lacking if (group[host]["archive"] or {}).get("exists")]
        own = [host for host in there if not group[host]["archive"]["shared"]]
        # Of a shared file system one reads, for its bytes cross the network each time.
        origins = (own or there[:1]) if request.spread else there
        missing = [host for host in lacking if host not in there]
        if not origins or (missing and not request.spread):
            place = {"host": ", ".join(missing), "path": request.archive}
            words = {"archive": request.archive, "image": image}
            decision.errors.append(
                TRANSFER_CHECKS.finding("image-archive-missing", seen="no such file", **place, **words)
            )
            return
    outside = "archive" if request.archive_on_server else "controller"
    kind = "registry" if request.source == "registry" else outside
    _spread(decision, dict.fromkeys(origins, kind), [host for host in lacking if host not in origins])


def _unlike(image: str, host: str, state: Mapping[str, Any], digest: str) -> Finding:
    """Why a server does not have the image that nothing brings: it has another one, or none."""
    if not state["id"]:
        return TRANSFER_CHECKS.finding("image-absent", host=host, seen=f"no image {image}")
    seen = f"{image} is {', '.join(state['digests'])}"
    return TRANSFER_CHECKS.finding("image-unexpected", host=host, seen=seen, expected=digest, image=image)


def _spread(decision: Decision, origins: Mapping[str, str], receivers: Sequence[str]) -> None:
    """A chain: each takes from the one before it, and from anybody else when that one fails."""
    decision.assignments.update({host: {"kind": kind, "order": []} for host, kind in origins.items()})
    if not receivers:
        # The origin that has it already has nothing to do then; the others load what they get.
        return
    for number, host in enumerate(receivers):
        before, after = list(reversed(receivers[:number])), list(receivers[number + 1 :])
        order = [*before[:1], *origins, *before[1:], *after]
        decision.assignments[host] = {"kind": "peers", "order": order}


def endpoints(
    image: str,
    mirrors: Sequence[str],
    logins: Mapping[str, Mapping[str, str]],
    ca: str,
    insecure: Sequence[str],
) -> list[dict[str, str]]:
    """The registries to ask, mirrors first, as M(ascend.pd_rollout.docker_image_job) takes them."""
    named = image.partition("/")[0] if QUALIFIED.match(image) else ""
    result = []
    for registry in [*mirrors, *([named] if named else [])]:
        scheme, _, name = registry.rpartition("://")
        host = name.partition("/")[0]
        if not scheme:
            scheme = "http" if host in insecure or LOCAL.match(host) else "https"
        login = logins.get(host, {})
        result.append(
            {
                "base": f"{scheme}://{name.rstrip('/')}",
                "username": str(login.get("username", "")),
                "password": str(login.get("password", "")),
                "ca": ca,
            }
        )
    return result
