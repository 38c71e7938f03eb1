# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Runs chains of commands: sequentially within a chain, all chains concurrently, each command with a timeout.

Every chain has a thread of its own, and every command leads a process group of its own. At its timeout the
whole group is killed, because a tool that is stuck in the driver ignores SIGTERM and its children may hold
the pipe open.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Callable, TypeVar, cast

# Maximum length of an answer in bytes; the rest is dropped.
ANSWER_LIMIT = 65536
# Seconds to wait for killed processes. One that sleeps uninterruptibly in the driver stays until the driver
# releases it.
_KILL_TIMEOUT = 1.0

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """The result of one command. ``problem``: None, missing, not_executable, timeout or not_asked."""

    tool: str
    query: str
    text: str = ""
    status: int | None = None
    problem: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    """A command with its timeout in seconds; stdout and stderr together are the answer."""

    tool: str
    query: str
    words: Sequence[str]
    timeout: float


def run_commands(commands: Mapping[Name, Command]) -> dict[Name, Answer]:
    """Run all commands at once; return their answers by name."""
    return run_chains({name: partial(Runner.run, command=command) for name, command in commands.items()})


def run_chains(chains: Mapping[Name, Callable[[Runner], Result]]) -> dict[Name, Result]:
    """Run all chains to their ends; return their results by name.

    ``chains``: functions that run commands with the runner that they are given. Raises the error of the first
    chain that fails; the commands of the others are killed.
    """
    results: dict[Name, Future[Result]] = {name: Future() for name in chains}
    runner = Runner(results)
    try:
        for name, chain in chains.items():
            # A daemon, so that this process can end although a thread still reads.
            threading.Thread(target=_follow, args=(chain, runner, results[name]), daemon=True).start()
        ended = wait(results.values(), return_when=FIRST_EXCEPTION).done
        return {name: result.result() for name, result in results.items() if result in ended}
    finally:
        runner.stop()


def _follow(chain: Callable[[Runner], Result], runner: Runner, result: Future[Result]) -> None:
    try:
        result.set_result(chain(runner))
    except BaseException as error:
        result.set_exception(error)


class Runner:
    """Runs the commands of chains. ``results``: what the chains will have returned, by name."""

    def __init__(self, results: Mapping[Any, Future[Any]]) -> None:
        self._results = results
        self._environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
        # Running processes, and killed ones that have not ended.
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def result_of(self, chain: Hashable) -> Any:
        """Wait for the chain of that name; return its result or raise its error."""
        return self._results[chain].result()

    def run(self, command: Command) -> Answer:
        """Run a command and return its answer; raise CancelledError after stop()."""
        if self._stopped:
            raise CancelledError
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                command.words,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            # Otherwise permission is denied, or the kernel cannot execute the file.
            problem = "missing" if isinstance(error, FileNotFoundError) else "not_executable"
            return Answer(command.tool, command.query, str(error), problem=problem)
        self._processes.add(process)
        if self._stopped:
            # stop() may not have seen it.
            _kill(process)
        deadline = begin + command.timeout
        try:
            text = _output(process, deadline).decode("utf-8", "replace")
            status = process.wait(_until(deadline))
        except subprocess.TimeoutExpired:
            _kill(process)
            seconds = time.monotonic() - begin
            return Answer(command.tool, command.query, problem="timeout", seconds=seconds)
        self._processes.discard(process)
        return Answer(command.tool, command.query, text, status, seconds=time.monotonic() - begin)

    def stop(self) -> None:
        """Start no more commands, kill those that run, and wait for their ends, though not for long."""
        self._stopped = True
        deadline = time.monotonic() + _KILL_TIMEOUT
        for process in list(self._processes):
            _kill(process)
        for process in list(self._processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_until(deadline))


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return what a process writes until its output is closed; raise TimeoutExpired.

    A process that has left the group may keep the pipe open, so nothing is read after the deadline.
    """
    output, poll = bytearray(), select.poll()
    with cast("IO[bytes]", process.stdout) as pipe:
        poll.register(pipe, select.POLLIN)
        while poll.poll(1000 * _until(deadline)):
            chunk = pipe.read(ANSWER_LIMIT)
            if not chunk:
                return bytes(output)
            output += chunk[: ANSWER_LIMIT - len(output)]
            if not _until(deadline):
                break
    raise subprocess.TimeoutExpired(process.args, 0)


def _until(deadline: float) -> float:
    """Return the seconds that are left, 0 when there are none."""
    return max(0.0, deadline - time.monotonic())


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The number of one whose end was seen may belong to another.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
