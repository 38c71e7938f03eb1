# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Where weights stand while they are on their way, and how much of them has come.

They grow in a hidden directory beside the model's own, so that one rename makes them visible, whole. A
file that is still being written has a hidden name there, too: what carries its final name is complete.
Nothing here imports Ansible.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from .._files.contents import READERS, files_below, read_json, sha256, write_json
from .catalogue import TRANSFER_CHECKS, TransferError

# Beside a growing file: where rsync keeps what a cut transfer had brought.
PARTIAL = ".rsync-partial"
# rsync writes NAME as .NAME.XXXXXX until it is complete.
GROWING = re.compile(r"^\.(?P<name>.+)\.[A-Za-z0-9]{6}$")
ORIGINAL = re.compile(r"^config\.json\.orig(\.\d+)?$")


@dataclass(frozen=True)
class FileState:
    """A file as the source has it: bytes, and the time of its last change in nanoseconds."""

    size: int
    mtime_ns: int


def staging(path: Path) -> Path:
    """The directory in which weights grow that shall stand at ``path``."""
    return path.parent / f".{path.name}.incoming"


def hidden(name: str) -> bool:
    """Whether a relative name leads through a hidden directory or to a hidden file."""
    return any(component.startswith(".") for component in name.split("/"))


def manifest_of(directory: Path) -> dict[str, FileState]:
    """What a copy consists of: every file that is not hidden."""
    states = {}
    for name in files_below(directory):
        if not hidden(name):
            status = (directory / name).stat()
            states[name] = FileState(status.st_size, status.st_mtime_ns)
    return states


def read_manifest(path: Path) -> dict[str, FileState]:
    """Return the manifest in a JSON file; empty if there is none."""
    entries = read_json(path) or {}
    return {name: FileState(entry["size"], entry["mtime_ns"]) for name, entry in entries.items()}


def write_manifest(path: Path, manifest: Mapping[str, FileState]) -> None:
    """Write a manifest to a JSON file."""
    write_json(path, {name: asdict(state) for name, state in manifest.items()})


def logical(name: str) -> str | None:
    """The final relative name of a file that may still be on its way; None for what is none."""
    folder, _slash, base = name.rpartition("/")
    if folder == PARTIAL or folder.endswith(f"/{PARTIAL}"):
        folder = folder[: -len(PARTIAL)].rstrip("/")
    elif base.startswith("."):
        growing = GROWING.match(base)
        if not growing:
            return None
        base = growing["name"]
    name = f"{folder}/{base}" if folder else base
    return None if hidden(name) else name


def arrived(directory: Path) -> int:
    """Bytes that are there, those of growing files too; of two beginnings of one file the longer counts."""
    sizes: dict[str, int] = {}
    for name in files_below(directory):
        final = logical(name)
        if final is not None:
            try:
                size = (directory / name).lstat().st_size
            except OSError:  # it was renamed in this moment
                continue
            sizes[final] = max(size, sizes.get(final, 0))
    return sum(sizes.values())


def bytes_below(directory: Path) -> int:
    """Bytes of all files, whatever their names: a hub's client has growing ones in hidden directories."""
    total = 0
    for name in files_below(directory):
        with contextlib.suppress(OSError):  # it was renamed in this moment
            total += (directory / name).lstat().st_size
    return total


def free_bytes(path: Path) -> int:
    """Return what root may still write on the file system of a directory."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize if os.geteuid() == 0 else status.f_bavail * status.f_frsize


def check_space(directory: Path, total: int | None) -> None:
    """Raise TransferError unless the rest of the weights fits on the disk.

    directory: in which they grow.
    total: bytes of all of them; None if unknown, and then nothing is checked.
    """
    if total is not None and free_bytes(directory) < total - arrived(directory):
        raise disk_full(directory, total)


def disk_full(directory: Path, total: int | None) -> TransferError:
    """Return the error for a full disk; arguments as for check_space()."""
    return TransferError(
        TRANSFER_CHECKS.finding(
            "weights-disk-full",
            path=str(directory),
            seen=f"{free_bytes(directory) / 1e9:.2f} GB free",
            expected=f"{max(0, (total or 0) - arrived(directory)) / 1e9:.2f} GB for what has not come yet",
        )
    )


def keep_beginnings(directory: Path) -> list[str]:
    """Have rsync go on with files that a killed one left under their growing names."""
    kept = []
    for name in files_below(directory):
        folder, _slash, base = name.rpartition("/")
        growing = GROWING.match(base)
        if not growing or folder == PARTIAL or folder.endswith(f"/{PARTIAL}"):
            continue
        source = directory / name
        target = directory / folder / PARTIAL / growing["name"]
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if target.exists() and target.stat().st_size >= source.stat().st_size:
            source.unlink()
        else:
            source.replace(target)
            kept.append(str(target.relative_to(directory)))
    return kept


def set_aside(directory: Path, names: list[str]) -> None:
    """Take files that are not what they should be out of sight; rsync takes from them what is right."""
    for name in names:
        source = directory / name
        if source.is_symlink():
            source.unlink()
        elif source.is_file():
            target = source.parent / PARTIAL / source.name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            source.replace(target)


def wrong_hashes(directory: Path, hashes: dict[str, str]) -> list[str]:
    """Files that are not what a manifest says. A config.json that was adapted counts by its original."""

    def right(name: str) -> bool:
        candidates = [directory / name]
        if name == "config.json":
            candidates += sorted(path for path in directory.iterdir() if ORIGINAL.match(path.name))
        return any(path.is_file() and sha256(path) == hashes[name].lower() for path in candidates)

    names = sorted(hashes)
    with ThreadPoolExecutor(READERS) as pool:
        return [name for name, good in zip(names, pool.map(right, names)) if not good]
