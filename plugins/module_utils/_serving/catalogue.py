# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Failures while engines and the proxy start; the source of docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "the container's state and its log"

ENGINE_CHECKS = Catalogue(
    Check(
        "engine-ended",
        "An engine or the proxy ended during its start",
        "A container that this run has started is stopped if it fails, so that it is not restarted forever.",
        ERROR,
        "a container that runs until it is ready",
        "docker logs {container}  # on {host}: the first error in it is the cause",
        SOURCE,
    ),
    Check(
        "engine-late",
        "An engine or the proxy is not ready in time",
        "It is still loading, is waiting for other nodes of its instance, or hangs.",
        ERROR,
        "an answer of its health check within the role's timeout",
        "docker logs --tail 50 {container}  # on {host}; raise engine_ready_timeout if it only needs longer",
        SOURCE,
    ),
    Check(
        "engine-group-incomplete",
        "An instance has to be started, but one of its servers is not in this run",
        "The nodes of an instance only start together: without the others they would wait in vain.",
        ERROR,
        "all servers of the instance in this run",
        "ansible-playbook playbooks/deploy.yml --limit {hosts}  # or without --limit",
        "this collection, role _container",
    ),
    Check(
        "engine-not-awaited",
        "The wait for an engine was ended",
        "Another engine or the proxy has failed, and without it there is no service.",
        ERROR,
        "all engines and the proxy become ready",
        "fix the other failure, then run again",
        SOURCE,
    ),
    Check(
        "engine-start-unrecorded",
        "The start of an engine cannot be recorded",
        "Without the record the next run cannot tell whether a node is still in the group of its start.",
        ERROR,
        "a deployment directory to which root can write",
        "df {path}; ls -ld {path}  # free space, or repair the directory; then run again",
        "this collection, plugins/module_utils/_serving/nodes.py",
    ),
)
