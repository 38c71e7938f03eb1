# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the Docker Engine can refuse. docs/failures.md is made from it."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "the Docker Engine's own message"

DOCKER_CHECKS = Catalogue(
    Check(
        "docker-silent",
        "The Docker Engine does not answer",
        "It does not run, hangs, or its socket is for root alone.",
        ERROR,
        "an answer at the Docker Engine's socket",
        "systemctl status docker; journalctl -u docker | tail  # and become: true",
        SOURCE,
    ),
    Check(
        "docker-refused",
        "The Docker Engine refuses a request",
        "Its answer has the status of an error.",
        ERROR,
        "an answer without an error",
        "journalctl -u docker | tail",
        SOURCE,
    ),
    Check(
        "docker-image-refused",
        "The Docker Engine has no use for an archive, or does not give an image",
        "The archive is damaged, nothing on the server unpacks it, or the image was removed.",
        ERROR,
        "an archive that docker load takes, an image that docker save gives",
        "docker image ls; journalctl -u docker | tail",
        SOURCE,
    ),
)
