# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Full hashes of a model's files, computed on request: every byte is read, which takes minutes.

Nothing here imports Ansible.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .._files import contents
from .._files.contents import READERS

# The files that make up a model; notes and images next to them do not count.
SUFFIXES = (".safetensors", ".json", ".model", ".txt", ".tiktoken", ".py", ".jinja")
# Lists in the format of `sha256sum`, as some publishers put them next to the weights.
MANIFEST = re.compile(r"^(sha256sums?(\.txt)?|.+\.sha256)$", re.IGNORECASE)
UNREADABLE = "unreadable"
_LINE = re.compile(r"^([0-9a-fA-F]{64}) [ *](.+)$")


def counts(name: str) -> bool:
    """Return whether a file (its path below the model's directory) is part of the model."""
    hidden = "/" in name and name.startswith(".")
    return name.endswith(SUFFIXES) and not hidden and not MANIFEST.match(name)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, or ``unreadable``."""
    try:
        return contents.sha256(path)
    except OSError:
        return UNREADABLE


def hash_all(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of these files by name, computed several at a time."""
    ordered = sorted(names)
    if not ordered:
        return {}
    with ThreadPoolExecutor(min(READERS, len(ordered))) as pool:
        return dict(zip(ordered, pool.map(lambda name: sha256(directory / name), ordered)))


def manifest(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the hashes in the directory's ``sha256sum`` lists, by file name."""
    promised: dict[str, str] = {}
    for name in names:
        if "/" in name or not MANIFEST.match(name):
            continue
        try:
            lines = (directory / name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            match = _LINE.match(line)
            if match:
                promised[re.sub(r"^\./", "", match.group(2))] = match.group(1).lower()
    return promised


def broken(promised: Mapping[str, str], hashes: Mapping[str, str]) -> list[str]:
    """Return the files whose hash differs from the promised one."""
    return sorted(name for name, digest in promised.items() if hashes.get(name, digest) != digest)


def combined(hashes: Mapping[str, str]) -> str:
    """Return one fingerprint of all hashes."""
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
