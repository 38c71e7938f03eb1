# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""From the answers of one server to its state and its findings. Pure functions, no Ansible."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._commands import Answer
from .._findings import SEVERITIES, Finding, brief, counted, errors_of, numbers, ordered
from . import driver_messages, parsers
from .catalogue import HCCN_CHECKS, chip_words
from .query import ServerAnswers

# Queries whose answer may lack the value because nothing is configured; all others must say it.
MAY_BE_UNSET = ("gateway", "lldp", "ip", "vnic", "tls")

# Queries that concern the ways to other servers alone.
BETWEEN_SERVERS = frozenset({"vnic", "spod-info"})

# The check that a query feeds: an answer that fails weighs as much as the state that it hides.
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

# The fabrics in the words of reports.
FABRICS = {"hccs": "HCCS", "roce": "RoCE", "both": "HCCS and RoCE"}
_GOOD_HEALTH = "Success"
# Neither good nor bad: nothing has been detected yet, an address was just set, the chip does not know, or the
# detection itself has failed (hccn_tool/tool_ops.c).
_OPEN_HEALTH = frozenset({"init", "detect ip set", "thread error", "unknown"})
_NO_VNIC = parsers.Vnic(None, None)


@dataclass(frozen=True)
class Expectations:
    """What is declared. `tls`: any, off or on. `super_pod` and `driver_minimum`: None where nothing is.

    `planned` is the fabric that product and environment of the plan decide: auto where there is no plan.
    `alone`: the plan has engines on this server only.
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
    """An answer, read. `problem`: None, or why there is no value; then `seen` shows the tool's words.

    `unsupported`: the failure says that there is no such command, and nothing of the chip.
    """

    # What the query's parser makes of it, each its own type.
    value: Any = None
    problem: str | None = None
    seen: str = ""
    unsupported: bool = False


@dataclass
class ServerState:
    """What one server says of itself, its chips by id, and what is wrong with it."""

    fabric: str
    driver: str | None
    chips: dict[int, dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    # /etc/hccn.conf is not there, and an empty one is all that is needed.
    make_conf: bool = False
    seconds: float = 0.0
    queries: int = 0

    @property
    def ok(self) -> bool:
        return not errors_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        made = asdict(self)
        made["findings"] = [one.to_dict() for one in self.findings]
        made["chips"] = [{"chip": chip, **values} for chip, values in sorted(self.chips.items())]
        return made


def read(answer: Answer) -> Reading:
    """The value of an answer, or the reason why there is none."""
    if answer.problem is not None:
        return Reading(problem=answer.problem, seen=answer.text)
    value = _PARSERS[answer.query](answer.text)
    if value is not None and value != _NO_VNIC:
        return Reading(value)
    seen = driver_messages.shown(answer.text)
    if parsers.wants_root(answer.text):
        return Reading(problem="needs_root", seen=seen)
    # hccn_tool calls what is not configured an error, with an exit status. No certificate: TLS off.
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


def judge(answers: ServerAnswers, expect: Expectations) -> ServerState:
    """Everything that is wrong with this server, grouped, worst first."""
    readings = {
        chip: {query: read(answer) for query, answer in asked.items()}
        for chip, asked in answers.chips.items()
    }
    info = read(answers.npu_info)
    conf = parsers.parse_hccn_conf(answers.hccn_conf) if answers.hccn_conf is not None else None
    fabric = _fabric(readings, expect)
    driver = parsers.parse_driver_version(answers.version_info or "")
    state = ServerState(
        fabric,
        driver,
        {chip: _chip_state(chip, found, info) for chip, found in readings.items()},
        make_conf=answers.hccn_conf is None and needs_no_conf(readings, fabric),
        seconds=round(answers.seconds, 3),
        queries=answers.count,
    )
    state.findings = ordered(
        [
            *_tool_findings(readings, info, fabric, expect),
            *_npu_findings(list(readings), info, driver, answers.version_info, fabric, expect),
            *_port_findings(readings, fabric),
            *_hccs_findings(readings, info, fabric, expect),
            *_tls_findings(readings, fabric, expect),
            *_conf_findings(readings, conf, answers.hccn_conf, fabric),
        ]
    )
    return state


def _fabric(readings: dict[int, dict[str, Reading]], expect: Expectations) -> str:
    """Declared, or what product and environment of the plan decide, or what every chip says.

    A vNIC says nothing: Atlas A2 has one too. spod-info answers on every A3 and on no A2
    (npucli/npu_chip_info_ext.c), and an A3 that stands in no super pod has an index beyond its servers. A
    chip that hangs or refuses says nothing of the fabric: then the stricter reading holds for an A3.
    """
    if expect.fabric != "auto":
        return expect.fabric
    if expect.planned == "roce" or not readings:
        return "hccs" if expect.planned == "auto" else expect.planned
    pods = [found["spod-info"] for found in readings.values()]
    if all(pod.value is not None and not pod.value.inside for pod in pods):
        # Inside a server HCCS connects the chips, whatever the server stands in.
        return "hccs" if expect.alone and expect.planned == "hccs" else "roce"
    if expect.planned == "both":
        return "both"
    # That an Atlas A3 is planned weighs more than a tool that does not know spod-info.
    outside = expect.planned == "auto" and all(map(_no_super_pod, pods))
    return "roce" if outside and _some_answer(readings) else "hccs"


def _some_answer(readings: dict[int, dict[str, Reading]]) -> bool:
    """Does any chip have a link: that is, do the tools work at all?"""
    return any(found["link"].value is not None for found in readings.values())


def _chip_state(chip: int, found: dict[str, Reading], info: Reading) -> dict[str, Any]:
    """One chip as plain data, for people and for the comparison between servers."""
    vnic = found["vnic"].value or _NO_VNIC
    gateway, ip, pod = found["gateway"].value, found["ip"].value, _pod(found)
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
        # No certificate means that TLS is off; no answer means that nobody knows.
        "tls": None if found["tls"].problem else _switch(found["tls"]),
        "sdid": pod.sdid if pod else None,
        "super_pod": pod.pod if pod else None,
        "super_pod_size": pod.size if pod else None,
        "server_index": pod.server_index if pod else None,
        "npu_health": row.health if row else None,
    }


def _pod(found: dict[str, Reading]) -> parsers.SuperPod | None:
    """Where the chip stands in its super pod; None where it stands in none, or does not say."""
    pod = found["spod-info"].value
    return pod if pod is not None and pod.inside else None


def _switch(reading: Reading) -> int:
    """The TLS switch: without a certificate it is off."""
    return int(reading.value.switch) if reading.value else 0


def _absent(readings: Iterable[int], info: Reading) -> set[int]:
    """The chips that npu-smi does not list; none where it lists nothing."""
    listed = {row.phy_id for row in info.value.chips} if info.value else set(readings)
    return {chip for chip in readings if chip not in listed}


def _no_super_pod(reading: Reading) -> bool:
    """Does npu-smi say that the chip has no such thing, as on servers outside of super pods?"""
    return reading.problem == "failed" and "support" in reading.seen.lower()


def _grouped(pairs: Iterable[tuple[Any, int]]) -> list[tuple[Any, list[int]]]:
    """Chips by what was seen: sixteen chips that say the same are one finding."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for seen, chip in pairs:
        groups[seen].append(chip)
    return list(groups.items())


