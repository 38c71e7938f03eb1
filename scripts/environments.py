#!/usr/bin/env python3
"""Virtual environments with other releases of ansible-core than .venv has.

`environments.py oldest` makes .cache/ansible-oldest from requirements-oldest.txt, if it is not there, and
prints the folder of its commands; `newest` likewise. The newest ansible-core needs a newer Python than the
others do: where this machine has none, `newest` is .venv itself.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
NAMES = ("oldest", "newest")
# The Python of a controller with ansible-core 2.21 (docs/versions.md).
NEWEST_NEEDS = (3, 12)
Version = tuple[int, int]


@cache
def pythons() -> dict[Version, Path]:
    """The interpreters of this machine by their version: on the path, and those of pyenv."""
    found: dict[Version, Path] = {sys.version_info[:2]: Path(sys.executable)}
    for path in _candidates():
        # A name on the path may be a stand-in for one that is not there.
        command: list[str | Path] = [path, "-c", "import sys; print(*sys.version_info[:2])"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            major, minor = done.stdout.split()
            found.setdefault((int(major), int(minor)), path)
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
    """Files that are called python3.X."""
    folders = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += sorted(pyenv.glob("versions/*/bin"))
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            if re.fullmatch(r"python3\.\d+", path.name):
                yield path


def environment(name: str) -> Path:
    """The folder with the commands of an environment, which is made if it is not there.

    name: `oldest` or `newest`.
    Raises SystemExit with what was printed if it cannot be made.
    """
    # Whatever Python runs this.
    interpreter = (ROOT / ".venv" / "bin" / "python").resolve()
    if name == "newest":
        version = max(pythons())
        if version < NEWEST_NEEDS:
            return ROOT / ".venv" / "bin"
        interpreter = pythons()[version].resolve()
    requirements = ROOT / f"requirements-{name}.txt"
    wanted = f"{interpreter}\n{requirements.read_text(encoding='utf-8')}"
    folder = CACHE / f"ansible-{name}"
    stamp = folder / "made-from"
    CACHE.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # Test workers share it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            make(folder, interpreter, requirements)
            stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def make(folder: Path, interpreter: Path, requirements: Path) -> None:
    """Make an environment, by uv or, where scripts/venv could not have it, by pip."""
    uv = ROOT / "scripts" / "uv"
    python = folder / "bin" / "python"
    if (ROOT / ".venv" / "bin" / "uv").exists():
        run(uv, "venv", "--quiet", "--clear", "--python", interpreter, folder)
        run(uv, "pip", "install", "--quiet", "--python", python, "--requirement", requirements)
    else:
        run(interpreter, "-m", "venv", "--clear", folder)
        run(python, "-m", "pip", "install", "--quiet", "--requirement", requirements)


def run(*command: str | Path) -> None:
    """Run a command; what it prints is shown only if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(str(word) for word in command)}\n{done.stdout[-3000:]}")


def main() -> int:
    """Make one and print where its commands are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    print(environment(parser.parse_args().name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
