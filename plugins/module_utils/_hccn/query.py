# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Queries hccn_tool and npu-smi: chips in parallel, one query at a time for each chip."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

from .._commands import Answer, Command, Runner, run_chains
from . import parsers

HCCN_TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"
NPU_SMI = "/usr/local/bin/npu-smi"
VERSION_INFO = "/usr/local/Ascend/driver/version.info"
HCCN_CONF = "/etc/hccn.conf"

# Where driver installations put npu-smi; an ssh session may lack the last ones in PATH.
NPU_SMI_PLACES = (NPU_SMI, "/usr/local/sbin/npu-smi", "/usr/bin/npu-smi", "/usr/sbin/npu-smi")

# The queries of one chip, in their order.
CHIP_QUERIES = ("link", "net_health", "netdetect", "gateway", "lldp", "ip", "vnic", "tls")

# How many times a query is tried while the tool is busy, and the pause between attempts in seconds.
ATTEMPTS = 4
PAUSE = 1.0

# After this many timeouts a chip is no longer queried: its driver hangs, and the run must not.
TIMEOUTS_PER_CHIP = 2


@dataclass(frozen=True)
class Tools:
    """The paths of the tools, and the timeout of one query in seconds."""

    hccn_tool: str = HCCN_TOOL
    npu_smi: str = NPU_SMI
    timeout: float = 10.0

    def hccn(self, chip: int, query: str, *more: str) -> Command:
        words = [self.hccn_tool, "-i", str(chip), f"-{query}", "-g", *more]
        return Command("hccn_tool", query, words, self.timeout)

    def smi(self, query: str, *arguments: str) -> Command:
        return Command("npu-smi", query, [npu_smi_at(self.npu_smi), "info", *arguments], self.timeout)


def npu_smi_at(path: str, places: Sequence[str] = NPU_SMI_PLACES) -> str:
    """Return the path, or where npu-smi is if it is not there but in another of its usual places."""
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
        """The number of commands that were run."""
        return 1 + sum(
            1 for asked in self.chips.values() for answer in asked.values() if answer.problem != "not_asked"
        )


def read_file(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _npu_of(chip: int, info: Answer) -> tuple[int, int]:
    """Return npu-smi's numbers of NPU and chip for a chip's id; two chips per NPU without its table."""
    # Its patterns are compiled on every call: here that happens while the tools are answering.
    table = parsers.parse_npu_info(info.text) if info.problem is None else None
    for row in table.chips if table else ():
        if row.phy_id == chip:
            return row.npu, row.chip
    return divmod(chip, 2)


def patiently(runner: Runner, command: Command, pause: float = PAUSE) -> Answer:
    """Return the answer to a command, repeated while the tool is busy with another process's query.

    ``pause``: between attempts, in seconds.
    """
    answer = runner.run(command)
    for _again in range(ATTEMPTS - 1):
        if answer.problem is not None or not parsers.is_busy(answer.text):
            break
        time.sleep(pause)
        answer = runner.run(command)
    return answer


def ask_in_turn(runner: Runner, commands: Iterable[Command], limit: int = TIMEOUTS_PER_CHIP) -> list[Answer]:
    """Run commands one after the other and return their answers; skip the rest after ``limit`` timeouts."""
    answers: list[Answer] = []
    for command in commands:
        hung = sum(1 for answer in answers if answer.problem == "timeout")
        if hung < limit:
            answers.append(patiently(runner, command))
        else:
            answers.append(Answer(command.tool, command.query, problem="not_asked"))
    return answers


def _chip(runner: Runner, chip: int, tools: Tools) -> dict[str, Answer]:
    """Return all answers about one chip by query; the last query needs npu-smi's table."""
    answers = ask_in_turn(runner, (tools.hccn(chip, query) for query in CHIP_QUERIES))
    npu, on_npu = _npu_of(chip, runner.result_of("info"))
    spod = tools.smi("spod-info", "-t", "spod-info", "-i", str(npu), "-c", str(on_npu))
    hung = sum(1 for answer in answers if answer.problem == "timeout")
    answers += ask_in_turn(runner, [spod], TIMEOUTS_PER_CHIP - hung)
    return {answer.query: answer for answer in answers}


def query_server(
    chips: Sequence[int],
    tools: Tools,
    version_info: str = VERSION_INFO,
    hccn_conf: str = HCCN_CONF,
) -> ServerAnswers:
    """Run all queries about these chips, all chips at once, and return the answers of the server."""
    begin = time.monotonic()
    # npu-smi's table is requested first, so it is ready when the first chip needs it.
    chains: dict[Hashable, Callable[[Runner], Any]] = {
        "info": partial(Runner.run, command=tools.smi("info")),
        **{chip: partial(_chip, chip=chip, tools=tools) for chip in chips},
    }
    found: dict[Any, Any] = run_chains(chains)
    seconds = time.monotonic() - begin
    info = found.pop("info")
    return ServerAnswers(found, info, read_file(version_info), read_file(hccn_conf), seconds)


def _ping(runner: Runner, command: Command) -> Answer:
    """Return the answer of a ping, or of a second one if some of the packets were lost.

    The first ping of a neighbour loses the packet that waits for its address, "recv time out seq=0", while
    the others arrive.
    """
    answer = patiently(runner, command)
    ping = parsers.parse_ping(answer.text) if answer.problem is None else None
    if ping is not None and not ping.success and ping.received:
        answer = patiently(runner, command)
    return answer


def ping_chips(targets: Mapping[int, Sequence[str]], kind: str, tools: Tools) -> dict[int, dict[str, Answer]]:
    """Ping each chip's targets, one after the other because a chip serves one ping at a time.

    ``targets``: the addresses by chip; ``kind``: ``hccs_ping`` or ``ping``. Returns the answers by chip and
    address. All targets are tried even if some hang, because one dead pair says nothing about the next.
    """

    def pings_of(runner: Runner, chip: int) -> dict[str, Answer]:
        return {
            address: _ping(runner, tools.hccn(chip, kind, "address", address)) for address in targets[chip]
        }

    return run_chains({chip: partial(pings_of, chip=chip) for chip in targets})