def _tool_findings(
    readings: dict[int, dict[str, Reading]], info: Reading, fabric: str, expect: Expectations
) -> Iterable[Finding]:
    """What went wrong with the asking. One finding per tool and kind, with the queries concerned."""
    problems = [
        (reading, "npu-smi" if query == "spod-info" else "hccn_tool", query, chip)
        for chip, found in readings.items()
        for query, reading in found.items()
        if reading.problem not in (None, "not_asked")
    ]
    if info.problem is not None:
        problems.append((info, "npu-smi", "info", -1))
    # A chip that npu-smi does not list has its finding; that it cannot be asked there follows.
    absent = _absent(readings, info)
    problems = [one for one in problems if one[2] != "spod-info" or one[3] not in absent]
    # That a chip knows no super pod is an answer; what it means is for _hccs_findings to say.
    problems = [one for one in problems if one[2] != "spod-info" or not _no_super_pod(one[0])]

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
            what = "failed" if problem == "failed" else "was not understood"
            yield HCCN_CHECKS.finding(
                code,
                f"{tool} {asked} {what}{of_chips}",
                fabric=fabric,
                chips=chips,
                seen=seen,
                severity=severity,
            )


def _npu_findings(
    chips: Sequence[int],
    info: Reading,
    driver: str | None,
    version_info: str | None,
    fabric: str,
    expect: Expectations,
) -> Iterable[Finding]:
    if info.value is not None:
        health = {row.phy_id: row.health for row in info.value.chips}
        missing = sorted(_absent(chips, info))
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


