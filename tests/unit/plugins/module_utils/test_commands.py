# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Running commands that answer, hang, are missing, or refuse: small scripts of the shell."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _commands
from ansible_collections.ascend.pd_rollout.plugins.module_utils._commands import (
    ANSWER_LIMIT,
    Answer,
    Command,
    Runner,
    run_chains,
    run_commands,
)


def shell(body: str, timeout: float = 60) -> Command:
    return Command("sh", "script", ["sh", "-c", body], timeout)


def ask(command: Command) -> Answer:
    return run_commands({0: command})[0]


def becomes(true: Callable[[], bool]) -> bool:
    """Whether it becomes true in the time that a busy machine may need."""
    for _attempt in range(1200):
        if true():
            return True
        time.sleep(0.05)
    return False


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_killed(pid_file: Path) -> None:
    pid = int(pid_file.read_text())
    if not becomes(lambda: has_ended(pid)):
        os.kill(pid, signal.SIGKILL)
        pytest.fail(f"process {pid} is still there")


def test_an_answer() -> None:
    command = Command("tool", "link", ["sh", "-c", 'echo "$*"; echo oops >&2; exit 3', "sh", "-i", "7"], 60)
    answer = ask(command)
    assert (answer.tool, answer.query, answer.problem, answer.status) == ("tool", "link", None, 3)
    assert answer.text == "-i 7\noops\n"


