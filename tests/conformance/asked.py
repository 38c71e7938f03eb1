"""Questions to the real engine of this environment's release, all in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from .conftest import ROOT, source


def ask(requests: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The answers of real_engine.py, by the request as JSON; each different request is asked once."""
    lines = list(dict.fromkeys(map(key, requests)))
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "conformance" / "real_engine.py"),
            "--vllm",
            str(source()),
            "--ascend",
            os.environ["PD_CONFORMANCE_ASCEND"],
        ],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(lines, answers, strict=True))


def key(request: dict[str, Any]) -> str:
    """A request as the line that is sent."""
    return json.dumps(request, sort_keys=True)