def _port_findings(readings: dict[int, dict[str, Reading]], fabric: str) -> Iterable[Finding]:
    """The RoCE port. A cause hides its consequences: link DOWN and no target explain a bad net_health."""

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


def _hccs_findings(
    readings: dict[int, dict[str, Reading]], info: Reading, fabric: str, expect: Expectations
) -> Iterable[Finding]:
    vnics = {chip: found["vnic"].value for chip, found in readings.items() if not found["vnic"].problem}
    missing = [chip for chip, vnic in vnics.items() if vnic.address is None]
    down = [(vnic.status, chip) for chip, vnic in vnics.items() if vnic.address and vnic.status != "UP"]
    # Peers on other servers reach a chip by it: there are none where the server is alone.
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
                f"{chip_words(chips)} have one vNIC address, {address}",
                fabric=fabric,
                chips=chips,
                seen=str(address),
            )

    outside = [
        (found["spod-info"].seen, chip)
        for chip, found in readings.items()
        if _no_super_pod(found["spod-info"]) and chip not in _absent(readings, info)
    ]
    for seen, chips in _grouped(outside if fabric != "roce" else []):
        yield HCCN_CHECKS.finding(
            "hccn-spod-unknown",
            f"{chip_words(chips)}: no super pod",
            fabric=fabric,
            chips=chips,
            seen=str(seen),
            # Which Atlas A2 says, too; it is of no account inside a server.
            severity="hint" if expect.alone else None,
        )
    # On RoCE servers that stand in no super pod have nothing to say of one.
    said = {
        chip: _pod(found) if fabric == "roce" else found["spod-info"].value
        for chip, found in readings.items()
    }
    pods = {chip: pod for chip, pod in said.items() if pod is not None}
    for sdid, chips in _grouped((pod.sdid, chip) for chip, pod in pods.items()):
        if len(chips) > 1:
            yield HCCN_CHECKS.finding(
                "hccn-sdid-duplicate",
                f"{chip_words(chips)} have one SDID, {sdid}",
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
    """A value that should be the same on all chips: the finding names the chips of the minority."""
    groups = sorted(_grouped(values), key=lambda group: (-len(group[1]), str(group[0])))
    if len(groups) < 2:
        return
    usual, _most = groups[0]
    odd = sorted(chip for _value, chips in groups[1:] for chip in chips)
    seen = "; ".join(f"{name} {value} on {chip_words(chips)}" for value, chips in groups)
    yield HCCN_CHECKS.finding(
        code,
        f"{chip_words(odd)}: another {name} than the other chips of the server",
        fabric=fabric,
        chips=odd,
        seen=seen,
        expected=f"{name} {usual} on all",
    )


def _tls_findings(
    readings: dict[int, dict[str, Reading]], fabric: str, expect: Expectations
) -> Iterable[Finding]:
    switches = {chip: _switch(found["tls"]) for chip, found in readings.items() if not found["tls"].problem}
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
    # A certificate that nobody uses may expire.
    for code, status, words in (
        ("hccn-tls-expired", 2, "has expired"),
        ("hccn-tls-expiring", 1, "will soon expire"),
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


def needs_no_conf(readings: dict[int, dict[str, Reading]], fabric: str) -> bool:
    """Whether nobody needs an address from /etc/hccn.conf: all goes over HCCS, and no chip has one."""
    return fabric == "hccs" and all(
        found["ip"].problem is None and found["ip"].value is None for found in readings.values()
    )


def _conf_findings(
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
    unneeded = "; over HCCS it must only be there" if unused else ""
    if conf is None:
        yield HCCN_CHECKS.finding(
            "hccn-conf-missing",
            f"/etc/hccn.conf is missing or unreadable{unneeded}",
            fabric=fabric,
            chips=chips,
            seen="no file",
            severity=severity,
            expected="the file, empty: the engines' containers mount it" if unused else None,
            cure="touch /etc/hccn.conf  # no address belongs into it where HCCS carries the traffic"
            if unused
            else None,
        )
        return
    if not any("address" in values for values in conf.values()):
        seen = parsers.first_line(text or "") or "an empty file"
        yield HCCN_CHECKS.finding(
            "hccn-conf-empty",
            f"/etc/hccn.conf names no chip{unneeded}",
            fabric=fabric,
            chips=chips,
            seen=seen,
            severity=severity,
            expected="no RoCE address on a chip, and none in the file" if unused else None,
            cure="ls -l /etc/hccn.conf  # it must only exist: nothing to do where HCCS carries the traffic"
            if unused
            else None,
        )
        return
    lacking = [chip for chip in chips if "address" not in conf.get(chip, {})]
    if lacking:
        yield HCCN_CHECKS.finding(
            "hccn-conf-incomplete",
            f"/etc/hccn.conf has no address of {chip_words(lacking)}",
            fabric=fabric,
            chips=lacking,
            seen=f"addresses of {len(chips) - len(lacking)} of {len(chips)} chips",
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
                f"/etc/hccn.conf has another {key} than {chip_words(concerned)}",
                fabric=fabric,
                chips=concerned,
                seen=f"chip {chip}: {in_file} in the file, {of_chip} on the chip",
                # The KV transfer reads nothing else (hixl v8.5.0, rank_table_generator.cc: GetDeviceIp).
                severity=None if key == "address" else "warning",
                expected=f"{key}_{chip}={of_chip}",
            )


def summary(state: ServerState) -> str:
    """One line on the server, then one line a finding."""
    fabric = FABRICS[state.fabric]
    lines = [
        f"{len(state.chips)} chips, {fabric}, driver {state.driver or 'unknown'}: "
        f"{counted(state.findings)} ({state.queries} queries in {state.seconds:.1f} s)"
    ]
    return "\n".join([*lines, *brief(state.findings)])


def ping_failure(answer: Answer, timeout: float) -> str | None:
    """None where the ping succeeded, else what was seen. Only a clear success counts as one."""
    if answer.problem == "timeout":
        return f"no answer within {timeout:g} s, killed"
    if answer.problem is not None:
        return answer.text or answer.problem
    ping = parsers.parse_ping(answer.text)
    if ping is not None and ping.success:
        return None
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    if ping is not None and ping.sent is not None:
        # What became of the packets that did not arrive: "This pkt send fail!", "recv time out seq=0".
        why = dict.fromkeys(
            line for line in lines if re.search(r"\bfail|\btime[ ]?out\b|unreachable", line, re.I)
        )
        return f"{ping.received} of {ping.sent} packets received" + (f" ({'; '.join(why)})" if why else "")
    return "; ".join(lines)[:600] if lines else f"no output, exit status {answer.status}"


def ping_unknown(answer: Answer) -> bool:
    """Did the tool not ping at all? Then its answer says nothing of the connection."""
    if answer.problem is not None or parsers.parse_ping(answer.text) is not None:
        return False
    return parsers.is_busy(answer.text) or parsers.is_unsupported(answer.text)
