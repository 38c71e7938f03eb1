# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Images of the Docker Engine on this server: inspect, save, load, remove. Standard library alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .._files.contents import read_json, write_json
from .client import DEFAULT_SOCKET, TIMEOUT, DockerError, answering

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PIECE = 1024 * 1024
# Seconds without a byte while the engine prepares an archive.
SAVE_TIMEOUT = 600.0
# Records which image (by ID) has which digest in a registry, since a loaded image has no such name itself.
RECORD = "/var/lib/pd_rollout/images.json"


class ImageError(DockerError):
    """The Docker Engine cannot load an archive, or cannot save an image."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text, status, "docker-image-refused")


class Images:
    """The engine's images. ``timeout``: seconds without an answer; ``record``: file of known digests."""

    def __init__(
        self, socket_path: str = DEFAULT_SOCKET, timeout: float = TIMEOUT, record: str = RECORD
    ) -> None:
        self._socket, self._timeout, self._record = socket_path, timeout, Path(record)

    def _body(self, method: str, path: str) -> bytes:
        with answering(method, path, socket_path=self._socket, timeout=self._timeout) as answer:
            return answer.read()

    def inspect(self, reference: str) -> dict[str, Any] | None:
        """Return the data of ``docker image inspect``, or None without such an image. Raises DockerError."""
        try:
            found = json.loads(self._body("GET", f"/images/{quote(reference)}/json"))
        except DockerError as error:
            if error.status == 404:
                return None
            raise
        return dict(found)

    def listed(self) -> list[dict[str, Any]]:
        """Return the data of ``docker image ls``. Raises DockerError."""
        return list(json.loads(self._body("GET", "/images/json")))

    def in_use(self) -> set[str]:
        """Return the IDs of images that containers use, running or not. Raises DockerError."""
        return {container["ImageID"] for container in json.loads(self._body("GET", "/containers/json?all=1"))}

    def untag(self, reference: str) -> None:
        """Remove a name of an image, and the image with its last name. A missing name is no error."""
        try:
            self._body("DELETE", f"/images/{quote(reference)}")
        except DockerError as error:
            if error.status != 404:
                raise

    def save(self, reference: str) -> Iterator[bytes]:
        """Yield the archive of an image in chunks. Raises ImageError if the image no longer exists."""
        path = f"/images/get?{urlencode({'names': reference})}"
        try:
            with answering("GET", path, socket_path=self._socket, timeout=SAVE_TIMEOUT) as answer:
                yield from iter(lambda: answer.read(PIECE), b"")
        except DockerError as error:
            if error.status == 404:
                raise ImageError(f"the image {reference} no longer exists", 404) from error
            raise

    def load(self, content: Iterable[bytes], timeout: float) -> list[str]:
        """Load an archive and return the names (or IDs) of its images.

        content: the archive in chunks, plain or compressed.
        timeout: seconds without progress.

        Raises ImageError if the engine refuses the archive.
        """
        path = "/images/load?quiet=1"
        with answering(
            "POST", path, socket_path=self._socket, timeout=timeout, body=plain(content)
        ) as answer:
            body = answer.read()
        names = []
        for line in body.splitlines():
            said = json.loads(line)
            if "error" in said:
                raise ImageError(said["error"])
            kind, _, name = said.get("stream", "").strip().partition(": ")
            if kind in ("Loaded image", "Loaded image ID"):
                names.append(name)
        return names

    def recorded(self, image_id: str) -> list[str]:
        """Return the recorded registry digests of the image with this ID."""
        return [digest for digest, known in self._records().items() if known == image_id]

    def record(self, digest: str, image_id: str) -> None:
        """Record that the image with this ID has this digest in a registry."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._record, {**self._records(), digest: image_id}, mode=0o644)

    def _records(self) -> dict[str, str]:
        return dict(read_json(self._record, {}))


def plain(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an archive in a form that every engine reads: plain or gzip, as zstd is read only from 23.0."""
    pieces = iter(content)
    first = next(pieces, b"")
    if not first.startswith(ZSTD_MAGIC):
        yield first
        yield from pieces
        return
    yield from piped(["zstd", "--decompress", "--stdout"], first, pieces)


def piped(command: list[str], first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the output of a program for an input.

    command: the program and its arguments.
    first, pieces: the first chunk of the input, and the others.

    Raises ImageError if the program is missing or fails.
    """
    if shutil.which(command[0]) is None:
        raise ImageError(
            f"the archive is compressed with {command[0]}, which is not installed on this server. Install"
            f" {command[0]}, or compress the archive with gzip"
        )
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # For the type checker: all three are pipes.
    if program.stdin is None or program.stdout is None or program.stderr is None:
        raise AssertionError(command)
    given, made, errors = program.stdin, program.stdout, program.stderr

    def feed() -> None:
        try:
            given.write(first)
            for piece in pieces:
                given.write(piece)
            given.close()
        except OSError:
            # The program has ended early; its error is raised below.
            return

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    yield from iter(lambda: made.read(PIECE), b"")
    if program.wait():
        raise ImageError(
            f"{command[0]} cannot read the archive: {errors.read().decode('utf-8', 'replace').strip()}"
        )


def counted(content: Iterable[bytes], note: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the chunks, and call ``note`` with the number of bytes that have passed."""
    done = 0
    for piece in content:
        yield piece
        done += len(piece)
        note(done)


def repository(name: str) -> str:
    """Return ascend/vllm-ascend for registry.example:5000/ascend/vllm-ascend:v1."""
    path = name.partition("@")[0]
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    return path.partition(":")[0]


def old_names(
    listed: list[dict[str, Any]], used: set[str], wanted: str, wanted_id: str, keep: int
) -> list[str]:
    """Return the names of old images that may be removed.

    listed: the engine's images.
    used: IDs of images in use, which are kept.
    wanted, wanted_id: name and ID of the current image, which is kept.
    keep: number of older images of its repository to keep, the newest ones.
    """
    ours = repository(wanted)
    names = [
        (-image["Created"], image["Id"], name)
        for image in listed
        for name in image.get("RepoTags") or []
        if repository(name) == ours and image["Id"] != wanted_id
    ]
    order = list(dict.fromkeys(image_id for _created, image_id, _name in sorted(names)))
    going = set(order[keep:]) - used
    return [name for _created, image_id, name in sorted(names) if image_id in going]


def file_system(path: str) -> str:
    """Return the type of the file system of a path, from /proc/mounts."""
    best, kind = "", ""
    real = str(Path(path).resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _device, point, listed_kind = line.split()[:3]
        point = point.replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, listed_kind
    return kind


def is_shared(kind: str) -> bool:
    """Return whether a file system of this type is on the network."""
    return kind.startswith(
        ("nfs", "fuse", "cifs", "smb", "ceph", "lustre", "gpfs", "glusterfs", "beegfs", "9p")
    )
