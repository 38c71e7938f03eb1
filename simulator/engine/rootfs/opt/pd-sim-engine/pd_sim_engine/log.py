"""Lines as vLLM 0.13.0 prints them: its logger's format, the prefix of the process, tqdm's bars, Python's
tracebacks."""

from __future__ import annotations

import os
import sys
import time

CYAN, RESET = "\033[1;36m", "\033[0;0m"


Frame = tuple[str, int, str]
"""Where the real engine raises: file, line, function."""


class Log:
    """One process of the engine (API server, engine core, a worker): same stream, its own prefix."""

    def __init__(self, process: str | None = None, pid: int | None = None) -> None:
        self.process = process
        self.pid = os.getpid() if pid is None else pid

    def prefix(self) -> str:
        if self.process is None:
            return ""
        plain = f"({self.process} pid={self.pid}) "
        if os.environ.get("NO_COLOR"):
            return plain
        return f"{CYAN}({self.process} pid={self.pid}){RESET} "

    def raw(self, text: str) -> None:
        """Lines without the logger's head: uvicorn's, tqdm's, tracebacks."""
        prefix = self.prefix()
        for line in text.rstrip("\n").split("\n"):
            sys.stderr.write(f"{prefix}{line}\n")
        sys.stderr.flush()

    def _log(self, level: str, where: str, message: str) -> None:
        head = f"{level} {time.strftime('%m-%d %H:%M:%S')} [{where}] "
        self.raw("\n".join(head + line for line in message.split("\n")))

    def info(self, where: str, message: str) -> None:
        self._log("INFO", where, message)

    def warning(self, where: str, message: str) -> None:
        self._log("WARNING", where, message)

    def error(self, where: str, message: str) -> None:
        self._log("ERROR", where, message)

    def progress(self, description: str, done: int, total: int, elapsed: float) -> None:
        """The bar of vLLM's weight loader: one line a step, no carriage return."""
        rate = done / elapsed if elapsed > 0 and done else 0.0
        left = (total - done) / rate if rate else 0.0
        speed = "?it/s" if not rate else f"{rate:.2f}it/s" if rate >= 1 else f"{1 / rate:.2f}s/it"
        remaining = clock(left) if rate else "?"
        percent = 100 * done // total if total else 100
        self.raw(
            f"{description}: {percent:3d}% Completed | {done}/{total} [{clock(elapsed)}<{remaining}, {speed}]"
        )

    def bar(self, description: str, done: int, total: int, elapsed: float) -> None:
        """tqdm's own bar, redrawn on one line as on a terminal or in `docker logs`."""
        cells = 10 * done // total
        percent = 100 * done // total
        rate = done / elapsed if elapsed > 0 and done else 0.0
        left = (total - done) / rate if rate else 0.0
        tail = f"[{clock(elapsed)}<{clock(left) if rate else '?'}, {f'{rate:.2f}' if rate else '?'}it/s]"
        start = self.prefix() if done == 0 else ""
        end = "\n" if done == total else ""
        bar = "█" * cells + " " * (10 - cells)
        sys.stderr.write(f"{start}\r{description}: {percent:3d}%|{bar}| {done}/{total} {tail}{end}")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60:02d}:{whole % 60:02d}"


class StartupFailure(Exception):
    """The engine cannot start. `kind` is the exception that the real engine raises, `frame` where."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        frame: Frame = ("vllm", 0, "main"),
        stage: str = "config",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.frame = frame
        self.stage = stage

    def traceback(self) -> str:
        path, line, function = self.frame
        end = f"{self.kind}: {self.message}" if self.message else self.kind
        return f'Traceback (most recent call last):\n  File "{path}", line {line}, in {function}\n{end}'
