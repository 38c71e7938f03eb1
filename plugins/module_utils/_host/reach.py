# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of the module host_reach: the ports of other servers, and the chips' pings.

Apart from that of host_check, so that the script which is piped to servers carries only this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import _process
from .._hccn.entry import PING_ARGUMENTS, ping
from . import listener as host_listener

_PROCESS = {"pid": {"type": "int", "required": True}, "started": {"type": "int", "required": True}}
ARGUMENTS = {
    "targets": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "float", "default": 3.0},
    "name": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": True},
    "listener": {"type": "dict", "options": _PROCESS},
    "patience": {"type": "float", "default": 3.0},
    "stop": {"type": "dict", "options": _PROCESS},
    "pings": {"type": "dict", "options": PING_ARGUMENTS},
}


def reach(options: Mapping[str, Any]) -> dict[str, Any]:
    """Test the targets, sign off, and wait for this server's listener; return the result of host_reach.

    With ``pings``, the chips ping meanwhile: it takes hardly any CPU, but a second or more for each ping.
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
