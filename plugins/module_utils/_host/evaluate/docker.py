# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that the Docker Engine can run the image and has it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..._findings import Finding
from ..._hccn.parsers import version_key
from .. import parsers
from ..catalogue import HOST_CHECKS
from ..query.docker import DOCKER_MINIMUM, Docker
from ..query.server import HostState
from ..requirements import HostRequirements

# Distributions whose Docker Engine has the version of what it contains. Others patch an old one:
# docker-engine 18.09.0 of openEuler has clone3 in its seccomp list (its series.conf, patches 0191 and 0192),
# and those that are made from openEuler may have it from there.
UNPATCHED = frozenset({"", "almalinux", "centos", "debian", "fedora", "raspbian", "rhel", "rocky", "ubuntu"})

# From here on runc answers ENOSYS to calls that are newer than all of the list (its "-ENOSYS stub", see
# opencontainers/runc PR 3490), and the C library tries clone. The lists of 20.10 end behind clone3.
RUNC_WITH_ENOSYS, LISTS_BEHIND_CLONE3 = (1, 0, 0, 93), "20.10"


def image_architecture(requirements: HostRequirements, state: HostState) -> Iterable[Finding]:
    here = parsers.architecture(state.machine)
    if here is None:
        yield HOST_CHECKS.finding(
            "host-architecture", f"no image exists for {state.machine}", seen=state.machine
        )
    elif state.docker.image_architecture not in (None, here):
        yield HOST_CHECKS.finding(
            "host-image-architecture",
            f"{requirements.image} is for {state.docker.image_architecture}",
            seen=f"image {state.docker.image_architecture}, server {here}",
            expected=here,
            image=requirements.image,
        )


def docker_engine(state: HostState) -> Iterable[Finding]:
    docker = state.docker
    if not docker.installed:
        yield HOST_CHECKS.finding("host-docker-absent", "no Docker Engine is installed", seen="no dockerd")
    elif docker.problem and not state.root:
        # Its socket is only for root.
        return
    elif docker.problem:
        yield HOST_CHECKS.finding(
            "host-docker-silent", "the Docker Engine does not answer", seen=docker.problem
        )
    else:
        yield from _docker_age(docker, state.distribution)
        if docker.driver == "vfs":
            yield HOST_CHECKS.finding("host-docker-storage", "the storage driver is vfs", seen="vfs")
        if docker.cgroup == "none":
            yield HOST_CHECKS.finding(
                "host-docker-cgroup", "the Docker Engine has no control groups", seen="none"
            )


def _docker_age(docker: Docker, distribution: tuple[str, str]) -> Iterable[Finding]:
    """Yield a finding if threads may not start in its containers, judged by its seccomp list if readable."""
    version = docker.version or ""
    if docker.product:
        yield HOST_CHECKS.finding(
            "host-docker-other",
            f"{docker.product} {version} answers in place of the Docker Engine",
            seen=f"{docker.product} {version}",
        )
        return
    if not version or version_key(version) >= version_key(DOCKER_MINIMUM) or docker.clone3:
        return
    # Without seccomp nothing is refused.
    if docker.seccomp in ("", "unconfined"):
        return
    name, title = distribution
    unsure = ""
    if docker.seccomp not in ("default", "builtin"):
        unsure = f"; whether its seccomp profile {docker.seccomp} allows clone3 was not checked"
    elif docker.clone3 is None and name not in UNPATCHED:
        unsure = f"; whether {title or name} has patched it to allow clone3 could not be determined"
    elif (
        version_key(version) < version_key(LISTS_BEHIND_CLONE3) and runc_key(docker.runc) >= RUNC_WITH_ENOSYS
    ):
        unsure = f"; its runc {docker.runc} may let the C library work without clone3"
    cure = "docker run --rm {image} python3 -c 'import threading; threading.Thread().start()'  # try it"
    yield HOST_CHECKS.finding(
        "host-docker-old",
        f"Docker Engine {version} is older than {DOCKER_MINIMUM}{unsure}",
        seen=version + (f" of {title}" if title else ""),
        severity="warning" if unsure else None,
        cure=cure if unsure else None,
        image="IMAGE",
    )


def runc_key(version: str | None) -> tuple[int, ...]:
    """Orders 1.0.0-rc92 < 1.0.0-rc93 < 1.0.0; of none it is the least."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?:[-~]rc\.?(\d+))?", version or "")
    return (
        tuple(int(number or 10**6) if at == 3 else int(number) for at, number in enumerate(match.groups()))
        if match
        else ()
    )
