# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the values from the answers of one server, and combines them. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .._commands import Answer
from . import driver_messages, parsers

# Queries whose answer may lack the value because nothing is configured; all others must have it.
MAY_BE_UNSET = ("gateway", "lldp", "ip", "vnic", "tls")

_PARSERS: dict[str, Callable[[str], object]] = {
    "link": parsers.parse_link,
    "net_health": parsers.parse_net_health,
    "netdetect": parsers.parse_netdetect,
    "gateway": parsers.parse_gateway,
    "lldp": parsers.parse_lldp,
    "ip": parsers.parse_ip,
    "vnic": parsers.parse_vnic,
    "tls": parsers.parse_tls,
    "spod-info": parsers.parse_spod,
    "info": parsers.parse_npu_info,
}

_NO_VNIC = parsers.Vnic(None, None)


@dataclass(frozen=True)
class Expectations:
    """What is declared for a server.

    ``fabric``: as declared; ``planned``: the fabric that follows from the plan's product and environment, or
    ``auto`` without a plan; ``tls``: ``any``, ``off`` or ``on``; ``super_pod`` and ``driver_minimum``: None
    if not declared; ``timeout``: of a query, in seconds; ``alone``: the plan has engines on this server only.
    """

    fabric: str = "auto"
    planned: str = "auto"
    tls: str = "any"
    super_pod: int | None = None
    driver_minimum: str | None = None
    timeout: float = 10.0
    alone: bool = False


@dataclass(frozen=True)
class Reading:
    """The value of an answer. ``problem``: None, or why there is no value; ``seen``: then the tool's output.

    ``unsupported``: the command does not exist, so the failure says nothing about the chip.
    """

    # The result of the query's parser; each has its own type.
    value: Any = None
    problem: str | None = None
    seen: str = ""
    unsupported: bool = False


def read(answer: Answer) -> Reading:
    """Return the value of an answer, or the reason why there is none."""
    if answer.problem is not None:
        return Reading(problem=answer.problem, seen=answer.text)
    value = _PARSERS[answer.query](answer.text)
    if value is not None and value != _NO_VNIC:
        return Reading(value)
    seen = driver_messages.shown(answer.text)
    if parsers.wants_root(answer.text):
        return Reading(problem="needs_root", seen=seen)
    # hccn_tool reports an unset value as an error, with an exit status. No certificate means TLS off.
    if answer.query in ("ip", "gateway") and parsers.says_unset(answer.text):
        return Reading()
    if answer.query == "tls" and parsers.has_no_certificate(answer.text):
        return Reading()
    if answer.query == "lldp" and parsers.says_no_link(answer.text):
        return Reading()
    if answer.status or parsers.is_error(answer.text):
        return Reading(
            problem="failed",
            seen=seen or f"exit status {answer.status} and no output",
            unsupported=parsers.is_unsupported(answer.text),
        )
    if answer.query in MAY_BE_UNSET and (seen or answer.query == "lldp"):
        return Reading(_NO_VNIC if answer.query == "vnic" else None)
    return Reading(problem="unreadable", seen=seen or "no output, exit status 0")


def fabric_of(readings: dict[int, dict[str, Reading]], expect: Expectations) -> str:
    """Return the fabric: as declared, as the plan's product and environment imply, or as the chips report.

    A vNIC is no evidence: Atlas A2 has one too. spod-info answers on every A3 and on no A2
    (npucli/npu_chip_info_ext.c), and an A3 outside any super pod has an index beyond its servers. A chip that
    hangs or refuses is no evidence either: the stricter reading then applies to an A3.
    """
    if expect.fabric != "auto":
        return expect.fabric
    if expect.planned == "roce" or not readings:
        return "hccs" if expect.planned == "auto" else expect.planned
    pods = [found["spod-info"] for found in readings.values()]
    if all(pod.value is not None and not pod.value.inside for pod in pods):
        # Within a server HCCS connects the chips, with or without a super pod.
        return "hccs" if expect.alone and expect.planned == "hccs" else "roce"
    if expect.planned == "both":
        return "both"
    # A planned Atlas A3 outweighs a tool that does not know spod-info.
    outside = expect.planned == "auto" and all(map(no_super_pod, pods))
    return "roce" if outside and _some_answer(readings) else "hccs"


def _some_answer(readings: dict[int, dict[str, Reading]]) -> bool:
    """Return whether any chip reports its link, that is, whether the tools work at all."""
    return any(found["link"].value is not None for found in readings.values())


def chip_state(chip: int, found: dict[str, Reading], info: Reading) -> dict[str, Any]:
    """Return the state of one chip as plain data, for reports and for the comparison between servers."""
    vnic = found["vnic"].value or _NO_VNIC
    gateway, ip, pod = found["gateway"].value, found["ip"].value, pod_of(found)
    row = next((row for row in info.value.chips if row.phy_id == chip), None) if info.value else None
    return {
        "link": found["link"].value,
        "net_health": found["net_health"].value,
        "netdetect": found["netdetect"].value,
        "gateway": gateway.address if gateway else None,
        "lldp": found["lldp"].value,
        "ip": ip.address if ip else None,
        "vnic": vnic.address,
        "vnic_status": vnic.status,
        # No certificate means that TLS is off; no answer means that it is unknown.
        "tls": None if found["tls"].problem else tls_switch(found["tls"]),
        "sdid": pod.sdid if pod else None,
        "super_pod": pod.pod if pod else None,
        "super_pod_size": pod.size if pod else None,
        "server_index": pod.server_index if pod else None,
        "npu_health": row.health if row else None,
    }


def pod_of(found: dict[str, Reading]) -> parsers.SuperPod | None:
    """Return the chip's position in its super pod; None if it is in none, or does not report it."""
    pod = found["spod-info"].value
    return pod if pod is not None and pod.inside else None


def tls_switch(reading: Reading) -> int:
    """Return the TLS switch, 1 or 0; without a certificate it is off."""
    return int(reading.value.switch) if reading.value else 0


def not_listed(readings: Iterable[int], info: Reading) -> set[int]:
    """Return the chips that npu-smi does not list; none if it lists nothing at all."""
    listed = {row.phy_id for row in info.value.chips} if info.value else set(readings)
    return {chip for chip in readings if chip not in listed}


def no_super_pod(reading: Reading) -> bool:
    """Return whether npu-smi reports that the chip has no super pod, as on servers outside of super pods."""
    return reading.problem == "failed" and "support" in reading.seen.lower()


def needs_no_conf(readings: dict[int, dict[str, Reading]], fabric: str) -> bool:
    """Return whether /etc/hccn.conf needs no addresses: all traffic uses HCCS, and no chip has one."""
    return fabric == "hccs" and all(
        found["ip"].problem is None and found["ip"].value is None for found in readings.values()
    )
