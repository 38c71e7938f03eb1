# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Runs chains of commands: sequentially within a chain, all chains concurrently, each command with a timeout.

One thread with one poll handles all commands, since they wait nearly all of the time. Every command leads a
process group of its own. At its timeout the whole group is killed, because a tool that is stuck in the driver
ignores SIGTERM and its children may hold the pipe open.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generator, TypeVar

# Maximum length of an answer in bytes; the rest is dropped.
ANSWER_LIMIT = 65536
# Seconds to wait for killed processes. One that sleeps uninterruptibly in the driver stays until the driver
# releases it.
_KILL_TIMEOUT = 1.0
# Seconds between checks of a command that has closed its output but not ended: the first, and the longest.
_FIRST_INTERVAL, _LAST_INTERVAL = 0.001, 0.05


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


@dataclass(frozen=True)
class ResultOf:
    """A chain yields this to get the result of another chain."""

    chain: Hashable


# A generator that yields commands and is sent their answers; its return value is the chain's result.
Chain = Generator["Command | ResultOf", Any, Any]

Name = TypeVar("Name", bound=Hashable)


@dataclass(eq=False)
class _Running:
    chain: Hashable
    command: Command
    pid: int
    pipe: int | None
    begin: float
    output: bytearray = field(default_factory=bytearray)
    interval: float = _FIRST_INTERVAL

    @property
    def deadline(self) -> float:
        return self.begin + self.command.timeout


def once(command: Command) -> Chain:
    """Return a chain of a single command, whose result is the answer."""
    return (yield command)


def run_chains(chains: Mapping[Name, Chain]) -> dict[Name, Any]:
    """Run all chains to their ends; return their results by name."""
    with _Runner(chains) as runner:
        found = runner.results()
    return {name: found[name] for name in chains}


class _Runner:
    """The state of all chains: running commands, chains that can continue, chains that wait for others."""

    def __init__(self, chains: Mapping[Any, Chain]) -> None:
        self.chains = chains
        self.found: dict[Hashable, Any] = {}
        # Chains that can continue, with the value to send; and chains that wait for the result of another.
        self.ready: deque[tuple[Hashable, Any]] = deque((name, None) for name in chains)
        self.parked: dict[Hashable, list[Hashable]] = {}
        self.running: set[_Running] = set()
        self.killed: list[int] = []
        self.pipes = selectors.DefaultSelector()
        self.environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
        self.nothing = os.open(os.devnull, os.O_RDONLY)

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in list(self.running):
            self._kill(process)
        deadline = time.monotonic() + _KILL_TIMEOUT
        while self.killed and time.monotonic() < deadline:
            self.killed = [pid for pid in self.killed if _ended(pid) is None]
            if self.killed:
                time.sleep(_FIRST_INTERVAL)
        self.pipes.close()
        os.close(self.nothing)

    def results(self) -> dict[Hashable, Any]:
        """Run all chains to their ends and return their results."""
        while self.ready or self.running:
            while self.ready:
                self._go_on(*self.ready.popleft())
            if self.running:
                self._wait()
        return self.found

    def _go_on(self, name: Hashable, value: object) -> None:
        try:
            request = self.chains[name].send(value)
        except StopIteration as end:
            self.found[name] = end.value
            self.ready.extend((other, end.value) for other in self.parked.pop(name, ()))
            return
        if isinstance(request, Command):
            self._start(name, request)
        elif request.chain in self.found:
            self.ready.append((name, self.found[request.chain]))
        else:
            self.parked.setdefault(request.chain, []).append(name)

    def _start(self, name: Hashable, command: Command) -> None:
        begin = time.monotonic()
        reading, writing = os.pipe()
        try:
            pid = _spawn(command.words, self.environment, self.nothing, writing)
        except OSError as error:
            os.close(reading)
            # Otherwise permission is denied, or the kernel cannot execute the file.
            problem = "missing" if isinstance(error, FileNotFoundError) else "not_executable"
            self.ready.append((name, Answer(command.tool, command.query, str(error), problem=problem)))
            return
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        process = _Running(name, command, pid, reading, begin)
        self.running.add(process)
        self.pipes.register(reading, selectors.EVENT_READ, process)

    def _wait(self) -> None:
        """Wait for the next event: output, the end of a command, or a timeout."""
        now = time.monotonic()
        until = min(
            process.deadline if process.pipe is not None else now + process.interval
            for process in self.running
        )
        for key, _events in self.pipes.select(max(0.0, until - now)):
            self._read(key.data)
        now = time.monotonic()
        for process in list(self.running):
            status = _ended(process.pid) if process.pipe is None else None
            if status is not None:
                text = process.output.decode("utf-8", "replace")
                self._answer(process, text=text, status=status)
            elif now >= process.deadline:
                self._kill(process)
                self._answer(process, problem="timeout")
            elif process.pipe is None:
                process.interval = min(2 * process.interval, _LAST_INTERVAL)

    def _read(self, process: _Running) -> None:
        if process.pipe is None:
            return
        try:
            chunk = os.read(process.pipe, ANSWER_LIMIT)
        except BlockingIOError:
            return
        process.output += chunk[: ANSWER_LIMIT - len(process.output)]
        if not chunk:
            self._close(process)

    def _close(self, process: _Running) -> None:
        if process.pipe is not None:
            self.pipes.unregister(process.pipe)
            os.close(process.pipe)
            process.pipe = None

    def _kill(self, process: _Running) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # A process that has left the group may keep the pipe open, so it is not read to its end.
        self._close(process)
        self.killed.append(process.pid)
        self.running.discard(process)

    def _answer(
        self, process: _Running, text: str = "", status: int | None = None, problem: str | None = None
    ) -> None:
        self.running.discard(process)
        seconds = time.monotonic() - process.begin
        made = Answer(process.command.tool, process.command.query, text, status, problem, seconds)
        self.ready.append((process.chain, made))


def _spawn(words: Sequence[str], environment: Mapping[str, str], reading: int, writing: int) -> int:
    """Start a command as the leader of a process group.

    words: program and arguments.
    environment: its environment.
    reading, writing: descriptors for its input, and for both of its outputs.

    Returns the process ID. Raises OSError.
    """
    if not hasattr(os, "posix_spawnp"):
        return _spawn_before_python_3_8(words, environment, reading, writing)
    return os.posix_spawnp(  # novm: asked for above
        words[0],
        list(words),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reading, 0),  # novm
            (os.POSIX_SPAWN_DUP2, writing, 1),  # novm
            (os.POSIX_SPAWN_DUP2, writing, 2),  # novm
        ],
        setpgroup=0,
        # Python ignores these signals, and its children would inherit that.
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )


def _spawn_before_python_3_8(
    words: Sequence[str], environment: Mapping[str, str], reading: int, writing: int
) -> int:
    process = subprocess.Popen(
        words, stdin=reading, stdout=writing, stderr=writing, env=environment, start_new_session=True
    )
    # This module waits for the process; the object must not do so again when it is deleted.
    process.returncode = 0
    return process.pid


def _ended(pid: int) -> int | None:
    """Return the exit status of an ended child, negative for a signal; None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    if not found:
        return None
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
