# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Entry points of the modules host_check and host_reach.

They need nothing from Ansible: the action plugins of the same names also run them as a plain script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import _process
from .._docker.client import DockerApi
from .._findings import errors_of, ordered
from .._hccn.entry import PING_ARGUMENTS, ping
from .._hccn.query import NPU_SMI, VERSION_INFO
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
_PROCESS = {"pid": {"type": "int", "required": True}, "started": {"type": "int", "required": True}}
REACH_ARGUMENTS = {
    "targets": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "float", "default": 3.0},
    "name": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": True},
    "listener": {"type": "dict", "options": _PROCESS},
    "patience": {"type": "float", "default": 3.0},
    "stop": {"type": "dict", "options": _PROCESS},
    "pings": {"type": "dict", "options": PING_ARGUMENTS},
}


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect and evaluate the server; return the result of host_check, with ``failed`` if it fails."""
    requirements = HostRequirements.from_dict(options["requirements"])
    limits = Limits.from_options(options)
    sources = query.Sources.from_options(options)
    state = query.inspect_server(requirements, limits, sources)
    findings = ordered(
        [
            *evaluate.judge(requirements, state, limits),
            *health.findings(requirements, DockerApi(sources.docker_socket)),
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
        "facts": evaluate.facts(requirements, state, limits),
        "listening": list(listener.ports) if listener else [],
        "listener": listener.to_dict() if listener else None,
        "msg": evaluate.summary(findings),
    }
    if options["fail"] and not ok:
        result["failed"] = True
    return result


def reach(options: Mapping[str, Any]) -> dict[str, Any]:
    """Test the targets, sign off, and wait for this server's listener; return the result of host_reach.

    With ``pings``, the chips ping meanwhile: that needs no CPU, but a second or more for each ping.
    """
    if not options.get("pings"):
        return _reach(options)
    with ThreadPoolExecutor(1) as pool:
        pinging = pool.submit(ping, options["pings"])
        return {**_reach(options), "pings": pinging.result()}


def _reach(options: Mapping[str, Any]) -> dict[str, Any]:
    targets = [host_listener.Target.from_dict(target) for target in options["targets"]]
    listener, stop = options["listener"], options["stop"]
    token = options.get("token", "")
    trials = host_listener.attempt_all(targets, options["timeout"], token)
    answering = [target for target, trial in zip(targets, trials) if trial.problem is None]
    _sign_off(answering, options["name"], options["timeout"], token)
    unreachable = []
    clocks: dict[str, host_listener.Clock] = {}
    for target, trial in zip(targets, trials):
        if trial.problem is not None:
            unreachable.append({**target.to_dict(), "problem": trial.problem, "seen": trial.seen})
        elif trial.clock is not None:
            best = clocks.get(target.server)
            if best is None or trial.clock.uncertainty < best.uncertainty:
                clocks[target.server] = trial.clock
    return {
        "changed": False,
        "count": len(targets),
        "unreachable_ports": unreachable,
        "clocks": {name: [round(value, 6) for value in clock] for name, clock in clocks.items()},
        "lingering": bool(listener)
        and not _process.gone_within(listener["pid"], listener["started"], options["patience"]),
        "stopped": bool(stop) and host_listener.stop(stop["pid"], stop["started"]),
    }


def _sign_off(answering: Iterable[host_listener.Target], name: str, timeout: float, token: str) -> None:
    """Sign off once from every server of which a port has answered.

    ``answering``: the targets that have; ``name``: this server's, without which it does not sign off;
    ``timeout``: of one connection, in seconds; ``token``: the run's secret.
    """
    listeners = {target.server: target for target in answering}
    if not name or not listeners:
        return
    with ThreadPoolExecutor(len(listeners)) as pool:
        for target in listeners.values():
            pool.submit(host_listener.sign_off, target, name, timeout, token)
