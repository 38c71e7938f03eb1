# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Two rollouts at once: the second hears who is at work and since when, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SERVERS = ("prefill1", "prefill2", "decode1")
LOCK = "/run/pd_rollout.lock"
# The stages that every run has, and no more.
DEPLOY = ("playbooks/deploy_1p1d.yml", "--tags", "plan")
BOB = {
    "run": "another",
    "user": "bob",
    "controller": "control2",
    "machine": "another",
    "pid": 4711,
    "deployment": "pd",
}


@pytest.fixture
def held(server):
    """The lock of the decoder's server is another run's, since so many seconds, and silent for so many."""

    def hold(seconds: int, silent: int | None = 0) -> None:
        since = int(server("decode1").check_output("date +%s")) - seconds
        server("decode1").check_output("printf %s > %s", json.dumps({**BOB, "since": since}), LOCK)
        touched = 0 if silent is None else since + seconds - silent
        server("decode1").check_output("touch -d %s %s", f"@{touched}", LOCK)

    yield hold
    server("decode1").check_output(f"rm -f {LOCK}")


def locked(server) -> list[str]:
    return [name for name in SERVERS if server(name).file(LOCK).exists]


def told(done) -> str:
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_the_second_rollout_hears_of_the_first(play, held, server, tmp_path):
    held(185)
    done = play(*DEPLOY, "-e", f"pd_plan_dir={tmp_path / 'plan'}")
    assert done.returncode != 0
    assert "bob on control2 (process 4711) has been rolling out pd on decode1 since" in told(done)
    assert re.search(r"lock-held decode1 .* for [3-9] min \d+ s ", told(done))
    assert "after 5 min 0 s without one the lock can be taken over" in told(done)
    assert "TASK [Release the lock]" not in done.stdout, "it goes no further"
    assert locked(server) == ["decode1"], "what it had locked itself is free again"
    assert not (tmp_path / "plan").exists(), "the files are those of the rollout that goes on"

    stop = play("playbooks/stop.yml")
    assert stop.returncode != 0
    assert "bob on control2 (process 4711) has been rolling out pd on decode1 since" in told(stop)
    assert "pd-decoder" in server("decode1").check_output("docker ps --format '{{.Names}}'")

    forced = play(*DEPLOY, "--extra-vars", "deploy_lock_force=true")
    assert forced.returncode == 0, told(forced)
    assert "is taken over: deploy_lock_force is set" in told(forced)
    assert locked(server) == []


@pytest.mark.parametrize(
    ("silent", "why"),
    [(None, r"it is 24 h \d min old"), (7200, r"its last sign of life was 2 h \d min ago")],
    ids=["old", "silent"],
)
def test_a_lock_that_was_left_behind_is_taken_over(play, held, server, silent, why):
    held(86400, silent)
    done = play(*DEPLOY)
    assert done.returncode == 0, told(done)
    taken = re.escape("decode1: the lock of bob on control2 (process 4711) is taken over: ")
    assert re.search(taken + why, told(done)), told(done)
    assert locked(server) == []


def given_back(server) -> None:
    """Wait until no server is locked."""
    until = time.monotonic() + 120
    while names := locked(server):
        assert time.monotonic() < until, f"still locked: {names}"
        time.sleep(0.5)


def test_a_run_that_fails_gives_its_locks_back(play, server):
    done = play("playbooks/deploy_1p1d.yml", "--tags", "image", "-e", "docker_image_digest=nonsense")
    assert done.returncode != 0
    assert "docker_image_digest is no digest" in told(done)
    assert "TASK [Release the lock]" not in done.stdout, "the run itself did not"
    given_back(server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_run_that_is_ended_in_the_middle_gives_its_locks_back(inventory, server, number):
    command = [".venv/bin/ansible-playbook", "--inventory", str(inventory), "playbooks/deploy_1p1d.yml"]
    run = subprocess.Popen(
        [*command, "--tags", "check"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Signs of life come as soon as somebody is there to give the lock back. All servers are asked at once:
    # the run might be over before the last of them had its turn.
    alive = f"timeout 120 sh -c 'until test $(stat -c %Y {LOCK} || echo 0) -gt 0; do sleep 0.1; done' 2>&1"
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        list(pool.map(lambda name: server(name).check_output(alive), SERVERS))
    os.killpg(run.pid, number)
    run.wait()
    given_back(server)
