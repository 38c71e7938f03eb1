"""Runs of ansible-playbook, and what they say about themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TASK_START = "v2_playbook_on_task_start"


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook. Seconds of wall clock and of controller CPU, with ssh and all workers."""

    wall: float
    cpu: float
    #: Largest resident size of the main process, in MB.
    rss: float
    returncode: int
    events: list[dict[str, Any]]
    #: Commands that were run over ssh, by the task's name; only where the run was asked to count them.
    trips: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return sum(
            host["changed"]
            for event in self.named("v2_playbook_on_stats")
            for host in event["stats"].values()
        )

    @property
    def tasks_per_host(self) -> int:
        """The largest number of tasks that any one host ran (skipped ones not counted)."""
        ran = Counter(host for event in self.named("v2_runner_on_ok") for host in event["hosts"])
        return max(ran.values(), default=0)

    def named(self, name: str) -> Iterator[dict[str, Any]]:
        return (event for event in self.events if event.get("_event") == name)

    def finished(self) -> Iterator[dict[str, Any]]:
        """Results of tasks, good and bad."""
        return (event for event in self.events if event.get("_event", "").startswith("v2_runner_on_"))

    def results(self, task: str) -> dict[str, dict[str, Any]]:
        """What each host answered to the task of this name."""
        return {
            host: result
            for event in self.finished()
            if event["task"]["name"].endswith(task)
            for host, result in event["hosts"].items()
        }

    def seconds(self, task: str) -> list[float]:
        """How long the task of this name took until its last host was done, each time that it ran."""
        longest: dict[str, float] = {}
        for event in self.finished():
            if event["task"]["name"].endswith(task):
                name = event["task"]["id"]
                longest[name] = max(_took(event["task"]), longest.get(name, 0.0))
        return list(longest.values())

    def slowest(self, count: int) -> list[tuple[str, float]]:
        """Tasks by their longest host, in seconds."""
        longest: dict[str, float] = {}
        for event in self.named("v2_runner_on_ok"):
            task = event["task"]
            longest[task["name"]] = max(_took(task), longest.get(task["name"], 0.0))
        return sorted(longest.items(), key=lambda row: -row[1])[:count]

    def engines_start_up(self) -> float:
        """Seconds that the slowest engine needed to be ready, as engine_wait reports them."""
        waits = [
            seconds
            for event in self.named("v2_runner_on_ok")
            for host in event["hosts"].values()
            if isinstance(host.get("seconds"), dict)
            for title, seconds in host["seconds"].items()
            if title != "proxy"
        ]
        return max(waits, default=0.0)


def _took(task: dict[str, Any]) -> float:
    return _moment(task["duration"]["end"]) - _moment(task["duration"]["start"])


def _moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def playbook(*argv: str, root: Path = ROOT, count_trips: bool = False, ok: tuple[int, ...] = (0,)) -> Run:
    """Run a playbook and read its events back. Other exit codes than `ok` are shown with what was printed.

    count_trips: count the commands over ssh too, which needs Ansible to be verbose and is a little slower.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(BIN / "ansible-playbook"), *argv, *(["-vvv"] if count_trips else [])],
        cwd=root,
        env={
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    printed: list[str] = []
    drain = threading.Thread(target=lambda: printed.extend(process.stderr or ()), daemon=True)
    drain.start()
    lines = list(process.stdout)
    # As subprocess does not say what a child used, wait for this very one.
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # A persistent ssh connection may hold stderr open for minutes after the run.
    drain.join(timeout=1)
    run = Run(
        time.perf_counter() - began,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024,
        process.returncode,
        [json.loads(line) for line in lines if line.startswith('{"_event"')],
        _trips(lines) if count_trips else {},
    )
    if run.returncode not in ok:
        print("".join(lines)[-2000:], "".join(printed)[-2000:], file=sys.stderr)
    return run


def _trips(lines: list[str]) -> dict[str, Counter[str]]:
    """Commands over ssh by task and host, from what `-vvv` prints between the starts of two tasks."""
    trips: dict[str, Counter[str]] = {}
    task = ""
    for line in lines:
        if line.startswith('{"_event"'):
            event = json.loads(line)
            if event["_event"] == TASK_START:
                task = event["task"]["name"]
        elif "> SSH: EXEC" in line:
            trips.setdefault(task, Counter())[line[1 : line.index(">")]] += 1
    return trips


def simulator(*command: str) -> None:
    """Run the simulator's command; what it prints goes to the screen only where it fails."""
    done = subprocess.run(
        [str(BIN / "python"), "simulator/sim", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"simulator/sim {' '.join(command)}:\n{done.stdout}{done.stderr}")
