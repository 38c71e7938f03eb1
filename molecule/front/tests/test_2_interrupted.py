# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""A change of the router that is interrupted fails no request, and the next run completes it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import ROOT
from load import ANSWER_TIMEOUT, Broken, Connection, Load

# From the start of the new router to the removal of the old one. A run is killed when it comes to the task.
POINTS = [
    "Run the containers of the plan",
    "Wait until the proxy reports its backends",
    "Send a completion and a chat completion through the new router",
    "Run the front, and have the planned router get the requests",
    "Wait until the replaced routers have answered their last requests",
    "Remove the replaced routers",
]


@contextmanager
def running(site, *arguments):
    """A deployment that goes on, in a process group of its own; its output is read as it comes."""
    with subprocess.Popen(
        site.command(*arguments),
        cwd=ROOT,
        env={**site.environment(), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)


def come_to(run, task: str) -> str:
    """Read the output until a task begins; return it."""
    told = ""
    for line in run.stdout:
        told += line
        if re.match(rf"TASK \[.*{re.escape(task)}\]", line):
            return told
    raise AssertionError(f"it did not come to {task!r}:\n{told}")


def unlocked(site) -> None:
    """Wait until a killed run's lock is given back."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while any(site.server(name).file("/run/pd_rollout.lock").exists for name in site.names):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("unguarded")
def test_a_run_that_is_killed_is_completed_by_the_next(changing, under_load):
    before = changing.active()
    changing.set(pd_router_args={"log-level": "warning"})
    with under_load() as load:
        for point in POINTS:
            with running(changing, "--tags", "proxy") as run:
                come_to(run, point)
                os.killpg(run.pid, signal.SIGKILL)
            unlocked(changing)
            load.answered(8)
        changing.deploy("--tags", "proxy")
    assert changing.active() != before
    assert len(changing.routers()) == 2


def test_who_is_left_when_the_time_is_up_is_said(changing, front, sim):
    """What ends in time is complete; the one answer that takes minutes is a broken stream."""
    # The router has its options of before again.
    changing.set(pd_drain_timeout=3)
    result = []

    async def long():
        connection = Connection(front)
        body = {"model": front.model, "prompt": "a", "max_tokens": 4000, "stream": True, "ignore_eos": True}
        try:
            result.append(await connection.ask("/v1/completions", body))
        except (Broken, OSError) as error:
            result.append(error)
        connection.close()

    client = threading.Thread(target=lambda: asyncio.run(long()), daemon=True)
    for name in changing.names:
        sim("fault", name, "engine_slow", "factor=8")
    try:
        with (
            Load(front, 4, tokens=20) as load,
            running(changing, "--tags", "proxy", "-e", "front_stop_timeout=2") as run,
        ):
            load.answered(8)
            told = come_to(run, "Send a completion and a chat completion through the new router")
            client.start()
            told += run.stdout.read()
            assert run.wait() == 0, told
            client.join(ANSWER_TIMEOUT)
            load.answered(8)
    finally:
        for name in changing.names:
            sim("heal", name)
    assert not load.result.failed, load.result
    assert "1 request still ran through the replaced router after 3 s, and will be cut" in told
    assert not client.is_alive()
    assert isinstance(result[0], Broken), result
