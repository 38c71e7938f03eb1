# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that a front can run on this server, and that a deployed one does."""

from __future__ import annotations

from collections.abc import Iterable

from ..._findings import Finding
from ..catalogue import HOST_CHECKS
from ..query.front import version
from ..query.server import HostState
from ..requirements import HostRequirements

# The oldest HAProxy with which the front was run. http_auth_bearer, which reads keys, came with 2.5.
OLDEST = "2.6"


def front(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    found = state.front
    if requirements.front is None or found is None:
        return
    if not found.systemd:
        yield HOST_CHECKS.finding(
            "host-systemd-absent",
            "the front is a unit of systemd, which does not run here",
            seen="no systemd",
        )
    known = found.version or found.offered
    if known and version(known) < version(OLDEST):
        how = "is installed" if found.version else "is what the package manager would install"
        yield HOST_CHECKS.finding("host-haproxy-old", f"HAProxy {known} {how}", seen=known)
    for package in found.unknown:
        yield HOST_CHECKS.finding(
            "host-package-absent",
            f"{package} is not installed, and the package manager does not know it",
            seen=f"apt-cache policy {package} has no candidate",
            package=package,
        )
    for unit in found.stopped if found.systemd else ():
        yield HOST_CHECKS.finding(
            "host-front-stopped",
            "the front is not running"
            if unit.endswith("-front")
            else "nothing gives the front its virtual address",
            seen=f"{unit}.service is not active",
            unit=unit,
        )
