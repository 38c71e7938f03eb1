"""The collection as its users get it: built, installed, on the oldest and newest ansible-core."""

from __future__ import annotations

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


def environment(name: str) -> Path:
    """The commands of an environment with another ansible-core."""
    made = run(sys.executable, ROOT / "scripts" / "environments.py", name, cwd=ROOT)
    assert made.returncode == 0, made.stdout + made.stderr
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def oldest_bin() -> Path:
    """The commands of the oldest ansible-core that is supported."""
    return environment("oldest")


@pytest.fixture(scope="session")
def newest_bin() -> Path:
    """The commands of the newest ansible-core that a Python of this machine runs."""
    return environment("newest")
