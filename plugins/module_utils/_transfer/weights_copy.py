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
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._files.contents import files_below, read_json, write_json
from .._findings import Finding
from .._weights import inspection
from .._weights.catalogue import WEIGHTS_CHECKS
from .catalogue import TRANSFER_CHECKS, TransferError
from .weights_files import (
    PARTIAL,
    arrived,
    bytes_below,
    keep_beginnings,
    manifest_of,
    set_aside,
    staging,
    wrong_hashes,
)
from .weights_process import GRACE, die_with_parent, has_children

USER = "pd_rollout"
# Seconds: between two looks at what has come; that a rate is averaged over; between two looks at a source.
SAMPLE = 1.0
WINDOW = 10.0
PAUSE = 0.3
# Seconds that a source may always take for an answer.
SHORT = 5.0
# rsync's exit codes: some files could not be read or written; some were gone when their turn came.
PARTIAL_TRANSFER, VANISHED = 23, 24
NO_SPACE = "No space left on device"
REFUSED = "Connection refused"
READ_FAILED = re.compile(
    r"(?:send_files failed to open|read errors mapping|opendir|link_stat|readlink_stat).*", re.IGNORECASE
)
RECEIVED = re.compile(r"^Total bytes received: ([\d,.]+)", re.MULTILINE)
TRANSFERRED = re.compile(r"^Number of regular files transferred: ([\d,.]+)", re.MULTILINE)


class SourceLost(Exception):
    """A source does not answer, or says that it cannot go on; if ``final``, there is no use in waiting."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Stopped(BaseException):
    """The controller wants this to end."""


@dataclass
class Job:
    """What one server has to do."""

    name: str
    path: str
    address: str
    port: int
    secret: str
    # Servers to take from, the nearest first: [{"name": …, "address": …}]; empty on the one that has them.
    sources: list[Any] = field(default_factory=list)
    # Addresses that may take from here.
    clients: list[Any] = field(default_factory=list)
    # MB/s (10⁶ bytes), 0: as fast as it goes.
    bandwidth: float = 0.0
    # Seconds without an answer after which the next source is asked.
    patience: float = 60.0
    # Seconds after which the process ends by itself when nobody asks, takes or gives.
    idle: float = 120.0
    # Relative name → SHA-256, of those files for which it is known.
    hashes: dict[str, Any] = field(default_factory=dict)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def daemon_config(job: Job, folder: Path, weights: Path) -> str:
    """The configuration of rsync's daemon; it is read anew for each connection."""
    return "\n".join(
        [
            f"pid file = {folder}/rsyncd.pid",
            f"log file = {folder}/rsyncd.log",
            f"address = {job.address}",
            f"port = {job.port}",
            "uid = root",
            "gid = root",
            # Links of a hub's cache lead out of the directory.
            "use chroot = no",
            "read only = yes",
            "list = no",
            # Names of clients are of no use, and a name server may be far.
            "reverse lookup = no",
            f"auth users = {USER}",
            f"secrets file = {folder}/secrets",
            f"hosts allow = {' '.join(job.clients) or '127.0.0.1'}",
            "hosts deny = *",
            "transfer logging = yes",
            "timeout = 300",
            "",
            "[control]",
            f"path = {folder}/public",
            "",
            "[weights]",
            f"path = {weights}",
            # What is hidden is not complete, or of no use elsewhere.
            "exclude = .*",
            "",
        ]
    )


