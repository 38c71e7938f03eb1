# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Entry points of the modules hccn_check and hccn_ping.

They need nothing from Ansible: the action plugins of the same names also run them as a plain script.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import evaluate, query
from .readings import Expectations

ARGUMENTS = {
    "chips": {"type": "list", "elements": "int", "default": list(range(16))},
    "timeout": {"type": "float", "default": 10.0},
    "fabric": {"type": "str", "choices": ["auto", "hccs", "roce"], "default": "auto"},
    "planned_fabric": {"type": "str", "choices": ["auto", "hccs", "roce", "both"], "default": "auto"},
    "alone": {"type": "bool", "default": False},
    "tls": {"type": "str", "choices": ["any", "off", "on"], "default": "any"},
    "super_pod": {"type": "int"},
    "driver_minimum": {"type": "str"},
    "hccn_tool": {"type": "path", "default": query.HCCN_TOOL},
    "npu_smi": {"type": "path", "default": query.NPU_SMI},
    "hccn_conf": {"type": "path", "default": query.HCCN_CONF},
    "version_info": {"type": "path", "default": query.VERSION_INFO},
    "fail": {"type": "bool", "default": True},
}

PING_ARGUMENTS: dict[str, Any] = {
    "targets": {"type": "dict", "required": True},
    "kind": {"type": "str", "choices": ["hccs_ping", "ping"], "default": "hccs_ping"},
    "timeout": {"type": "float", "default": 10.0},
    "hccn_tool": {"type": "path", "default": query.HCCN_TOOL},
}


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """Query the chips and evaluate the answers; return the module's result, with ``failed`` if it fails."""
    if options["timeout"] <= 0:
        return _refused(f"timeout must be more than 0 seconds, not {options['timeout']:g}")
    chips = sorted(set(options["chips"]))
    if any(chip < 0 for chip in chips):
        return _refused(f"chips must be physical ids from 0 on, not {chips[0]}")
    if not chips:
        nothing: dict[str, Any] = {"driver": None, "chips": [], "findings": [], "queries": 0, "seconds": 0.0}
        return {
            "changed": False,
            "ok": True,
            "fabric": options["fabric"],
            **nothing,
            "msg": "no chips to check",
        }
    tools = query.Tools(_path(options, "hccn_tool"), _path(options, "npu_smi"), options["timeout"])
    answers = query.query_server(chips, tools, _path(options, "version_info"), _path(options, "hccn_conf"))
    state = evaluate.judge(
        answers,
        Expectations(
            options["fabric"],
            options["planned_fabric"],
            options["tls"],
            options["super_pod"],
            options["driver_minimum"],
            options["timeout"],
            options["alone"],
        ),
    )
    # A directory in its place, which Docker creates for -v of a missing file, can be mounted as well.
    state.make_conf = state.make_conf and not os.path.lexists(_path(options, "hccn_conf"))
    result = {"changed": False, "ok": state.ok, "msg": evaluate.summary(state), **state.to_dict()}
    if options["fail"] and not state.ok:
        result["failed"] = True
    return result


def _refused(why: str) -> dict[str, Any]:
    return {"failed": True, "changed": False, "msg": why}


def ping(options: Mapping[str, Any]) -> dict[str, Any]:
    """Ping from the chips; return the result of hccn_ping."""
    try:
        targets = {
            int(chip): [str(ipaddress.IPv4Address(address)) for address in addresses]
            for chip, addresses in options["targets"].items()
        }
    except (TypeError, ValueError) as error:
        return _refused(f"targets must map chip ids to lists of IPv4 addresses: {error}")
    begin = time.monotonic()
    tools = query.Tools(hccn_tool=_path(options, "hccn_tool"), timeout=options["timeout"])
    answers = query.ping_chips(targets, options["kind"], tools)
    tried: list[dict[str, Any]] = [
        {"chip": chip, "address": address, "seen": evaluate.ping_failure(answer, options["timeout"])}
        for chip, asked in answers.items()
        for address, answer in asked.items()
    ]
    failed = [ping for ping in tried if ping["seen"] is not None]
    count = sum(len(asked) for asked in answers.values())
    seconds = round(time.monotonic() - begin, 3)
    for ping in failed:
        if evaluate.ping_unknown(answers[ping["chip"]][ping["address"]]):
            ping["unknown"] = True
    return {
        "changed": False,
        "failed_pings": failed,
        "count": count,
        "seconds": seconds,
        "msg": f"{count - len(failed)} of {count} pings succeeded in {seconds:.1f} s",
    }


def longest_pings(options: Mapping[str, Any] | None) -> float:
    """Return the seconds that the pings of these options of hccn_ping take if each is sent twice in vain."""
    if options is None:
        return 0.0
    addresses = [len(asked) for asked in options["targets"].values() if isinstance(asked, list)]
    return 2 * float(options["timeout"]) * max(addresses, default=0)


def _path(options: Mapping[str, Any], name: str) -> str:
    """Return an option's path with environment variables and ``~`` expanded on the server."""
    return str(Path(os.path.expandvars(options[name])).expanduser())
