# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""One server's part of the fan-out: take the weights from the server before, give them to the one after.

Every server runs an rsync daemon for the time of the rollout, and takes from the one before it in the
chain whatever files are complete there, again and again until that one has all. A file goes on to the next
server while the following one still comes in, so that a chain costs one copy and a few files. Nothing here
imports Ansible.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._files.contents import read_json, write_json
from .._findings import Finding
from . import status as phases
from .catalogue import TRANSFER_CHECKS, TransferError
from .status import Rate, WeightsStatus
from .weights_files import (
    PARTIAL,
    arrived,
    bytes_below,
    keep_beginnings,
    manifest_of,
    staging,
)
from .weights_install import put_in_place, verify
from .weights_process import GRACE, die_with_parent, has_children
from .weights_rsync import (
    NO_SPACE,
    PARTIAL_TRANSFER,
    READ_FAILED,
    RECEIVED,
    REFUSED,
    TRANSFERRED,
    USER,
    VANISHED,
    Job,
    bracketed,
    daemon_config,
    last_line,
)

# Seconds: between two looks at what has come; that a rate is averaged over; between two looks at a source.
SAMPLE = 1.0

WINDOW = 10.0

PAUSE = 0.3

# Seconds that a source may always take for an answer.
SHORT = 5.0


class SourceLost(Exception):
    """A source does not answer, or says that it cannot go on; if ``final``, there is no use in waiting."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Stopped(BaseException):
    """The controller wants this to end."""


class Copy:
    """The work of the process on one server; `run` ends when the controller or idleness ends it."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.folder = folder
        self.path = Path(job.path)
        self.staging = staging(self.path)
        self.manifest: dict[str, dict[str, Any]] = {}
        self.daemon: subprocess.Popen[bytes] | None = None
        self.status = WeightsStatus(received=0)
        self._rate = Rate(WINDOW)
        self._sign_of_life = time.time()
        self._served = 0.0

    # --- what others see

    def tell(self, **changes: Any) -> None:
        """Write the state for the controller and for the next server."""
        before, self.status = self.status, replace(self.status, **changes)
        status = self.status.to_dict()
        if self.status.phase != before.phase or changes.get("finding"):
            print(time.strftime("%H:%M:%S"), {name: status[name] for name in changes}, flush=True)
        write_json(self.folder / "status.json", status)
        write_json(self.folder / "public" / "status.json", status)

    def measure(self) -> None:
        """How much has come, and how fast it comes."""
        done = arrived(self.staging)
        self._sign_of_life = time.time()
        self.tell(done=done, rate=self._rate.at(done))

    # --- serving

    def serve(self, weights: Path) -> None:
        """Let the servers after this one take what stands in ``weights``."""
        config = self.folder / "rsyncd.conf"
        draft = self.folder / "rsyncd.conf.new"
        draft.write_text(daemon_config(self.job, self.folder, weights))
        draft.replace(config)
        if self.daemon is None:
            self.daemon = subprocess.Popen(
                ["rsync", "--daemon", "--no-detach", f"--config={config}"],
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )

    def daemon_lives(self) -> None:
        if self.daemon is not None and self.daemon.poll() is not None:
            log = self.folder / "rsyncd.log"
            last = log.read_text().splitlines()[-1:] if log.exists() else []
            raise TransferError(
                TRANSFER_CHECKS.finding(
                    "weights-serving-failed",
                    path=self.job.path,
                    seen=f"rsync's daemon on {self.job.address}:{self.job.port} has ended: {' '.join(last)}",
                )
            )

    # --- taking

    def rsync(self, module: str, target: Path, address: str) -> subprocess.CompletedProcess[str]:
        """Take what a module of a source's daemon holds; only files that are complete there."""
        command = ["rsync", "--recursive", "--copy-links", "--times", "--perms", "--no-motd", "--stats"]
        command += [
            f"--partial-dir={PARTIAL}",
            "--contimeout=10",
            f"--timeout={max(SHORT, self.job.patience):.0f}",
        ]
        command += [f"--password-file={self.folder}/password"]
        if self.job.bandwidth and module == "weights":
            command.append(f"--bwlimit={max(1, round(self.job.bandwidth * 1e6 / 1024))}")
        source = f"rsync://{USER}@{bracketed(address)}:{self.job.port}/{module}/"
        log = self.folder / "rsync.log"
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
                self.attend(process, log)
            except BaseException:
                end(process)
                raise
            output.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, output.read())

    def attend(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Stay with a running rsync. Its receiver has no time-out of its own: silence is seen here.

        On a full disk it says so at once, and goes on to read all that the source still sends, for nothing.
        """
        patience = max(SHORT, self.job.patience)
        grown, size = time.monotonic(), -1
        while True:
            try:
                process.wait(SAMPLE)
                return
            except subprocess.TimeoutExpired:
                self.measure()
                self.daemon_lives()
            if NO_SPACE in log.read_text(errors="replace"):
                end(process)
                return
            now = bytes_below(self.staging)
            if now != size:
                grown, size = time.monotonic(), now
            elif time.monotonic() - grown > patience:
                raise SourceLost(f"nothing has come for {patience:.0f} s", final=True)

    def source_state(self, address: str) -> WeightsStatus:
        """What a source says of itself, and its manifest."""
        target = self.folder / "source"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        done = self.rsync("control", target, address)
        state = read_json(target / "status.json")
        if done.returncode or state is None:
            raise SourceLost(last_line(done.stdout) or "no answer")
        self.manifest = read_json(target / "manifest.json") or {}
        if self.manifest:
            write_json(self.folder / "public" / "manifest.json", self.manifest)
            self.tell(total=sum(entry["size"] for entry in self.manifest.values()))
        return WeightsStatus.from_dict(state)

    def one_pass(self, address: str) -> bool:
        """Take what is complete at the source; whether there was anything new."""
        done = self.rsync("weights", self.staging, address)
        received = RECEIVED.search(done.stdout)
        if received:
            so_far = self.status.received or 0
            self.tell(received=so_far + int(re.sub(r"\D", "", received[1])))
        self.measure()
        if done.returncode == 0 or done.returncode == VANISHED:
            files = TRANSFERRED.search(done.stdout)
            return bool(files and int(re.sub(r"\D", "", files[1])))
        if NO_SPACE in done.stdout:
            raise self.disk_full()
        unreadable = READ_FAILED.findall(done.stdout)
        if done.returncode == PARTIAL_TRANSFER and unreadable:
            raise TransferError(
                TRANSFER_CHECKS.finding(
                    "weights-source-unreadable",
                    path=self.job.path,
                    seen=f"{len(unreadable)} file(s) of {self.status.source}: {unreadable[0]}",
                )
            )
        raise SourceLost(last_line(done.stdout) or f"rsync ended with {done.returncode}")

    def disk_full(self) -> TransferError:
        free = free_bytes(self.staging)
        total = self.status.total or 0
        return TransferError(
            TRANSFER_CHECKS.finding(
                "weights-disk-full",
                path=str(self.staging),
                seen=f"{free / 1e9:.2f} GB free",
                expected=f"{max(0, total - arrived(self.staging)) / 1e9:.2f} GB for what has not come yet",
            )
        )

    def space(self) -> None:
        """Whether what is still to come fits."""
        total = self.status.total
        if total is not None and free_bytes(self.staging) < total - arrived(self.staging):
            raise self.disk_full()

    def take(self) -> None:
        """Take everything, from the nearest source that lives."""
        self.staging.mkdir(parents=True, exist_ok=True)
        keep_beginnings(self.staging)
        reasons = []
        for source in self.job.sources:
            self.tell(source=source["name"])
            try:
                self.take_from(source["address"])
                return
            except SourceLost as lost:
                reasons.append(f"{source['name']}: {lost}")
                print(time.strftime("%H:%M:%S"), reasons[-1], flush=True)
        done, total = arrived(self.staging), self.status.total
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-source-lost",
                path=str(self.staging),
                seen=f"after {done / 1e6:.1f} MB"
                + (f" of {total / 1e6:.1f} MB" if total else "")
                + f" no source goes on: {'; '.join(reasons)}",
            )
        )

    def take_from(self, address: str) -> None:
        """Pass after pass until the source has everything and so have we."""
        heard, done, answered = time.monotonic(), arrived(self.staging), False
        while True:
            try:
                state = self.source_state(address)
                answered = True
                if state.finding is not None:
                    self.follow_failure(state.finding)
                self.space()
                self.tell(phase=phases.FETCHING)
                new = self.one_pass(address)
                heard = time.monotonic()
                if state.phase == phases.COMPLETE and not new:
                    return
            except SourceLost as lost:
                if arrived(self.staging) > done:
                    heard, done = time.monotonic(), arrived(self.staging)
                # Where a daemon has answered once and nothing listens now, it has ended.
                gone = answered and REFUSED in str(lost)
                if lost.final or gone or time.monotonic() - heard > self.job.patience:
                    raise
                new = False
            self.daemon_lives()
            if not new:
                time.sleep(PAUSE)

    def follow_failure(self, finding: Finding) -> None:
        """A source that cannot go on; if the weights changed there, they are of no use to anyone."""
        if finding.code == "weights-changed":
            raise TransferError(finding)
        raise SourceLost(f"{finding.message}: {finding.seen}", final=True)

    def verify(self) -> None:
        """Nothing gets its final name that is not what the source has, and what its own headers say."""
        self.tell(phase=phases.VERIFYING)
        here = manifest_of(self.staging)
        wrong = [
            name
            for name, entry in sorted(self.manifest.items())
            if name not in here or here[name].size != entry["size"]
        ]
        if wrong:
            raise TransferError(
                TRANSFER_CHECKS.finding(
                    "weights-changed",
                    path=str(self.staging),
                    seen=f"{len(wrong)} file(s) are not as they were at the beginning, e.g. {wrong[0]}",
                )
            )
        verify(self.staging, self.job.hashes)

    # --- the whole

    def run(self) -> None:
        """Do everything, then serve until told to stop, or until nobody has asked for long."""
        signal.signal(signal.SIGTERM, self._stop)
        try:
            (self.folder / "public").mkdir(mode=0o700, exist_ok=True)
            self.work()
            while time.time() - self.last_life() < self.job.idle or self.serving():
                time.sleep(PAUSE)
                if self.status.phase == phases.COMPLETE:
                    self.watch()
        except Stopped:
            pass
        finally:
            if self.daemon is not None:
                self.daemon.terminate()
                self.daemon.wait()
            for name in ("secrets", "password"):
                with suppress(FileNotFoundError):
                    (self.folder / name).unlink()

    def work(self) -> None:
        try:
            if self.job.sources:
                self.tell()
                self.serve(self.staging)
                self.take()
                self.verify()
                self.serve(self.path)
                put_in_place(self.staging, self.path)
            else:
                states = manifest_of(self.path)
                self.manifest = {name: state.as_dict() for name, state in states.items()}
                write_json(self.folder / "public" / "manifest.json", self.manifest)
                self.serve(self.path)
            total = sum(entry["size"] for entry in self.manifest.values())
            self.tell(phase=phases.COMPLETE, done=total, total=total)
        except TransferError as error:
            self.tell(phase=phases.FAILED, finding=error.finding)
        except OSError as error:
            finding = TRANSFER_CHECKS.finding(
                "weights-unwritable",
                path=error.filename or str(self.staging),
                seen=error.strerror or str(error),
            )
            self.tell(phase=phases.FAILED, finding=finding)

    def watch(self) -> None:
        """The one that had the weights first looks whether they stay as they are."""
        try:
            self.daemon_lives()
            if self.job.sources or time.time() - self._sign_of_life < 2 * SAMPLE:
                return
            self._sign_of_life = time.time()
            now = {name: state.as_dict() for name, state in manifest_of(self.path).items()}
            changed = sorted(
                name for name in {*now, *self.manifest} if now.get(name) != self.manifest.get(name)
            )
            if changed:
                raise TransferError(
                    TRANSFER_CHECKS.finding(
                        "weights-changed",
                        path=self.job.path,
                        seen=f"{len(changed)} file(s) on {self.job.name}, e.g. {changed[0]}",
                    )
                )
        except TransferError as error:
            self.tell(phase=phases.FAILED, finding=error.finding)
        except OSError as error:
            finding = TRANSFER_CHECKS.finding(
                "weights-source-unreadable",
                path=error.filename or self.job.path,
                seen=error.strerror or str(error),
            )
            self.tell(phase=phases.FAILED, finding=finding)

    def serving(self) -> bool:
        """Whether a server takes something in this moment; its log tells of a large file only at the end."""
        if self.daemon is None or not has_children(self.daemon.pid):
            return False
        self._served = time.time()
        return True

    def last_life(self) -> float:
        """When the controller or another server was last heard."""
        times = [self._served, self._sign_of_life if self.job.sources else 0.0]
        for name in ("contact", "rsyncd.log", "process.json"):
            path = self.folder / name
            times.append(path.stat().st_mtime if path.exists() else 0.0)
        return max(times)

    def _stop(self, _signal: int, _frame: object) -> None:
        raise Stopped


def end(process: subprocess.Popen[bytes]) -> None:
    """End an rsync; it keeps what has come of a file."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_bytes(path: Path) -> int:
    """What root may still write on the file system of a directory."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize if os.geteuid() == 0 else status.f_bavail * status.f_frsize
