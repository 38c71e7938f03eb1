"""What the commands of this repository show: one line for each step, a sign of life while it runs, one error.

Used by the scripts beside it and by the simulator. The standard library is enough: `.venv` may not exist yet.
"""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# Seconds between two signs of life of a long step: on a terminal, and in a log file.
TERMINAL_PERIOD = 0.5
LOG_PERIOD = 15.0


class UserError(Exception):
    """Something the user can act upon; its text is the whole message."""


def colour(code: str, text: str) -> str:
    """The text in a terminal colour, where there is a terminal that shows it."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


# Steps in progress, in the order of their beginning: on a terminal, one line shows all of them.
_steps: list[Step] = []
_printing = threading.RLock()


def say(text: str = "") -> None:
    """Print a line at once; a line that shows the steps in progress makes way for it."""
    with _printing:
        if _steps and sys.stdout.isatty():
            print("\r\033[K", end="")
        print(text, flush=True)


class Step:
    """A step in progress. `note` is what it does right now, `result` what its final line adds.

    Steps may be in progress side by side.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.result = ""
        self.begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.begun

    def _now(self) -> str:
        """What is in progress, for how long, and its note."""
        return f"{self.title} ({self.seconds():.0f} s)" + (f"  {self.note}" if self.note else "")

    def _live(self) -> None:
        terminal = sys.stdout.isatty()
        while not self._over.wait(TERMINAL_PERIOD if terminal else LOG_PERIOD):
            if not terminal:
                say(f"  … {self._now()}"[:160])
                continue
            with _printing:
                # The first step speaks for all.
                if _steps[:1] == [self]:
                    width = max(20, os.get_terminal_size().columns - 1)
                    line = "  … " + " · ".join(one._now()[: width // len(_steps)] for one in _steps)
                    print(f"\r\033[K{line[:width]}", end="", flush=True)

    def start(self) -> None:
        """Begin to show signs of life."""
        with _printing:
            _steps.append(self)
        self._thread.start()

    def end(self, *, good: bool) -> None:
        """Print the step's final line."""
        self._over.set()
        self._thread.join()
        sign = colour("32", "✓") if good else colour("31", "✗")
        result = f": {self.result}" if self.result else ""
        took = colour("2", f"({self.seconds():.1f} s)")
        say(f"  {sign} {self.title}{result} {took}")
        with _printing:
            _steps.remove(self)


@contextlib.contextmanager
def step(title: str) -> Iterator[Step]:
    """A step of the work: `✓ title: result (seconds)` when it is over."""
    current = Step(title)
    current.start()
    try:
        yield current
    except BaseException:
        current.end(good=False)
        raise
    current.end(good=True)


def run_shown(
    command: Sequence[str], current: Step, *, log: Path | None = None, cwd: Path | None = None
) -> None:
    """Run a long command; its last line of output shows as the step's note.

    command: the program and its arguments, run in `cwd`.
    current: the step that shows it.
    log: all output is appended to this file as well.
    Raises UserError with the last lines of output if the command fails.
    """
    tail: collections.deque[str] = collections.deque(maxlen=25)
    with contextlib.ExitStack() as stack:
        copy = stack.enter_context(log.open("a")) if log else None
        process = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=cwd,
            )
        )
        assert process.stdout is not None
        for line in process.stdout:
            if copy:
                copy.write(line)
            text = line.strip()
            if text:
                tail.append(text)
                current.note = text
    current.note = ""
    if process.returncode != 0:
        lines = "\n    ".join(tail)
        raise UserError(f"{current.title} failed ({command[0]}, exit {process.returncode}):\n    {lines}")
