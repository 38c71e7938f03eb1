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
_PATIENCE = 1.0
# Seconds between checks of a command that has closed its output but not ended: the first, and the longest.
_FIRST_LOOK, _LAST_LOOK = 0.001, 0.05


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
    look: float = _FIRST_LOOK

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
        for one in list(self.running):
            self._kill(one)
        patience = time.monotonic() + _PATIENCE
        while self.killed and time.monotonic() < patience:
            self.killed = [pid for pid in self.killed if _ended(pid) is None]
            if self.killed:
                time.sleep(_FIRST_LOOK)
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
            wanted = self.chains[name].send(value)
        except StopIteration as end:
            self.found[name] = end.value
            self.ready.extend((other, end.value) for other in self.parked.pop(name, ()))
            return
        if isinstance(wanted, Command):
            self._start(name, wanted)
        elif wanted.chain in self.found:
            self.ready.append((name, self.found[wanted.chain]))
        else:
            self.parked.setdefault(wanted.chain, []).append(name)

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
        one = _Running(name, command, pid, reading, begin)
        self.running.add(one)
        self.pipes.register(reading, selectors.EVENT_READ, one)

    def _wait(self) -> None:
        """Wait for the next event: output, the end of a command, or a timeout."""
        now = time.monotonic()
        until = min(one.deadline if one.pipe is not None else now + one.look for one in self.running)
        for key, _events in self.pipes.select(max(0.0, until - now)):
            self._read(key.data)
        now = time.monotonic()
        for one in list(self.running):
            status = _ended(one.pid) if one.pipe is None else None
            if status is not None:
                text = one.output.decode("utf-8", "replace")
                self._answer(one, text=text, status=status)
            elif now >= one.deadline:
                self._kill(one)
                self._answer(one, problem="timeout")
            elif one.pipe is None:
                one.look = min(2 * one.look, _LAST_LOOK)

    def _read(self, one: _Running) -> None:
        if one.pipe is None:
            return
        try:
            part = os.read(one.pipe, ANSWER_LIMIT)
        except BlockingIOError:
            return
        one.output += part[: ANSWER_LIMIT - len(one.output)]
        if not part:
            self._close(one)

    def _close(self, one: _Running) -> None:
        if one.pipe is not None:
            self.pipes.unregister(one.pipe)
            os.close(one.pipe)
            one.pipe = None

    def _kill(self, one: _Running) -> None:
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        # A process that has left the group may keep the pipe open, so it is not read to its end.
        self._close(one)
        self.killed.append(one.pid)
        self.running.discard(one)

    def _answer(
        self, one: _Running, text: str = "", status: int | None = None, problem: str | None = None
    ) -> None:
        self.running.discard(one)
        seconds = time.monotonic() - one.begin
        made = Answer(one.command.tool, one.command.query, text, status, problem, seconds)
        self.ready.append((one.chain, made))


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
