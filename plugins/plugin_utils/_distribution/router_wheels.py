# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The wheels of a router on the controller: from a directory, or fetched once by pip."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...module_utils._files.contents import sha256
from ...module_utils._findings import RolloutError
from ...module_utils._serving.catalogue import ENGINE_CHECKS

# Seconds for one wheel. The largest has 24 MB.
FETCH_SECONDS = 600
# Characters of pip's message that a finding shows.
SHOWN = 600


class WheelError(RolloutError):
    """Wheels that the controller cannot provide; the findings give the reasons."""


def cache_folder() -> Path:
    """Return the directory for wheels that were fetched, in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ascend.pd_rollout" / "router"


def provided(wheels: Mapping[str, str], directory: str = "", cache: Path | None = None) -> dict[str, Path]:
    """Return the path of every wheel, all of them verified. Raises WheelError with all findings.

    wheels: file names with SHA-256.
    directory: where they are; empty: they are fetched into the cache unless they are there.
    """
    if directory:
        return _named(wheels, Path(directory).expanduser())
    folder = cache or cache_folder()
    with _locked(folder):
        return {name: _cached(name, pin, folder) for name, pin in wheels.items()}


def _named(wheels: Mapping[str, str], folder: Path) -> dict[str, Path]:
    findings = []
    for name, pin in wheels.items():
        path = folder / name
        if not path.is_file():
            findings.append(
                ENGINE_CHECKS.finding("router-wheel-missing", path=str(path), variable="pd_router_wheels")
            )
        elif (found := sha256(path)) != pin:
            findings.append(
                ENGINE_CHECKS.finding(
                    "router-wheel-wrong",
                    path=str(path),
                    variable="pd_router_wheels",
                    seen=found,
                    expected=pin,
                )
            )
    if findings:
        raise WheelError(findings)
    return {name: folder / name for name in wheels}


def _cached(name: str, pin: str, folder: Path) -> Path:
    path = folder / name
    if path.is_file() and sha256(path) == pin:
        return path
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        _fetch(name, Path(draft))
        fetched = Path(draft) / name
        found = sha256(fetched)
        if found != pin:
            raise WheelError(ENGINE_CHECKS.finding("router-wheel-wrong", path=name, seen=found, expected=pin))
        fetched.replace(path)
    return path


def pip_words(name: str) -> list[str]:
    """Return the arguments of pip that fetch one wheel, for whatever Python and platform pip runs on."""
    project, version, python, abi, platforms = name.removesuffix(".whl").split("-")
    words = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    words += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python[2:]]
    words += ["--abi", abi]
    for platform in platforms.split("."):
        words += ["--platform", platform]
    return [*words, f"{project.replace('_', '-')}=={version}"]


def _fetch(name: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", *pip_words(name), "--dest", str(folder)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        said = done.stderr.strip() or done.stdout.strip() or f"pip ended with {done.returncode}"
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        said, failed = f"no end after {FETCH_SECONDS} s", True
    except OSError as error:
        said, failed = str(error), True
    if failed or not (folder / name).is_file():
        seen = said if failed else "another file than this wheel"
        raise WheelError(ENGINE_CHECKS.finding("router-wheels-unfetched", path=name, seen=seen[-SHOWN:]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the cache, so that several workers of a run fetch a wheel once."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        seen = f"{error.filename or folder}: {error.strerror or error}"
        raise WheelError(
            ENGINE_CHECKS.finding("router-wheels-unfetched", path=str(folder), seen=seen)
        ) from error
