# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The transfer on one server: a process of its own that gets the archive, serves it to others, and loads it.

It outlives the task that starts it, tells how far it is in a file, and ends by itself when neither the
controller nor another server has asked for a while: after an interrupted run nothing stays but the part of
the archive that has come, from which the next run goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import _process
from .._docker.client import DockerError
from .._docker.images import ZSTD_MAGIC, Images, counted
from .._findings import RolloutError
from . import status as phases
from .catalogue import TRANSFER_CHECKS, TransferError
from .image_folder import Folder, check_room, megabytes, unpacked
from .peers import NoSource, PeerServer, fetch_from_peers
from .registry import Endpoint, Reference, Registry, RegistryError
from .status import ImageStatus, Rate
from .store import CHUNK, DiskFull, Store, chunk_hashes, open_nameless, open_partial

# Seconds: between two notes of the status; between two looks for a piece from the controller; over which
# speed is measured; between two tries of a registry.
TICK = 0.5
POLL_INTERVAL = 0.05
WINDOW = 5.0
AGAIN = 5.0
TRIES = 4
# Codes of a registry's errors that another try, or another endpoint, may not have.
PASSING = ("image-registry-down", "image-registry-tls")
GZIP_MAGIC = b"\x1f\x8b"
ABANDONED = "nobody has asked for its state for longer than docker_image_idle"


@dataclass
class Spec:
    """What to do. `kind`: registry, archive, docker (save from it), peers (other servers) or controller.

    For the last, `hashes` of the archive's chunks, its `size` in bytes, and whether it is `packed`.
    """

    kind: str
    image: str
    address: str
    token: str = field(repr=False)
    folder: str
    idle_timeout: float
    load_timeout: float
    stall_timeout: float
    archive: str = ""
    digest: str = ""
    endpoints: list[Endpoint] = field(default_factory=list, repr=False)
    reference: Reference | None = None
    hashes: list[str] = field(default_factory=list, repr=False)
    size: int = 0
    packed: bool = False


def start(spec: Spec) -> ImageStatus:
    """Start the job, in place of one that is there; return its first status, with the port or a finding.

    Raises UnsafeFolder where others can write, and TransferError if the process ends without a status.
    """
    folder = Folder(spec.folder)
    folder.make()
    folder.end_job()
    folder.forget_status()
    folder.touch([])
    child = _process.detach(Job(spec).run, note_at=folder.process)
    # No time is set: what an earlier run left is hashed first, and that of a large image takes a while.
    while True:
        # First whether it lives, then its status: that may be the last one that it writes.
        lives = _process.start_time(child) is not None
        status = folder.read_status()
        if status and (status.port or status.phase == phases.FAILED):
            return status
        if not lives:
            raise TransferError(
                TRANSFER_CHECKS.finding("image-transfer-gone", path=spec.folder, seen="no status")
            )
        time.sleep(0.02)


