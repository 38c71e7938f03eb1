# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Failures while engines and the proxy start; the source of docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "the container's state and its log"
ROUTER_SOURCE = "this collection, plugins/plugin_utils/rollout/data/routers/vllm_router.yml"

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
    Check(
        "router-wheels-unfetched",
        "The wheels of vllm-router cannot be fetched",
        "Its host has no modules of the router yet, and the controller has not got them either.",
        ERROR,
        "a package index that the controller's pip can read, or pd_router_wheels",
        "see what pip says; or set pd_router_wheels to a directory with the wheels, or pd_router to upstream",
        ROUTER_SOURCE,
    ),
    Check(
        "router-wheel-missing",
        "A wheel of vllm-router is missing",
        "The planned version needs it on servers of this architecture.",
        ERROR,
        "the wheel in the directory of pd_router_wheels on the controller",
        "add it, or unset pd_router_wheels to have it fetched",
        ROUTER_SOURCE,
    ),
    Check(
        "router-wheel-wrong",
        "A wheel of vllm-router is not the planned one",
        "Its hash is another one: it is damaged, or somebody has replaced it. Nothing of it is used.",
        ERROR,
        "the pinned SHA-256",
        "remove {path}, and provide the wheel of the package index again",
        ROUTER_SOURCE,
    ),
    Check(
        "router-machine-unknown",
        "There is no wheel of vllm-router for a server's architecture",
        "The router cannot run on this server.",
        ERROR,
        "x86_64 or aarch64",
        "set pd_router to upstream, or move the group proxy to another server",
        ROUTER_SOURCE,
    ),
    Check(
        "router-modules-unwritten",
        "The modules of vllm-router cannot be written to a server",
        "Its container mounts them.",
        ERROR,
        "100 MB below pd_host_dir, to which root can write",
        "df {path}; ls -ld {path}  # free space, or repair the directory; then run again",
        ROUTER_SOURCE,
    ),
)
