"""The collection as its users get it: built, installed, on the oldest and newest ansible-core."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without the checkout's own settings and return what it printed."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={**base, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as `ansible-galaxy collection build` makes it."""
    folder = tmp_path_factory.mktemp("build")
    built = run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder, cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("ascend-pd_rollout-*.tar.gz"))


@pytest.fixture(scope="session")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections folder with nothing but the tarball installed in it."""
    folder = tmp_path_factory.mktemp("collections")
    done = run(
        BIN / "ansible-galaxy",
        "collection",
        "install",
        tarball,
        "--offline",
        "--no-deps",
        "--collections-path",
        folder,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Where the PyPI package `ansible` keeps community.docker."""
    import ansible_collections.community.docker as docker

    return Path(next(iter(docker.__path__))).parents[2]


@pytest.fixture(scope="session")
def oldest_bin() -> Path:
    """The commands of the oldest supported ansible-core, in an environment of its own."""
    venv = ROOT / ".cache" / "ansible-oldest"
    wanted = (ROOT / "requirements-oldest.txt").read_text(encoding="utf-8")
    stamp = venv / "requirements.txt"
    venv.parent.mkdir(exist_ok=True)
    with venv.with_suffix(".lock").open("w") as lock:
        # Workers of one test run share it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            made = run(sys.executable, "-m", "venv", "--clear", venv, cwd=ROOT)
            assert made.returncode == 0, made.stderr
            done = run(venv / "bin" / "pip", "install", "-q", "-r", "requirements-oldest.txt", cwd=ROOT)
            assert done.returncode == 0, done.stdout + done.stderr
            stamp.write_text(wanted, encoding="utf-8")
    return venv / "bin"
