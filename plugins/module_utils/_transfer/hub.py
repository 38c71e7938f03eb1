# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the clients of the hubs leave beside a model's files: hashes that the hub promised, and notes.

ModelScope's client compares each file with the hub's SHA-256 itself. Hugging Face's does not: it writes down
what the hub said, in C(.cache/huggingface/download/NAME.metadata), whose second line is the SHA-256 of a
large file and the Git hash of a small one (huggingface_hub 0.36: _local_folder.py). Nothing here imports
Ansible.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from .._files import contents
from .._files.contents import READERS, files_below
from .._weights.catalogue import WEIGHTS_CHECKS
from .catalogue import TransferError
from .weights_install import verify

# What the clients keep beside the files; of no use once these are complete.
OWN = (".cache", "._____temp", ".msc", ".mdl", ".mv")
NOTES = Path(".cache") / "huggingface" / "download"
SUFFIX = ".metadata"
SHA256, GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
# What an interrupted download of another revision may have left; it goes with the rest of the notes.
LEFTOVERS = frozenset({"weights-incomplete-download", "weights-download-lock"})
# Programs end their output with the reason; before it stand bars of progress, redrawn in place.
BAR = re.compile(r"\d+%\||\d[kMGT]?B/s\]|\?B/s\]")
REASON = re.compile(r"^[\w.]*(Error|Exception|NotExist|Timeout)\w*\b")


def promised(directory: Path) -> dict[str, str]:
    """The hash of each file as the hub gave it: 64 digits of SHA-256, or 40 of a Git blob."""
    hashes = {}
    for name in files_below(directory / NOTES):
        if name.endswith(SUFFIX):
            lines = (directory / NOTES / name).read_text(errors="replace").splitlines()
            digest = lines[1].strip() if len(lines) > 1 else ""
            if SHA256.fullmatch(digest) or GIT.fullmatch(digest):
                hashes[name[: -len(SUFFIX)]] = digest
    return hashes


def digest_of(path: Path, like: str) -> str:
    """The hash of a file, of the kind that the given one is."""
    return contents.git_blob_sha1(path) if GIT.fullmatch(like) else contents.sha256(path)


def broken(directory: Path) -> list[str]:
    """Files that are not what the hub said."""
    hashes = promised(directory)
    names = [name for name in sorted(hashes) if (directory / name).is_file()]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: digest_of(directory / name, hashes[name]) == hashes[name], names)
        return [name for name, good in zip(names, found) if not good]


def accept(directory: Path, hashes: dict[str, str]) -> None:
    """Raise what is wrong with a download; remove the client's notes of one that is whole.

    Until then they stay: without them ModelScope's client would fetch every file again.
    """
    wrong = broken(directory)
    if wrong:
        for name in wrong:
            (directory / name).unlink()
        raise TransferError(
            WEIGHTS_CHECKS.finding(
                "weights-hash-mismatch",
                path=str(directory),
                seen=f"{len(wrong)} file(s) are not what the hub says they are, e.g. {wrong[0]}",
                expected="the hashes that the hub gives",
                cure="run again, these files are fetched anew; if it stays, a mirror or a proxy changes them",
            )
        )
    verify(directory, hashes, LEFTOVERS)
    clean(directory)


def clean(directory: Path) -> None:
    """Remove what a hub's client keeps for itself, of a download that is complete."""
    for name in OWN:
        entry = directory / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            with suppress(FileNotFoundError):
                entry.unlink()


def last_words(text: str) -> tuple[str, list[str]]:
    """The line of a client's output that says why it ended, and all lines that show no progress."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not BAR.search(line)]
    reasons = [line for line in lines if REASON.match(line)]
    return (reasons or lines or [""])[-1].strip(), lines
