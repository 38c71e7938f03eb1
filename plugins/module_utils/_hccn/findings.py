# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Yields the findings about the chips of one server. Pure functions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._findings import SEVERITIES, Finding, numbers
from . import parsers
from .catalogue import HCCN_CHECKS, chip_words
from .readings import Expectations, Reading, needs_no_conf, no_super_pod, not_listed, pod_of, tls_switch

# Queries that only concern connections to other servers.
BETWEEN_SERVERS = frozenset({"vnic", "spod-info"})

# The check that uses a query: a failed query is as severe as the state that it hides.
_WEIGHT = {
    "link": "hccn-link-down",
    "net_health": "hccn-net-health",
    "netdetect": "hccn-netdetect-unset",
    "gateway": "hccn-gateway-unset",
    "lldp": "hccn-lldp-missing",
    "ip": "hccn-ip-unset",
    "vnic": "hccn-vnic-down",
    "tls": "hccn-tls-mixed",
    "spod-info": "hccn-spod-unknown",
    "info": "npu-missing",
}

_GOOD_HEALTH = "Success"

# Neither good nor bad: nothing has been detected yet, an address was just set, the state is unknown, or the
# detection itself has failed (hccn_tool/tool_ops.c).
_OPEN_HEALTH = frozenset({"init", "detect ip set", "thread error", "unknown"})


