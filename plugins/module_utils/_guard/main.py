# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The command pd-guard: `run CONFIG` is the service, `status [--json]` shows it, `canary` is its
helper, and `open CONFIG` opens a front that a guard has left closed."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Sequence

# Seconds for what the Docker Engine is asked: to stop a container, for which a rollout waits, and to look.
STOP, LOOK = 60.0, 10.0
USAGE = "usage: pd-guard status [--json]\n"


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A server's locale may lack what an engine has answered.
            stream.reconfigure(errors="backslashreplace")
    verb, *rest = list(sys.argv[1:] if words is None else words) or ["status"]
    if verb == "run" and len(rest) == 1:
        return _run(Path(rest[0]))
    if verb == "open" and len(rest) == 1:
        return _open(Path(rest[0]))
    if verb == "canary" and not rest:
        from . import canaries

        return canaries.ask()
    if verb == "status" and rest in ([], ["--json"]):
        from . import status

        return status.show(bool(rest))
    sys.stderr.write(USAGE)
    return 64


def _open(path: Path) -> int:
    """Open a front that a guard has closed which runs no more."""
    from .._docker.client import DockerApi
    from .._front.haproxy import HaproxyError
    from .config import read
    from .routers import Routers

    config = read(path)
    if config.keeps_list:
        try:
            Routers(config, DockerApi()).close("")
        except (HaproxyError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


def _run(path: Path) -> int:
    from .._docker.client import DockerApi
    from .config import read
    from .service import Service

    service = Service(read(path), DockerApi(timeout=STOP), DockerApi(timeout=LOOK))
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    service.run()
    return 0
