"""What the tests of the fan-out share: runs of the role, and the state of a transfer on a server."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

CONVERGE = "molecule/weights_fan_out/converge.yml"
MODEL = "/srv/models/deepseek"
STAGING = "/srv/models/.deepseek.incoming"
#: MB/s at which a fault can be put into the middle of a transfer of 24 MB: after 60 % of it, ten seconds are
#: left to see that and to log in.
SLOW = {"model_weights_bandwidth": 1, "model_weights_patience": 10}
PATIENCE = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended and what it said."""

    good: bool
    output: str

    @property
    def codes(self) -> list[str]:
        """The codes of all findings, host after host."""
        return re.findall(r"^[ -]*code: ([\w-]+)$", self.output, re.MULTILINE)


Run = Callable[..., Outcome]


@pytest.fixture
def run(play) -> Run:
    """`run(model_weights_bandwidth=4)`: the role on all servers."""

    def run_role(*arguments: str, **variables) -> Outcome:
        done: subprocess.CompletedProcess[str] = play(
            CONVERGE, "--extra-vars", json.dumps(variables), *arguments
        )
        return Outcome(done.returncode == 0, done.stdout + done.stderr)

    return run_role


@pytest.fixture
def during(run) -> Callable[..., Outcome]:
    """`during(host, megabytes, fault)`: run the role, and call `fault` when that much has come to `host`."""

    def run_and_disturb(host, megabytes: float, fault: Callable[[], object]) -> Outcome:
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(run(**SLOW)))
        thread.start()
        end = time.monotonic() + PATIENCE
        while int(host.run(f"du -sb {STAGING} 2>/dev/null | cut -f1").stdout or 0) < megabytes * 1e6:
            assert thread.is_alive(), outcomes[0].output
            assert time.monotonic() < end, "the transfer has not come that far"
            time.sleep(0.1)
        fault()
        thread.join()
        return outcomes[0]

    return run_and_disturb


@pytest.fixture
def lacking(server) -> Callable[..., None]:
    """`lacking("fan2")`: take the weights away from servers."""

    def remove(*names: str) -> None:
        for name in names:
            server(name).check_output(f"rm -rf {MODEL} {STAGING}")

    return remove