def _grouped(pairs: Iterable[tuple[Any, int]]) -> list[tuple[Any, list[int]]]:
    """Group chips by what was seen: sixteen chips with the same value share one finding."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for seen, chip in pairs:
        groups[seen].append(chip)
    return list(groups.items())


def tool_findings(
    readings: dict[int, dict[str, Reading]], info: Reading, fabric: str, expect: Expectations
) -> Iterable[Finding]:
    """Yield findings about failed queries: one for each tool and kind of failure, with its queries."""
    problems = [
        (reading, "npu-smi" if query == "spod-info" else "hccn_tool", query, chip)
        for chip, found in readings.items()
        for query, reading in found.items()
        if reading.problem not in (None, "not_asked")
    ]
    if info.problem is not None:
        problems.append((info, "npu-smi", "info", -1))
    # A chip that npu-smi does not list has its finding; that it cannot be asked there follows.
    absent = not_listed(readings, info)
    problems = [problem for problem in problems if problem[2] != "spod-info" or problem[3] not in absent]
    # That a chip knows no super pod is an answer; what it means is for hccs_findings to say.
    problems = [problem for problem in problems if problem[2] != "spod-info" or not no_super_pod(problem[0])]

    groups: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
    shown: dict[tuple[str, str, str], str] = {}
    unsupported: set[tuple[str, str, str]] = set()
    for reading, tool, query, chip in problems:
        # Messages that differ only in numbers (the chip's, a pid) are one message.
        same = "" if reading.problem in ("missing", "timeout") else re.sub(r"\d+", "#", reading.seen)
        key = (reading.problem or "", tool, same)
        groups[key].append((query, chip))
        shown.setdefault(key, reading.seen)
        if reading.unsupported:
            unsupported.add(key)
    for (problem, tool, same), where in groups.items():
        seen = shown[(problem, tool, same)]
        chips = sorted({chip for _query, chip in where if chip >= 0})
        queries = list(dict.fromkeys(query for query, _chip in where))
        asked = ", ".join(queries)
        of_chips = f" on {chip_words(chips)}" if chips else ""
        # What was not asked any more after time-outs is just as unknown.
        hidden = {
            q for chip in chips for q, reading in readings[chip].items() if reading.problem == "not_asked"
        }
        weighed = [*queries, *hidden] if problem == "timeout" else queries
        severity = min((HCCN_CHECKS[_WEIGHT[q]].severity_over(fabric) for q in weighed), key=SEVERITIES.index)
        of_no_account = expect.alone and not set(weighed) - BETWEEN_SERVERS
        if severity == "error" and ((problem, tool, same) in unsupported or of_no_account):
            severity = "warning"
        if problem == "missing":
            yield HCCN_CHECKS.finding(
                "hccn-tool-missing", f"{tool} is not there", fabric=fabric, seen="no such file"
            )
        elif problem == "not_executable":
            yield HCCN_CHECKS.finding(
                "hccn-tool-not-executable", f"{tool} cannot be executed", fabric=fabric, seen=seen
            )
        elif problem == "needs_root":
            yield HCCN_CHECKS.finding("hccn-tool-needs-root", f"{tool} needs root", fabric=fabric, seen=seen)
        elif problem == "timeout":
            yield HCCN_CHECKS.finding(
                "hccn-tool-hangs",
                f"{tool} does not answer ({asked}){of_chips}",
                fabric=fabric,
                chips=chips,
                seen=f"no answer within {expect.timeout:g} s, killed",
                severity=severity,
            )
        else:
            code = "hccn-query-failed" if problem == "failed" else "hccn-answer-unreadable"
            what = "failed" if problem == "failed" else "returned output that could not be parsed"
            yield HCCN_CHECKS.finding(
                code,
                f"{tool} {asked} {what}{of_chips}",
                fabric=fabric,
                chips=chips,
                seen=seen,
                severity=severity,
            )


def npu_findings(
    chips: Sequence[int],
    info: Reading,
    driver: str | None,
    version_info: str | None,
    fabric: str,
    expect: Expectations,
) -> Iterable[Finding]:
    if info.value is not None:
        health = {row.phy_id: row.health for row in info.value.chips}
        missing = sorted(not_listed(chips, info))
        if missing:
            yield HCCN_CHECKS.finding(
                "npu-missing",
                f"npu-smi does not list {chip_words(missing)}",
                fabric=fabric,
                chips=missing,
                seen=f"{len(health)} chips listed: {numbers(health) or 'none'}",
                expected=f"{len(chips)} chips: {numbers(chips)}",
            )
        listed = ((health[chip], chip) for chip in chips if chip in health and health[chip] != "OK")
        for value, bad in _grouped(listed):
            code = "npu-unhealthy" if value in ("Alarm", "Critical") else "npu-warning"
            yield HCCN_CHECKS.finding(
                code, f"{chip_words(bad)}: health {value}", fabric=fabric, chips=bad, seen=f"Health {value}"
            )
    if driver is None:
        seen = "no such file" if version_info is None else parsers.first_line(version_info) or "an empty file"
        yield HCCN_CHECKS.finding(
            "npu-driver-unknown", "the driver version is unknown", fabric=fabric, seen=seen
        )
    elif expect.driver_minimum and parsers.version_key(driver) < parsers.version_key(expect.driver_minimum):
        yield HCCN_CHECKS.finding(
            "npu-driver-old",
            f"the driver is {driver}, older than {expect.driver_minimum}",
            fabric=fabric,
            seen=driver,
            expected=f"{expect.driver_minimum} or newer",
        )


def port_findings(readings: dict[int, dict[str, Reading]], fabric: str) -> Iterable[Finding]:
    """Yield findings about the RoCE port. A cause hides its consequences: link DOWN or a missing detection
    address explain a bad net_health."""

    def known(query: str) -> list[tuple[int, Any]]:
        return [(chip, found[query].value) for chip, found in readings.items() if not found[query].problem]

    down = [(value, chip) for chip, value in known("link") if value != "UP"]
    for value, chips in _grouped(down):
        yield HCCN_CHECKS.finding(
            "hccn-link-down",
            f"{chip_words(chips)}: link {value}",
            fabric=fabric,
            chips=chips,
            seen=f"link {value}",
        )
    is_down = {chip for _value, chip in down}
    no_target = [chip for chip, value in known("netdetect") if value == parsers.UNSET_ADDRESS]
    bad = [
        (value, chip)
        for chip, value in known("net_health")
        if value.lower() != _GOOD_HEALTH.lower()
        and chip not in is_down
        and not (value.lower() == "init" and chip in no_target)
    ]
    for value, chips in _grouped(bad):
        yield HCCN_CHECKS.finding(
            "hccn-net-health",
            f"{chip_words(chips)}: net health {value}",
            fabric=fabric,
            chips=chips,
            seen=str(value),
            severity="warning" if str(value).lower() in _OPEN_HEALTH else None,
        )
    unset = {
        "hccn-netdetect-unset": (no_target, "no detection address", parsers.UNSET_ADDRESS),
        "hccn-gateway-unset": ([c for c, v in known("gateway") if v is None], "no gateway", "none"),
        "hccn-lldp-missing": (
            [c for c, v in known("lldp") if v is None],
            "no LLDP neighbour",
            "no Ifname line",
        ),
        "hccn-ip-unset": ([c for c, v in known("ip") if v is None], "no RoCE address", "none"),
    }
    for code, (chips, what, seen) in unset.items():
        if chips:
            yield HCCN_CHECKS.finding(
                code, f"{chip_words(chips)}: {what}", fabric=fabric, chips=chips, seen=seen
            )


def hccs_findings(
    readings: dict[int, dict[str, Reading]], info: Reading, fabric: str, expect: Expectations
) -> Iterable[Finding]:
    vnics = {chip: found["vnic"].value for chip, found in readings.items() if not found["vnic"].problem}
    missing = [chip for chip, vnic in vnics.items() if vnic.address is None]
    down = [(vnic.status, chip) for chip, vnic in vnics.items() if vnic.address and vnic.status != "UP"]
    # Only peers on other servers need it: a server that is alone has none.
    severity = "warning" if expect.alone and fabric == "hccs" else None
    if missing:
        yield HCCN_CHECKS.finding(
            "hccn-vnic-missing",
            f"{chip_words(missing)}: no vNIC address",
            fabric=fabric,
            chips=missing,
            seen="none",
            severity=severity,
        )
    for status, chips in _grouped(down):
        seen = status or "no status line"
        yield HCCN_CHECKS.finding(
            "hccn-vnic-down",
            f"{chip_words(chips)}: vNIC {seen}",
            fabric=fabric,
            chips=chips,
            seen=seen,
            severity=severity,
        )
    for address, chips in _grouped((vnic.address, chip) for chip, vnic in vnics.items() if vnic.address):
        if len(chips) > 1:
            yield HCCN_CHECKS.finding(
                "hccn-vnic-duplicate",
                f"{chip_words(chips)} have the same vNIC address, {address}",
                fabric=fabric,
                chips=chips,
                seen=str(address),
            )

    outside = [
        (found["spod-info"].seen, chip)
        for chip, found in readings.items()
        if no_super_pod(found["spod-info"]) and chip not in not_listed(readings, info)
    ]
    for seen, chips in _grouped(outside if fabric != "roce" else []):
        yield HCCN_CHECKS.finding(
            "hccn-spod-unknown",
            f"{chip_words(chips)}: no super pod",
            fabric=fabric,
            chips=chips,
            seen=str(seen),
            # Atlas A2 reports this too; it does not matter within one server.
            severity="hint" if expect.alone else None,
        )
    # Over RoCE, a server without a super pod reports none.
    said = {
        chip: pod_of(found) if fabric == "roce" else found["spod-info"].value
        for chip, found in readings.items()
    }
    pods = {chip: pod for chip, pod in said.items() if pod is not None}
    for sdid, chips in _grouped((pod.sdid, chip) for chip, pod in pods.items()):
        if len(chips) > 1:
            yield HCCN_CHECKS.finding(
                "hccn-sdid-duplicate",
                f"{chip_words(chips)} have the same SDID, {sdid}",
                fabric=fabric,
                chips=chips,
                seen=str(sdid),
            )
    for code, name, numbers_of in (
        ("hccn-super-pod-mixed", "Super Pod ID", {chip: pod.pod for chip, pod in pods.items()}),
        ("hccn-server-index-mixed", "Server Index", {chip: pod.server_index for chip, pod in pods.items()}),
    ):
        yield from _mixed(code, fabric, name, ((number, chip) for chip, number in numbers_of.items()))
    if expect.super_pod is not None:
        wrong = ((pod.pod, chip) for chip, pod in pods.items() if pod.pod != expect.super_pod)
        for value, chips in _grouped(wrong):
            yield HCCN_CHECKS.finding(
                "hccn-super-pod-unexpected",
                f"{chip_words(chips)}: super pod {value}",
                fabric=fabric,
                chips=chips,
                seen=f"Super Pod ID {value}",
                expected=f"Super Pod ID {expect.super_pod}",
            )


def _mixed(code: str, fabric: str, name: str, values: Iterable[tuple[object, int]]) -> Iterable[Finding]:
    """Yield a finding if the chips differ in a value that should be the same; it names the minority."""
    groups = sorted(_grouped(values), key=lambda group: (-len(group[1]), str(group[0])))
    if len(groups) < 2:
        return
    usual, _most = groups[0]
    odd = sorted(chip for _value, chips in groups[1:] for chip in chips)
    seen = "; ".join(f"{name} {value} on {chip_words(chips)}" for value, chips in groups)
    yield HCCN_CHECKS.finding(
        code,
        f"{chip_words(odd)}: {name} differs from the other chips of the server",
        fabric=fabric,
        chips=odd,
        seen=seen,
        expected=f"{name} {usual} on all",
    )


def tls_findings(
    readings: dict[int, dict[str, Reading]], fabric: str, expect: Expectations
) -> Iterable[Finding]:
    switches = {
        chip: tls_switch(found["tls"]) for chip, found in readings.items() if not found["tls"].problem
    }
    on = sorted(chip for chip, switch in switches.items() if switch)
    off = sorted(chip for chip, switch in switches.items() if not switch)
    if expect.tls != "any":
        wrong, declared = (off, "on") if expect.tls == "on" else (on, "off")
        if wrong:
            yield HCCN_CHECKS.finding(
                "hccn-tls-unexpected",
                f"{chip_words(wrong)}: TLS {'off' if declared == 'on' else 'on'}",
                fabric=fabric,
                chips=wrong,
                seen=f"tls switch[{0 if declared == 'on' else 1}]",
                expected=f"TLS {declared}, as declared",
            )
    elif on and off:
        yield HCCN_CHECKS.finding(
            "hccn-tls-mixed",
            f"TLS is on for {chip_words(on)} and off for the other {len(off)}",
            fabric=fabric,
            chips=on,
            seen=f"tls switch[1] on {chip_words(on)}",
        )
    elif on:
        yield HCCN_CHECKS.finding(
            "hccn-tls-on", f"TLS is on for all {len(on)} chips", fabric=fabric, chips=on, seen="tls switch[1]"
        )
    # An unused certificate may expire.
    for code, status, words in (
        ("hccn-tls-expired", 2, "has expired"),
        ("hccn-tls-expiring", 1, "expires soon"),
    ):
        of_chips = [(chip, readings[chip]["tls"].value) for chip in on]
        bad = {chip: tls.certificates for chip, tls in of_chips if tls.expiration == status}
        if bad:
            ends = "; ".join(f"{kind}: {end}" for kind, end in next(iter(bad.values())))
            yield HCCN_CHECKS.finding(
                code,
                f"{chip_words(bad)}: a TLS certificate {words}",
                fabric=fabric,
                chips=bad,
                seen=f"tls expiration status[{status}]{f' (last days: {ends})' if ends else ''}",
            )


def conf_findings(
    readings: dict[int, dict[str, Reading]],
    conf: dict[int, dict[str, str]] | None,
    text: str | None,
    fabric: str,
) -> Iterable[Finding]:
    chips = list(readings)
    # Chips without RoCE addresses whose traffic goes over HCCS have nothing to write into the file: "hccs
    # does not require device_ip" (hixl v8.5.0, rank_table_generator.cc). It must only be there to be mounted.
    unused = needs_no_conf(readings, fabric)
    severity = "warning" if unused else None
    unneeded = "; over HCCS it only has to exist" if unused else ""
    if conf is None:
        yield HCCN_CHECKS.finding(
            "hccn-conf-missing",
            f"/etc/hccn.conf is missing or unreadable{unneeded}",
            fabric=fabric,
            chips=chips,
            seen="no file",
            severity=severity,
            expected="an empty file: the engines' containers mount it" if unused else None,
            cure="touch /etc/hccn.conf  # it needs no address where HCCS carries the traffic"
            if unused
            else None,
        )
        return
    if not any("address" in values for values in conf.values()):
        seen = parsers.first_line(text or "") or "an empty file"
        yield HCCN_CHECKS.finding(
            "hccn-conf-empty",
            f"/etc/hccn.conf lists no chip{unneeded}",
            fabric=fabric,
            chips=chips,
            seen=seen,
            severity=severity,
            expected="no RoCE address on a chip, and none in the file" if unused else None,
            cure="ls -l /etc/hccn.conf  # it only has to exist: nothing to do where HCCS carries the traffic"
            if unused
            else None,
        )
        return
    lacking = [chip for chip in chips if "address" not in conf.get(chip, {})]
    if lacking:
        yield HCCN_CHECKS.finding(
            "hccn-conf-incomplete",
            f"/etc/hccn.conf has no address for {chip_words(lacking)}",
            fabric=fabric,
            chips=lacking,
            seen=f"addresses for {len(chips) - len(lacking)} of {len(chips)} chips",
        )
    shown: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("address", "ip", lambda value: value.address),
        ("netmask", "ip", lambda value: value.netmask),
        ("gateway", "gateway", lambda value: value.address),
        ("netdetect", "netdetect", lambda value: value),
    )
    for key, query, of in shown:
        different = [
            (chip, conf[chip][key], of(found[query].value))
            for chip, found in readings.items()
            if key in conf.get(chip, {})
            and found[query].value not in (None, parsers.UNSET_ADDRESS)
            and of(found[query].value) not in (None, conf[chip][key])
        ]
        if different:
            concerned = [chip for chip, _file, _chip in different]
            chip, in_file, of_chip = different[0]
            yield HCCN_CHECKS.finding(
                "hccn-conf-disagrees",
                f"{key} in /etc/hccn.conf differs from {chip_words(concerned)}",
                fabric=fabric,
                chips=concerned,
                seen=f"chip {chip}: {in_file} in the file, {of_chip} on the chip",
                # The KV transfer reads nothing else (hixl v8.5.0, rank_table_generator.cc: GetDeviceIp).
                severity=None if key == "address" else "warning",
                expected=f"{key}_{chip}={of_chip}",
            )
