# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The rsync client of a server: it fetches from the daemon of another one, and notices when nothing comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .weights_files import PARTIAL, bytes_below
from .weights_process import GRACE, die_with_parent
from .weights_rsync import NO_SPACE, USER, Job, bracketed

# Seconds between two checks of a running rsync.
SAMPLE = 1.0
# Seconds without data that are always granted to a source.
SHORT = 5.0
# Seconds that connecting to a source may take.
CONNECT_TIMEOUT = 10


class SourceLost(Exception):
    """A source does not answer, or reports that it cannot continue; if ``final``, waiting is of no use."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Client:
    """Runs rsync, which fetches only files that are complete at the source."""

    def __init__(self, job: Job, folder: Path, on_sample: Callable[[], None]) -> None:
        """Prepare the client.

        job: the server's part of the copy.
        folder: of the process, with the password; the log and what sources report go there.
        on_sample: called about every second while rsync runs; what it raises ends rsync.
        """
        self._job = job
        self._folder = folder
        self._on_sample = on_sample
        self._stall_timeout = max(SHORT, job.stall_timeout)

    def fetch_report(self, address: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Fetch what the source at an address reports; return rsync's output, and the folder with the report.

        Raises SourceLost if nothing comes.
        """
        target = self._folder / "source"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        return self._run("control", address, target), target

    def fetch_weights(self, address: str) -> subprocess.CompletedProcess[str]:
        """Fetch the files that are complete at the source at an address; return rsync's output.

        Raises SourceLost if nothing comes.
        """
        limit = f"--bwlimit={max(1, round(self._job.bandwidth * 1e6 / 1024))}"
        return self._run("weights", address, self._job.staging, [limit] if self._job.bandwidth else [])

    def _run(
        self, module: str, address: str, target: Path, options: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["rsync", "--recursive", "--copy-links", "--times", "--perms", "--no-motd", "--stats"]
        command += [f"--partial-dir={PARTIAL}", f"--contimeout={CONNECT_TIMEOUT}"]
        command += [f"--timeout={self._stall_timeout:.0f}", f"--password-file={self._folder}/password"]
        command += options or []
        source = f"rsync://{USER}@{bracketed(address)}:{self._job.port}/{module}/"
        log = self._folder / "rsync.log"
        output = log.open("w+")
        with output, subprocess.Popen(
            [*command, source, f"{target}/"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            preexec_fn=die_with_parent,
        ) as process:
            try:
                self._watch(process, log)
            except BaseException:
                end(process)
                raise
            output.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, output.read())

    def _watch(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until rsync has ended. Its receiver has no timeout of its own: a stall is detected here.

        On a full disk rsync reports that at once, but reads all that the source still sends, for nothing.
        """
        grown_at, size = time.monotonic(), -1
        while True:
            try:
                process.wait(SAMPLE)
                return
            except subprocess.TimeoutExpired:
                self._on_sample()
            if NO_SPACE in log.read_text(errors="replace"):
                end(process)
                return
            now = bytes_below(self._job.staging)
            if now != size:
                grown_at, size = time.monotonic(), now
            elif time.monotonic() - grown_at > self._stall_timeout:
                raise SourceLost(f"nothing has come for {self._stall_timeout:.0f} s", final=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End an rsync; it keeps what has arrived of a file."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
