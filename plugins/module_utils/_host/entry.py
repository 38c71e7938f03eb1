# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of the module host_check.

It needs nothing from Ansible: the action plugin of the same name also runs it as a plain script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._docker.client import DockerApi
from .._findings import errors_of, ordered
from .._hccn.query import NPU_SMI, VERSION_INFO
from .._serving.running import drained
from . import guard as host_guard
from . import health
from . import listener as host_listener
from .evaluate import result as evaluate
from .evaluate.network import nic_with_address
from .query import server as query
from .requirements import HostRequirements, Limits

CHECK_ARGUMENTS = {
    "requirements": {"type": "dict", "required": True},
    "listen": {"type": "bool", "default": False},
    "listen_seconds": {"type": "float", "default": 120.0},
    "token": {"type": "str", "default": "", "no_log": True},
    "timeout": {"type": "float", "default": 10.0},
    "image_gigabytes": {"type": "float", "default": 0.0},
    "image_archive": {"type": "str", "default": ""},
    "weights_path": {"type": "str", "default": ""},
    "weights_gigabytes": {"type": "float", "default": 0.0},
    "memory_gigabytes": {"type": "float", "default": 0.0},
    "firmware_minimum": {"type": "str", "default": ""},
    "npu_smi": {"type": "path", "default": NPU_SMI},
    "version_info": {"type": "path", "default": VERSION_INFO},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "docker_root": {"type": "path", "default": "/var/lib/docker"},
    "fail": {"type": "bool", "default": True},
}


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect and evaluate the server; return the result of host_check, with ``failed`` if it fails."""
    requirements = HostRequirements.from_dict(options["requirements"])
    limits = Limits.from_options(options)
    sources = query.Sources.from_options(options)
    state = query.inspect_server(requirements, limits, sources)
    docker = DockerApi(sources.docker_socket)
    guard = host_guard.inspect(requirements)
    findings = ordered(
        [
            *evaluate.judge(requirements, state, limits),
            *health.findings(requirements, docker),
            *host_guard.findings(requirements, guard),
        ]
    )
    ok = not errors_of(findings)
    listener = None
    # Without a NIC that has the address nothing can listen, which has its own finding.
    nic = nic_with_address(state.nics, requirements.address)
    # Without a token no client could prove that it belongs to the run.
    if options["listen"] and options.get("token") and requirements.clients and nic is not None and nic.up:
        listener, _refused = host_listener.start(
            requirements.address,
            evaluate.sample_ports(requirements, state),
            requirements.name,
            options["listen_seconds"],
            requirements.clients,
            options.get("token", ""),
        )
    result = {
        "changed": False,
        "ok": ok,
        "findings": [finding.to_dict() for finding in findings],
        "facts": {
            **evaluate.facts(requirements, state, limits),
            "drained": drained(requirements.directory),
            "lists": health.router_lists(requirements, docker),
            "guard": guard.facts() if guard else None,
        },
        "listening": list(listener.ports) if listener else [],
        "listener": listener.to_dict() if listener else None,
        "msg": evaluate.summary(findings),
    }
    if options["fail"] and not ok:
        result["failed"] = True
    return result
