# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the answers of one server: its state and its findings. Pure functions, no Ansible."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from .._commands import Answer
from .._findings import Finding, brief, counted, errors_of, ordered
from . import parsers
from .findings import conf_findings, hccs_findings, npu_findings, port_findings, tls_findings, tool_findings
from .query import ServerAnswers
from .readings import Expectations, chip_state, fabric_of, needs_no_conf, read

# The names of the fabrics in reports.
FABRICS = {"hccs": "HCCS", "roce": "RoCE", "both": "HCCS and RoCE"}


@dataclass
class ServerState:
    """The state of one server, of its chips by id, and the findings about them."""

    fabric: str
    driver: str | None
    chips: dict[int, dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    # Whether /etc/hccn.conf is missing and an empty file is sufficient.
    make_conf: bool = False
    seconds: float = 0.0
    queries: int = 0

    @property
    def ok(self) -> bool:
        return not errors_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        made = asdict(self)
        made["findings"] = [finding.to_dict() for finding in self.findings]
        made["chips"] = [{"chip": chip, **values} for chip, values in sorted(self.chips.items())]
        return made


def judge(answers: ServerAnswers, expect: Expectations) -> ServerState:
    """Return the server's state with all findings, the worst first; chips with one problem are grouped."""
    readings = {
        chip: {query: read(answer) for query, answer in asked.items()}
        for chip, asked in answers.chips.items()
    }
    info = read(answers.npu_info)
    conf = parsers.parse_hccn_conf(answers.hccn_conf) if answers.hccn_conf is not None else None
    fabric = fabric_of(readings, expect)
    driver = parsers.parse_driver_version(answers.version_info or "")
    state = ServerState(
        fabric,
        driver,
        {chip: chip_state(chip, found, info) for chip, found in readings.items()},
        make_conf=answers.hccn_conf is None and needs_no_conf(readings, fabric),
        seconds=round(answers.seconds, 3),
        queries=answers.count,
    )
    state.findings = ordered(
        [
            *tool_findings(readings, info, fabric, expect),
            *npu_findings(list(readings), info, driver, answers.version_info, fabric, expect),
            *port_findings(readings, fabric),
            *hccs_findings(readings, info, fabric, expect),
            *tls_findings(readings, fabric, expect),
            *conf_findings(readings, conf, answers.hccn_conf, fabric),
        ]
    )
    return state


def summary(state: ServerState) -> str:
    """Return one line for the server, then one line for each finding."""
    fabric = FABRICS[state.fabric]
    lines = [
        f"{len(state.chips)} chips, {fabric}, driver {state.driver or 'unknown'}: "
        f"{counted(state.findings)} ({state.queries} queries in {state.seconds:.1f} s)"
    ]
    return "\n".join([*lines, *brief(state.findings)])


def ping_failure(answer: Answer, timeout: float) -> str | None:
    """Return None if the ping succeeded, otherwise what was seen; only an explicit success counts.

    ``timeout``: of the ping, in seconds, for the text.
    """
    if answer.problem == "timeout":
        return f"no answer within {timeout:g} s, killed"
    if answer.problem is not None:
        return answer.text or answer.problem
    ping = parsers.parse_ping(answer.text)
    if ping is not None and ping.success:
        return None
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    if ping is not None and ping.sent is not None:
        # The tool's lines about lost packets: "This pkt send fail!", "recv time out seq=0".
        why = dict.fromkeys(
            line for line in lines if re.search(r"\bfail|\btime[ ]?out\b|unreachable", line, re.I)
        )
        return f"{ping.received} of {ping.sent} packets received" + (f" ({'; '.join(why)})" if why else "")
    return "; ".join(lines)[:600] if lines else f"no output, exit status {answer.status}"


def ping_unknown(answer: Answer) -> bool:
    """Return whether the tool did not ping at all, so that its answer says nothing about the connection."""
    if answer.problem is not None or parsers.parse_ping(answer.text) is not None:
        return False
    return parsers.is_busy(answer.text) or parsers.is_unsupported(answer.text)
