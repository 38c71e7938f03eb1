# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Asking tools that answer, hang, are missing, or refuse: small scripts in their place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._commands import Answer, Command, run_chains
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import query as q


def script(place: Path, name: str, body: str) -> str:
    path = place / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def tools(tmp_path):
    def make(hccn: str = "echo link status: UP", smi: str = "echo npu", timeout: float = 5.0) -> q.Tools:
        return q.Tools(script(tmp_path, "hccn_tool", hccn), script(tmp_path, "npu-smi", smi), timeout)

    return make


def pipes() -> list[str]:
    """The pipes that are open. Sockets come and go with threads that other tests have left."""
    found = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
    return sorted(path for path in found if "/pipe:" in path or "/anon_inode:" in path)


def test_nothing_is_left_behind(tools) -> None:
    before = pipes()
    q.query_server(range(4), tools("sleep 300", "echo", timeout=0.2), "/nonexistent", "/nonexistent")
    assert pipes() == before


def test_chips_run_in_parallel_and_each_asks_one_at_a_time(tools, tmp_path) -> None:
    held = (
        f'chip=$2; mkdir {tmp_path}/lock.$chip || exit 9; sleep 0.02; rmdir {tmp_path}/lock.$chip; echo "$3"'
    )
    answers = q.query_server(range(16), tools(held, "echo table"), "/nonexistent", "/nonexistent")
    assert sorted(answers.chips) == list(range(16))
    for asked in answers.chips.values():
        assert list(asked) == [*q.CHIP_QUERIES, "spod-info"]
        assert all(answer.status == 0 for answer in asked.values())
    assert answers.count == 16 * 9 + 1
    assert answers.version_info is None


def test_the_run_ends_although_everything_hangs(tools) -> None:
    begin = time.monotonic()
    answers = q.query_server(range(8), tools("sleep 300", "sleep 300", timeout=0.5))
    assert time.monotonic() - begin < 60
    problems = [answer.problem for answer in answers.chips[0].values()]
    assert problems.count("timeout") == q.TIMEOUTS_PER_CHIP
    assert set(problems) == {"timeout", "not_asked"}
    assert answers.npu_info.problem == "timeout"


def test_spod_info_is_asked_by_the_numbers_of_the_table(tools) -> None:
    table = """
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 5     Ascend910           | OK            | -           40                0    / 0             |
| 1     0                   | 0000:9F:00.0  | 0           0    / 0          62449/ 65536         |
"""
    smi = f"if [ $# = 1 ]; then cat <<'END'\n{table}END\nelse echo \"$*\"; fi"
    answers = q.query_server([0, 3], tools(smi=smi))
    assert answers.chips[0]["spod-info"].text == "info -t spod-info -i 5 -c 1\n"
    assert answers.chips[3]["spod-info"].text == "info -t spod-info -i 1 -c 1\n"


def test_pings_of_a_chip_go_on_after_one_that_hangs(tools) -> None:
    ping = 'case "$6" in 10.0.0.1) sleep 300;; *) echo This pkt ping success;; esac'
    answers = q.ping_chips(
        {0: ["10.0.0.1", "10.0.0.2"], 5: ["10.0.0.3"]}, "hccs_ping", tools(ping, timeout=4)
    )
    assert answers[0]["10.0.0.1"].problem == "timeout"
    assert "success" in answers[0]["10.0.0.2"].text
    assert "success" in answers[5]["10.0.0.3"].text
    assert q.ping_chips({}, "ping", tools()) == {}


COUNTED = "3 packets transmitted, {received} received"


@pytest.mark.parametrize(
    ("received", "asked"),
    # The first ping loses a packet, every one does, none arrives, all arrive.
    [((2, 3), 2), ((2, 2), 2), ((0, 3), 1), ((3, 0), 1)],
)
def test_a_ping_that_loses_a_part_is_made_again(tools, tmp_path, received, asked) -> None:
    count = tmp_path / "count"
    first, then = (COUNTED.format(received=number) for number in received)
    body = (
        f'echo x >> {count}; echo "recv time out seq=0"\n'
        f'[ "$(wc -l < {count})" = 1 ] && echo "{first}" || echo "{then}"'
    )
    answer = q.ping_chips({0: ["10.0.0.1"]}, "ping", tools(body))[0]["10.0.0.1"]
    assert len(count.read_text().split()) == asked
    assert (first, then)[asked - 1] in answer.text


def patiently(command: Command) -> Answer:
    """The answer to a command that is asked again without a pause."""
    return run_chains({0: lambda runner: q.patiently(runner, command, pause=0)})[0]


BUSY = "hccn_tool is busy, please try again."


@pytest.mark.parametrize(
    ("busy", "asked", "text"),
    [(0, 1, "link status: UP\n"), (2, 3, "link status: UP\n"), (9, q.ATTEMPTS, f"{BUSY}\n")],
)
def test_a_busy_tool_is_asked_again(tools, tmp_path, busy, asked, text) -> None:
    count = tmp_path / "count"
    body = (
        f'echo x >> {count}; [ "$(wc -l < {count})" -gt {busy} ] && echo "link status: UP" || echo "{BUSY}"'
    )
    answer = patiently(tools(body).hccn(0, "link"))
    assert answer.text == text
    assert len(count.read_text().split()) == asked


def test_a_tool_that_hangs_or_fails_is_not_asked_again(tools, tmp_path) -> None:
    count = tmp_path / "count"
    body = f'echo x >> {count}; echo "Command execute failed!"; exit 1'
    answer = patiently(tools(body).hccn(0, "link"))
    assert (answer.status, len(count.read_text().split())) == (1, 1)
