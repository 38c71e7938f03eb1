# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Failures of the Docker Engine; the source of docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "the Docker Engine's own message"

DOCKER_CHECKS = Catalogue(
    Check(
        "docker-silent",
        "The Docker Engine does not answer",
        "It is not running, hangs, or its socket is accessible to root alone.",
        ERROR,
        "an answer at the Docker Engine's socket",
        "systemctl status docker; journalctl -u docker | tail  # or /var/log/docker.log; needs become: true",
        SOURCE,
    ),
    Check(
        "docker-refused",
        "The Docker Engine refuses a request",
        "It answers with an error status.",
        ERROR,
        "an answer without an error",
        "journalctl -u docker | tail  # or /var/log/docker.log",
        SOURCE,
    ),
    Check(
        "docker-image-refused",
        "The Docker Engine cannot load an archive or save an image",
        "The archive is damaged, nothing on the server can decompress it, or the image was removed.",
        ERROR,
        "an archive that docker load accepts, an image that docker save can write",
        "docker image ls; journalctl -u docker | tail",
        SOURCE,
    ),
    Check(
        "docker-process-unknown",
        "The process of the Docker Engine cannot be found",
        "It must be signalled to reload its configuration, and may run under another supervisor.",
        ERROR,
        "a pid file that names a running dockerd",
        "restart the Docker Engine with the supervisor under which it runs",
        "this collection, plugins/modules/docker_reload.py",
    ),
    Check(
        "docker-not-reloaded",
        "The Docker Engine did not apply its new configuration",
        "It keeps the old one, but would not start again with this daemon.json.",
        ERROR,
        "a reload event of the Docker Engine",
        "journalctl -u docker | tail  # or /var/log/docker.log: it names the rejected option",
        SOURCE,
    ),
)
