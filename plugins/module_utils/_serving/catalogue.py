# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What can end the start of engines and of the proxy. docs/failures.md is made from it."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "the container's state and its log"

ENGINE_CHECKS = Catalogue(
    Check(
        "engine-ended",
        "An engine or the proxy ended while it started",
        "What this run has started and what fails is stopped, so that it is not restarted without end.",
        ERROR,
        "a container that runs until it is ready",
        "docker logs {container}  # on {host}: the first error in it says why",
        SOURCE,
    ),
    Check(
        "engine-late",
        "An engine or the proxy is not ready in time",
        "It still loads, waits for other nodes of its instance, or hangs.",
        ERROR,
        "an answer of its health check within the time that the role waits",
        "docker logs --tail 50 {container}  # on {host}; engine_ready_timeout if it only needs longer",
        SOURCE,
    ),
    Check(
        "engine-not-awaited",
        "An engine is no longer awaited",
        "Another one has failed, and without it there is no service.",
        ERROR,
        "every engine and the proxy become ready",
        "cure what is said of the other one, then run again",
        SOURCE,
    ),
)