def test_the_locale_is_plain(monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert ask(shell('echo "$LC_ALL $LANGUAGE"')).text == "C C\n"


def test_nothing_is_to_be_read() -> None:
    assert ask(shell("readlink /proc/self/fd/0; cat; echo end")).text == "/dev/null\nend\n"


def test_a_command_leads_its_process_group() -> None:
    assert ask(shell('read -r pid _ _ _ group _ < /proc/$$/stat; [ "$pid" = "$group" ]')).status == 0


def test_bytes_that_are_no_text() -> None:
    assert "link status: UP" in ask(shell(r"printf '\377\376link status: UP\n'")).text


def test_a_missing_tool(tmp_path) -> None:
    answer = ask(Command("tool", "link", [str(tmp_path / "nothing")], 60))
    assert (answer.problem, answer.status) == ("missing", None)


@pytest.mark.parametrize("content", ["\x7fELF of another architecture", ""], ids=["garbage", "empty"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_tool_that_cannot_be_executed(tmp_path, content, mode) -> None:
    path = tmp_path / "tool"
    path.write_text(content)
    path.chmod(mode)
    assert ask(Command("tool", "link", [str(path)], 60)).problem == "not_executable"


def test_a_hanging_tool_is_killed_with_its_children(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    begin = time.monotonic()
    answer = ask(shell(f"trap '' TERM INT HUP; sleep 300 & echo $! > {pid_file}; wait", timeout=2))
    assert (answer.text, answer.status, answer.problem) == ("", None, "timeout")
    assert time.monotonic() - begin < 60
    assert_killed(pid_file)


def test_a_child_that_keeps_the_pipe_open_is_killed(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    answer = ask(shell(f"sleep 300 & echo $! > {pid_file}; echo done", timeout=2))
    assert answer.problem == "timeout"
    assert_killed(pid_file)


def test_a_child_that_left_the_session_does_not_hold_the_run(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    begin = time.monotonic()
    answer = ask(shell(f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 300' & sleep 300", timeout=2))
    assert answer.problem == "timeout"
    assert time.monotonic() - begin < 60
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_a_process_that_does_not_end_when_killed_does_not_hold_the_run(tmp_path, monkeypatch) -> None:
    # As one that sleeps in the driver.
    monkeypatch.setattr(_commands.os, "killpg", lambda _group, _signal: None)
    pid_files = [tmp_path / "first", tmp_path / "second"]

    def chain(runner: Runner) -> list[str | None]:
        return [
            runner.run(shell(f"echo $$ > {file}; exec sleep 300", timeout=2)).problem for file in pid_files
        ]

    begin = time.monotonic()
    assert run_chains({0: chain}) == {0: ["timeout", "timeout"]}
    assert time.monotonic() - begin < 60
    for file in pid_files:
        assert not has_ended(int(file.read_text()))
        os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_tool_that_closes_its_output_and_goes_on_is_waited_for() -> None:
    answer = ask(shell("echo done; exec >&- 2>&-; sleep 0.3; exit 4"))
    assert (answer.text, answer.status) == ("done\n", 4)
    assert answer.seconds >= 0.3


def test_a_tool_that_closes_its_output_and_hangs_is_killed() -> None:
    assert ask(shell("exec >&- 2>&-; sleep 300", timeout=0.3)).problem == "timeout"


def test_a_tool_that_is_killed_shows_the_signal() -> None:
    assert ask(shell("kill -9 $$")).status == -9


def test_a_pipe_that_nobody_reads_ends_a_tool() -> None:
    # As in a shell; Python itself ignores the signal.
    assert ask(shell("yes | head -n 1")).text == "y\n"


def test_long_answers_are_cut() -> None:
    answer = ask(shell("head -c 8000000 /dev/zero | tr '\\0' x; echo end"))
    assert (answer.text, answer.status) == ("x" * ANSWER_LIMIT, 0)


def test_a_tool_that_never_stops_printing_is_killed() -> None:
    assert ask(shell("exec yes", timeout=0.5)).problem == "timeout"


def test_chains_run_side_by_side(tmp_path) -> None:
    # Each ends only when all have begun.
    body = f"touch {tmp_path}/$0; while [ $(ls {tmp_path} | wc -l) -lt 16 ]; do sleep 0.05; done"
    answers = run_commands(
        {chip: Command("sh", "meet", ["sh", "-c", body, str(chip)], 120) for chip in range(16)}
    )
    assert [answer.status for answer in answers.values()] == [0] * 16
    assert list(answers) == list(range(16))


def test_a_chain_waits_for_the_result_of_another() -> None:
    def first(runner: Runner) -> str:
        return runner.run(shell("sleep 0.1; echo first")).text

    def second(runner: Runner) -> tuple[str, str]:
        early = runner.result_of("first")
        return early, runner.result_of("first")

    found = run_chains({"second": second, "first": first})
    assert found == {"second": ("first\n", "first\n"), "first": "first\n"}
    assert list(found) == ["second", "first"]


def test_no_chains() -> None:
    assert run_chains({}) == {}


def test_an_error_of_a_chain_is_raised_and_ends_the_others(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    late = []
    before = threading.active_count()

    def fails(runner: Runner) -> None:
        assert becomes(lambda: pid_file.exists() and bool(pid_file.read_text()))
        raise ValueError("of the chain")

    def hangs(runner: Runner) -> None:
        runner.run(shell(f"trap '' TERM; echo $$ > {pid_file}; while :; do sleep 300; done", timeout=600))
        late.append(runner.run(shell("echo more")))

    begin = time.monotonic()
    with pytest.raises(ValueError, match="of the chain"):
        run_chains({"waits": lambda runner: runner.result_of("fails"), "hangs": hangs, "fails": fails})
    assert time.monotonic() - begin < 300
    assert_killed(pid_file)
    assert becomes(lambda: threading.active_count() == before)
    assert late == []


def test_nothing_is_left_behind(tmp_path) -> None:
    def counts() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = counts()
    answers = run_commands(
        {number: shell(f"echo $$ > {tmp_path}/{number}; exec sleep 300", timeout=2) for number in range(4)}
    )
    assert {answer.problem for answer in answers.values()} == {"timeout"}
    assert becomes(lambda: counts() == before)
    # Nor as zombies.
    for file in tmp_path.iterdir():
        assert not Path("/proc", file.read_text().strip()).exists()