class Copy:
    """The work of the process on one server; `run` ends when the controller or idleness ends it."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.folder = folder
        self.path = Path(job.path)
        self.staging = staging(self.path)
        self.manifest: dict[str, dict[str, Any]] = {}
        self.daemon: subprocess.Popen[bytes] | None = None
        self.status: dict[str, Any] = {
            "state": "waiting",
            "source": None,
            "done": 0,
            "total": None,
            "rate": 0.0,
            "received": 0,
            "finding": None,
        }
        self._samples: deque[Any] = deque()
        self._sign_of_life = time.time()
        self._served = 0.0

    # --- what others see

    def tell(self, **changes: Any) -> None:
        """Write the state for the controller and for the next server."""
        if changes.get("state", self.status["state"]) != self.status["state"] or changes.get("finding"):
            print(time.strftime("%H:%M:%S"), changes, flush=True)
        self.status.update(changes)
        write_json(self.folder / "status.json", self.status)
        write_json(self.folder / "public" / "status.json", self.status)

    def measure(self) -> None:
        """How much has come, and how fast it comes."""
        now, done = time.monotonic(), arrived(self.staging)
        self._samples.append((now, done))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        rate = max(0.0, (done - before) / (now - then)) if now > then else 0.0
        self._sign_of_life = time.time()
        self.tell(done=done, rate=rate)

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

    def source_state(self, address: str) -> dict[str, Any]:
        """What a source says of itself, and its manifest."""
        target = self.folder / "source"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        done = self.rsync("control", target, address)
        state: dict[str, Any] | None = read_json(target / "status.json")
        if done.returncode or state is None:
            raise SourceLost(last_line(done.stdout) or "no answer")
        self.manifest = read_json(target / "manifest.json") or {}
        if self.manifest:
            write_json(self.folder / "public" / "manifest.json", self.manifest)
            self.tell(total=sum(entry["size"] for entry in self.manifest.values()))
        return state

    def one_pass(self, address: str) -> bool:
        """Take what is complete at the source; whether there was anything new."""
        done = self.rsync("weights", self.staging, address)
        received = RECEIVED.search(done.stdout)
        if received:
            self.tell(received=self.status["received"] + int(re.sub(r"\D", "", received[1])))
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
                    seen=f"{len(unreadable)} file(s) of {self.status['source']}: {unreadable[0]}",
                )
            )
        raise SourceLost(last_line(done.stdout) or f"rsync ended with {done.returncode}")

    def disk_full(self) -> TransferError:
        free = free_bytes(self.staging)
        total = self.status["total"] or 0
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
        total = self.status["total"]
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
        done, total = arrived(self.staging), self.status["total"]
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
                if state["state"] == "failed":
                    self.follow_failure(state)
                self.space()
                self.tell(state="copying")
                new = self.one_pass(address)
                heard = time.monotonic()
                if state["state"] == "complete" and not new:
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

    def follow_failure(self, state: dict[str, Any]) -> None:
        """A source that cannot go on; if the weights changed there, they are of no use to anyone."""
        finding = Finding.from_dict(state["finding"])
        if finding.code == "weights-changed":
            raise TransferError(finding)
        raise SourceLost(f"{finding.message}: {finding.seen}", final=True)

    def verify(self) -> None:
        """Nothing gets its final name that is not what the source has, and what its own headers say."""
        self.tell(state="verifying")
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
                if self.status["state"] == "complete":
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
            self.tell(state="complete", done=total, total=total)
        except TransferError as error:
            self.tell(state="failed", finding=error.finding.to_dict())
        except OSError as error:
            finding = TRANSFER_CHECKS.finding(
                "weights-unwritable",
                path=error.filename or str(self.staging),
                seen=error.strerror or str(error),
            )
            self.tell(state="failed", finding=finding.to_dict())

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
            self.tell(state="failed", finding=error.finding.to_dict())
        except OSError as error:
            finding = TRANSFER_CHECKS.finding(
                "weights-source-unreadable",
                path=error.filename or self.job.path,
                seen=error.strerror or str(error),
            )
            self.tell(state="failed", finding=finding.to_dict())

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


def verify(directory: Path, hashes: dict[str, str], but: frozenset[str] = frozenset()) -> None:
    """Raise what is wrong with weights that shall get their final name, C(but) findings of these codes."""
    wrong = wrong_hashes(directory, hashes)
    if wrong:
        set_aside(directory, wrong)
        raise TransferError(
            WEIGHTS_CHECKS.finding(
                "weights-hash-mismatch",
                path=str(directory),
                seen=f"{len(wrong)} of {len(hashes)} files differ from the manifest, e.g. {wrong[0]}",
                expected="the SHA-256 that the manifest gives",
                cure="run again: these files are fetched anew; if it stays, the source is damaged",
            )
        )
    errors = [
        error for error in inspection.inspect(str(directory), dtype=None).errors if error.code not in but
    ]
    if errors:
        first, more = errors[0], len(errors) - 1
        raise TransferError(
            replace(first, seen=f"{first.seen}; and {more} more finding(s)") if more else first
        )


def put_in_place(source: Path, path: Path) -> None:
    """Give weights that are whole their final name; what the transfer needed goes."""
    for name in files_below(source):
        if PARTIAL in name.split("/"):
            (source / name).unlink()
    for folder, _folders, _names in os.walk(source, topdown=False):
        if Path(folder).name == PARTIAL:
            Path(folder).rmdir()
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
    elif path.exists() or path.is_symlink():
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-path-taken",
                path=str(path),
                seen="something came to this path while the weights were copied",
            )
        )
    source.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def adopt(path: Path, damaged: list[str]) -> None:
    """Weights that are not whole lose their name, and are where the next transfer goes on.

    Files that are known to be ``damaged`` lose theirs, too; what is right in them need not come again.
    """
    target = staging(path)
    if target.is_symlink():
        # Nothing of ours makes one. Where others may write beside the weights, theirs leads root elsewhere.
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-path-taken",
                path=str(target),
                seen=f"a link to {os.readlink(target)}, where the weights would grow",
            )
        )
    if path.is_dir():
        set_aside(path, damaged)
    if path.is_symlink() and not path.exists():
        raise TransferError(
            WEIGHTS_CHECKS.finding(
                "weights-path-missing",
                path=str(path),
                seen=f"a link to {os.readlink(path)}, which is not there",
                expected="a directory, or nothing",
                cure="mount what the link points to, or remove the link",
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        target.mkdir(exist_ok=True)
    elif not any(path.iterdir()) and not path.is_mount():
        path.rmdir()
        target.mkdir(exist_ok=True)
    elif path.is_mount() or path.is_symlink():
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-path-is-mount",
                path=str(path),
                seen="a mount point or a link, which cannot be replaced in one step",
            )
        )
    elif target.exists():
        # Both hold a part; the one that was interrupted last is gone on with, of the other what it lacks.
        for name in files_below(path):
            if not (target / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).rename(target / name)
        shutil.rmtree(path)
    else:
        path.rename(target)


def free_bytes(path: Path) -> int:
    """What root may still write on the file system of a directory."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize if os.geteuid() == 0 else status.f_bavail * status.f_frsize


def last_line(text: str) -> str:
    """The line of rsync's output that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.startswith(("rsync", "@ERROR"))]
    return lines[0] if lines else ""
