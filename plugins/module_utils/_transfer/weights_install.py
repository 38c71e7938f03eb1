# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that have arrived: whether they are whole, and their way to the place where engines look."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .._files.contents import files_below
from .._weights import inspection
from .._weights.catalogue import WEIGHTS_CHECKS
from .catalogue import TRANSFER_CHECKS, TransferError
from .weights_files import (
    PARTIAL,
    FileState,
    manifest_of,
    set_aside,
    staging,
    wrong_hashes,
)


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


def verify_sizes(directory: Path, manifest: Mapping[str, FileState]) -> None:
    """Raise TransferError unless all files of a manifest are in a directory, with their sizes."""
    here = manifest_of(directory)
    wrong = [
        name for name, state in sorted(manifest.items()) if name not in here or here[name].size != state.size
    ]
    if wrong:
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-changed",
                path=str(directory),
                seen=f"{len(wrong)} file(s) are not as they were at the beginning, e.g. {wrong[0]}",
            )
        )


def verify_unchanged(directory: Path, manifest: Mapping[str, FileState], host: str) -> None:
    """Raise TransferError if the files in a directory are not those of a manifest.

    directory: of the weights.
    manifest: of their state at the beginning.
    host: the name of the server, for the finding.
    """
    now = manifest_of(directory)
    changed = sorted(name for name in {*now, *manifest} if now.get(name) != manifest.get(name))
    if changed:
        raise TransferError(
            TRANSFER_CHECKS.finding(
                "weights-changed",
                path=str(directory),
                seen=f"{len(changed)} file(s) on {host}, e.g. {changed[0]}",
            )
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
