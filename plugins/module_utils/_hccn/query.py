# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Asks hccn_tool and npu-smi: chips in parallel, one query at a time per chip."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._commands import Answer, Chain, Command, ResultOf, once, run_chains
from . import parsers

HCCN_TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"
NPU_SMI = "/usr/local/bin/npu-smi"
VERSION_INFO = "/usr/local/Ascend/driver/version.info"
HCCN_CONF = "/etc/hccn.conf"

# Where installations of the driver put npu-smi; a session over ssh may lack the last ones in PATH.
NPU_SMI_PLACES = (NPU_SMI, "/usr/local/sbin/npu-smi", "/usr/bin/npu-smi", "/usr/sbin/npu-smi")

# The queries of one chip, in the order in which they are asked.
CHIP_QUERIES = ("link", "net_health", "netdetect", "gateway", "lldp", "ip", "vnic", "tls")

# How often an answer that the tool is busy is asked for again, and after how many seconds.
ATTEMPTS = 4
PAUSE = 1.0

# After this many time-outs a chip is not asked any more: its driver hangs, and the run shall not.
TIMEOUTS_PER_CHIP = 2


@dataclass(frozen=True)
class Tools:
    """Where the tools are, and how long one query may take (seconds)."""

    hccn_tool: str = HCCN_TOOL
    npu_smi: str = NPU_SMI
    timeout: float = 10.0

    def hccn(self, chip: int, query: str, *more: str) -> Command:
        words = [self.hccn_tool, "-i", str(chip), f"-{query}", "-g", *more]
        return Command("hccn_tool", query, words, self.timeout)

    def smi(self, query: str, *arguments: str) -> Command:
        return Command("npu-smi", query, [npu_smi_at(self.npu_smi), "info", *arguments], self.timeout)


def npu_smi_at(path: str, places: Sequence[str] = NPU_SMI_PLACES) -> str:
    """That path, or where npu-smi is if it is not there but at another of its usual places."""
    if path not in places or os.path.lexists(path):
        return path
    return next((place for place in places if os.path.lexists(place)), shutil.which("npu-smi") or path)


@dataclass(frozen=True)
class ServerAnswers:
    """All answers of one server: by chip and query, npu-smi's table, and two files (None: unreadable)."""

    chips: dict[int, dict[str, Answer]]
    npu_info: Answer
    version_info: str | None
    hccn_conf: str | None
    seconds: float

    @property
    def count(self) -> int:
        """How many commands were run."""
        return 1 + sum(
            1 for asked in self.chips.values() for one in asked.values() if one.problem != "not_asked"
        )


def read_file(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _npu_of(chip: int, info: Answer) -> tuple[int, int]:
    """NPU and chip on it, as npu-smi counts, of a physical chip id; two an NPU where the table is silent."""
    # Compiled on the server at every call: better while the tools answer than before they are asked.
    table = parsers.parse_npu_info(info.text) if info.problem is None else None
    for row in table.chips if table else ():
        if row.phy_id == chip:
            return row.npu, row.chip
    return divmod(chip, 2)


def patiently(command: Command, pause: float = PAUSE) -> Chain:
    """The answer; asked for again where the tool is busy with somebody else's question."""
    answer = yield command
    for _again in range(ATTEMPTS - 1):
        if answer.problem is not None or not parsers.is_busy(answer.text):
            break
        yield Command("sleep", "pause", ["sleep", f"{pause:g}"], pause + 10)
        answer = yield command
    return answer


def ask_in_turn(commands: Iterable[Command], limit: int = TIMEOUTS_PER_CHIP) -> Chain:
    """Ask one question after the other; after `limit` time-outs the rest is not asked."""
    answers: list[Answer] = []
    for command in commands:
        hung = sum(1 for answer in answers if answer.problem == "timeout")
        if hung < limit:
            answers.append((yield from patiently(command)))
        else:
            answers.append(Answer(command.tool, command.query, problem="not_asked"))
    return answers


def _chip(chip: int, tools: Tools) -> Chain:
    """Everything about one chip; the last question needs npu-smi's table."""
    answers = yield from ask_in_turn(tools.hccn(chip, query) for query in CHIP_QUERIES)
    npu, on_npu = _npu_of(chip, (yield ResultOf("info")))
    spod = tools.smi("spod-info", "-t", "spod-info", "-i", str(npu), "-c", str(on_npu))
    hung = sum(1 for answer in answers if answer.problem == "timeout")
    answers += yield from ask_in_turn([spod], TIMEOUTS_PER_CHIP - hung)
    return {answer.query: answer for answer in answers}


def query_server(
    chips: Sequence[int],
    tools: Tools,
    version_info: str = VERSION_INFO,
    hccn_conf: str = HCCN_CONF,
) -> ServerAnswers:
    """Ask everything about these chips, all chips at once."""
    begin = time.monotonic()
    # npu-smi's table comes first: it is there when the first chip needs it.
    chains: dict[Hashable, Chain] = {
        "info": once(tools.smi("info")),
        **{chip: _chip(chip, tools) for chip in chips},
    }
    found: dict[Any, Any] = run_chains(chains)
    seconds = time.monotonic() - begin
    info = found.pop("info")
    return ServerAnswers(found, info, read_file(version_info), read_file(hccn_conf), seconds)


def _ping(command: Command) -> Chain:
    """The answer of a ping; of a second one where a part of the packets was lost.

    The first ping of a neighbour loses the packet that waits for its address: "recv time out seq=0", and the
    others arrive.
    """
    answer = yield from patiently(command)
    ping = parsers.parse_ping(answer.text) if answer.problem is None else None
    if ping is not None and not ping.success and ping.received:
        answer = yield from patiently(command)
    return answer


def ping_chips(targets: Mapping[int, Sequence[str]], kind: str, tools: Tools) -> dict[int, dict[str, Answer]]:
    """Ping from every chip its addresses, one after the other. A chip serves one ping at a time.

    All targets are tried, hanging ones too: that one pair is dead says nothing about the next.
    """

    def pings_of(chip: int) -> Chain:
        asked = {}
        for address in targets[chip]:
            asked[address] = yield from _ping(tools.hccn(chip, kind, "address", address))
        return asked

    return run_chains({chip: pings_of(chip) for chip in targets})
