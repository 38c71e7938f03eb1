"""The machine's Docker Engine, through its command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from pdsim.ui import SimError


def docker(*args: str, data: bytes | None = None, check: bool = True) -> str:
    """Run `docker …` and return what it printed; `data` goes to its standard input."""
    done = run(args, data)
    if check and done.returncode != 0:
        raise SimError(f"docker {' '.join(args[:3])} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace").strip()


def succeeds(*args: str) -> bool:
    """Whether `docker …` exits with 0."""
    return run(args, None).returncode == 0


def run(args: Sequence[str], data: bytes | None) -> subprocess.CompletedProcess[bytes]:
    """Run `docker …`; a process that needs no input gets none."""
    if shutil.which("docker") is None:
        raise SimError(
            "no docker command found: run scripts/docker_engine, which finds or installs an engine."
        )
    if data is None:
        return subprocess.run(["docker", *args], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return subprocess.run(["docker", *args], input=data, capture_output=True, check=False)


def inspect(kind: str, *names: str) -> list[dict[str, Any]]:
    """The descriptions of containers, networks or images; those that are not there are left out."""
    if not names:
        return []
    done = run([kind, "inspect", *names], None)
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return found


def has_image(reference: str) -> bool:
    """Whether the engine holds this image."""
    return succeeds("image", "inspect", reference)


def need_engine() -> None:
    """Stop with one sentence when no engine answers."""
    done = run(["version", "--format", "{{.Server.Version}}"], None)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise SimError(
            f"no Docker Engine answers ({reason[-1] if reason else 'no reason given'}); "
            "run scripts/docker_engine."
        )