class Job:
    """The process."""

    def __init__(self, spec: Spec, images: Images | None = None) -> None:
        self._spec = spec
        self._folder = Folder(spec.folder)
        self._images = images or Images()
        self._lock = threading.Lock()
        self._rate = Rate(WINDOW)
        self._server: PeerServer | None = None
        self._opened: Store | None = None
        self._roomy = False
        # Nothing is told any longer: the folder is being cleared.
        self._over = False
        self._status = ImageStatus()

    @property
    def _store(self) -> Store:
        """What has come so far, once run() has opened it."""
        if self._opened is None:
            raise AssertionError("run() has not opened it")
        return self._opened

    def run(self) -> None:
        """All of it; ends the process's work when nobody needs it any longer."""
        try:
            self._opened = self._open()
            self._server = PeerServer(self._spec.address, self._store, self._spec.token)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
            self._publish(port=self._server.server_address[1])
            threading.Thread(target=self._work, daemon=True).start()
        except OSError as error:
            text = error.strerror or str(error)
            where = f"{self._spec.address}, {self._folder.path}"
            self._fail("image-transfer-failed", f"cannot serve or write there ({where}): {text}")
            return
        while not self._forgotten():
            time.sleep(TICK)
            self._publish()
        with self._lock:
            self._over = True
        # What a run left that nobody watches: all but the part.
        self._folder.clear(keep_partial=self._status.phase != phases.COMPLETE)

    def _forgotten(self) -> bool:
        asked_at = self._server.asked_at if self._server else 0.0
        quiet = time.monotonic() - asked_at
        return self._folder.unwatched() > self._spec.idle_timeout and quiet > self._spec.idle_timeout

    def _open(self) -> Store:
        if self._spec.kind == "docker":
            return Store(open_nameless(self._folder.path))
        if self._spec.kind == "archive":
            return Store(os.open(self._spec.archive, os.O_RDONLY | os.O_CLOEXEC))
        handle = open_partial(self._folder.partial_archive)
        return Store(handle, [digest for digest, length in chunk_hashes(handle) if length == CHUNK])

    def _publish(self, **changes: Any) -> None:
        """Change the status and write it for the controller."""
        with self._lock:
            self._status = replace(self._status, **changes)
            if self._server:
                self._status = replace(self._status, served=self._server.served)
            if self._status.phase in (phases.FETCHING, phases.LOADING):
                self._status = replace(self._status, rate=self._rate.at(self._status.done))
            if not self._over:
                self._folder.write_status(self._status)

    def _progress(self, **changes: Any) -> None:
        """Change the status in memory only; the main thread writes it at its next tick."""
        with self._lock:
            self._status = replace(self._status, **changes)

    def _work(self) -> None:
        try:
            self._get()
            self._progress(
                phase=phases.LOADING if self._spec.kind != "docker" else phases.COMPLETE,
                done=self._store.size,
            )
            if self._spec.kind != "docker":
                self._load()
            self._publish(phase=phases.COMPLETE)
        except RolloutError as error:
            self._publish(phase=phases.FAILED, finding=error.finding)
        except NoSource as error:
            self._fail("image-source-lost", str(error))
        except DiskFull:
            free = shutil.disk_usage(self._folder.path).free
            self._fail(
                "image-disk-full",
                f"the disk of {self._folder.path} is full, with {megabytes(self._store.size)} of "
                f"{megabytes(self._store.total or 0)} MB there; {megabytes(free)} MB are free again",
            )
        except OSError as error:
            self._fail("image-transfer-failed", error.strerror or str(error))
        except Exception as error:
            # Whatever it is, the controller must hear of it: this process has no other voice.
            self._fail("image-transfer-failed", f"{type(error).__name__}: {error}")

    def _fail(self, code: str, seen: str) -> None:
        self._publish(phase=phases.FAILED, finding=TRANSFER_CHECKS.finding(code, seen=seen))

    def _get(self) -> None:
        self._progress(phase=phases.FETCHING)
        if self._spec.kind == "peers":
            fetch_from_peers(
                self._store,
                self._spec.token,
                self._folder.sources,
                self._note_progress,
                self._spec.stall_timeout,
            )
            self._note_progress("")
        elif self._spec.kind == "docker":
            found = self._images.inspect(self._spec.image)
            if found is None:
                seen = f"the Docker Engine no longer has {self._spec.image}"
                raise TransferError(TRANSFER_CHECKS.finding("image-transfer-failed", seen=seen))
            size = found["Size"]
            check_room(self._spec.folder, size, 0)
            # What a registry calls it goes on with it: the others could not find that out.
            known = [name.partition("@")[2] for name in found.get("RepoDigests") or []]
            known += self._images.recorded(found["Id"])
            self._store.digest = self._spec.digest or next(iter(known), "")
            self._store.unpacked = size
            self._progress(total=size, source="the Docker Engine")
            self._fill(self._images.save(self._spec.image))
        elif self._spec.kind == "archive":
            self._hash_archive()
        elif self._spec.kind == "controller":
            self._receive()
        else:
            self._fetch_from_registries()

    def _note_progress(self, name: str) -> None:
        """Note what has come from other servers, and from which. Raises TransferError if nobody watches."""
        if self._folder.unwatched() > self._spec.idle_timeout:
            raise TransferError(TRANSFER_CHECKS.finding("image-transfer-abandoned", seen=ABANDONED))
        self._progress(done=self._store.size, total=self._store.total, kept=self._store.adopted)
        if name and name != self._status.source:
            self._progress(source=name)
        total = self._store.total
        if not self._roomy and total:
            self._roomy = True
            unpacked_size = self._store.unpacked or 0
            check_room(self._spec.folder, total - self._store.whole(), total + unpacked_size)

    def _hash_archive(self) -> None:
        store, path = self._store, self._spec.archive
        total = store.total = store.whole()
        packed = store.read_back(0, 4).startswith((GZIP_MAGIC, ZSTD_MAGIC))
        store.unpacked = unpacked(total, packed)
        self._progress(total=total, source=path)
        check_room(self._spec.folder, 0, total + store.unpacked)
        for digest, length in chunk_hashes(store.handle):
            store.note(digest, length)
            self._progress(done=store.size)
        store.finish(truncate=False)

    def _receive(self) -> None:
        """From the controller, which cannot be asked: it brings what the status says is wanted."""
        store, spec = self._store, self._spec
        store.total, store.unpacked = spec.size, unpacked(spec.size, spec.packed)
        self._progress(total=spec.size, source="the controller")
        check_room(spec.folder, spec.size - store.whole(), spec.size + store.unpacked)
        while len(store.hashes) < len(spec.hashes) and store.adopt(spec.hashes[len(store.hashes)]):
            pass
        self._progress(done=store.size, kept=store.adopted)
        while len(store.hashes) < len(spec.hashes):
            number = len(store.hashes)
            self._publish(wanted=number)
            piece = self._folder.incoming(number)
            while not piece.exists():
                if self._folder.unwatched() > spec.idle_timeout:
                    raise TransferError(TRANSFER_CHECKS.finding("image-transfer-abandoned", seen=ABANDONED))
                time.sleep(POLL_INTERVAL)
            self._append_piece(piece)
            piece.unlink()
        store.finish()

    def _append_piece(self, piece: Path) -> None:
        """Append the chunks of a piece that the controller sent."""
        store = self._store
        with piece.open("rb") as stream:
            for data in iter(lambda: stream.read(CHUNK), b""):
                if hashlib.sha256(data).hexdigest() != self._spec.hashes[len(store.hashes)]:
                    seen = f"chunk {len(store.hashes)} is not what the archive held before"
                    raise TransferError(TRANSFER_CHECKS.finding("image-archive-changed", seen=seen))
                store.append(data)
                self._progress(done=store.size, fetched=self._status.fetched + len(data))

    def _fill(self, pieces: Iterable[bytes]) -> None:
        """Cut a stream into chunks."""
        buffer = bytearray()
        for piece in pieces:
            buffer += piece
            while len(buffer) >= CHUNK:
                self._store.append(bytes(buffer[:CHUNK]))
                del buffer[:CHUNK]
                self._progress(done=self._store.size, fetched=self._status.fetched + CHUNK)
        if buffer:
            self._store.append(bytes(buffer))
            self._progress(done=self._store.size, fetched=self._status.fetched + len(buffer))
        self._store.finish()

    def _fetch_from_registries(self) -> None:
        """Fetch from the first endpoint that provides it; one that breaks off is tried again."""
        refused: list[str] = []
        code = ""
        for endpoint in self._spec.endpoints:
            for _attempt in range(TRIES):
                before, kept = self._store.size, self._status.kept
                try:
                    self._fetch_from_registry(endpoint)
                    return
                except RegistryError as error:
                    code = error.finding.code
                    if str(error) not in refused:
                        refused.append(str(error))
                    came = self._store.size > max(before, self._status.kept)
                if code == "image-registry-digest" and self._store.size:
                    # The bad bytes may be those that lay here: once more, all of them.
                    self._store.begin_anew(self._store.epoch + 1, trust=False)
                    if self._status.kept and not kept:
                        continue
                    break
                # An endpoint that provides nothing is not waited for.
                if code not in PASSING or not came:
                    break
                time.sleep(AGAIN)
        raise RegistryError(code or "image-registry-down", "; ".join(refused) or "no registry is named")

    def _fetch_from_registry(self, endpoint: Endpoint) -> None:
        reference = self._spec.reference
        # Of kind registry alone, which has one.
        if reference is None:
            raise AssertionError(endpoint)
        registry = Registry(endpoint, reference.repository)
        archive = registry.archive(reference, self._spec.image)
        if self._spec.digest and archive.digest != self._spec.digest:
            raise RegistryError(
                "image-registry-digest",
                f"{endpoint.name} has {archive.digest} as {self._spec.image}, not {self._spec.digest}",
            )
        store = self._store
        store.total, store.digest = archive.size, archive.digest
        store.unpacked = unpacked(archive.size, packed=True)
        self._progress(total=archive.size, source=endpoint.name)
        check_room(self._spec.folder, archive.size - store.whole(), archive.size + store.unpacked)
        while store.size + CHUNK <= archive.size and len(store.hashes) < len(store.spare):
            store.adopt(store.spare[len(store.hashes)])
        self._progress(done=store.size, kept=store.adopted)
        self._fill(registry.stream(archive, store.size, store.read_back))

    def _load(self) -> None:
        total = self._store.size
        self._progress(done=0, total=total, rate=0.0)
        self._rate.restart()
        content = counted(self._store.content(), lambda done: self._progress(done=done))
        try:
            names = self._images.load(content, self._spec.load_timeout)
        except DockerError as error:
            if "no space left" in str(error):
                raise TransferError(TRANSFER_CHECKS.finding("image-disk-full", seen=str(error))) from error
            # What cannot be loaded shall not be taken for a good part next time.
            with contextlib.suppress(OSError):
                self._folder.partial_archive.unlink()
            raise TransferError(TRANSFER_CHECKS.finding("image-load-failed", seen=str(error))) from error
        found = self._images.inspect(self._spec.image)
        image_id = (found or {}).get("Id", "")
        self._progress(names=names, loaded_id=image_id)
        if found and self._store.digest:
            self._images.record(self._store.digest, image_id)
        with contextlib.suppress(OSError):
            self._folder.partial_archive.unlink()
