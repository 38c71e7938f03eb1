# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module engine_info: the progress of engines while they start."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Callable, Dict, Tuple

from .._docker.client import DockerApi, DockerError
from .engine_log import (
    READY,
    STARTING,
    Progress,
    by_rank,
    clients_joined,
    progress,
    reason,
    slowest,
    split_lines,
)
from .probe import probe

# Lines read to find the phase: the workers of one server together log less between two states.
ARGUMENTS = {
    "targets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "health_url": {"type": "str"},
            "health_expect": {"type": "dict", "default": {}},
            "ranks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "rank": {"type": "int", "required": True},
                    "health_url": {"type": "str", "required": True},
                },
            },
            "known": {"type": "str", "default": ""},
            "baseline": {"type": "int"},
            "stop": {"type": "bool", "default": False},
        },
    },
    "hold": {"type": "float", "default": 4},
    "settle": {"type": "float", "default": 1},
    "log_lines": {"type": "int", "default": 15},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}
SCAN_LINES = 400
POLL_SECONDS = 0.5
# An older Docker Engine records the time of a start late, when a script that fails at once has already ended.
START_LAG_SECONDS = 5


# A function that takes a health URL and the expected answer, and returns whether it is ready and what was
# seen. Evaluated at run time, so in the syntax of Python 3.7.
Probe = Callable[[str, Dict[str, Any]], Tuple[bool, str]]


def observe_ranks(ranks: Sequence[Mapping[str, Any]], text: str, probe_health: Probe) -> dict[str, Any]:
    """Return what the ranks add to the report of a container with a server for each rank.

    ranks: rank and health_url of each server.
    text: the container's log.
    probe_health: queries a health URL.
    """
    answers = {rank["rank"]: probe_health(rank["health_url"], {}) for rank in ranks}
    late = [rank for rank, (ready, _seen) in answers.items() if not ready]
    found: dict[str, Any] = {
        "ready": not late,
        "ready_ranks": len(ranks) - len(late),
        "phase": READY,
        "health": "ok",
    }
    if late:
        logs = by_rank(text, late)
        rank, least = slowest([(rank, progress(logs[rank]) or Progress(STARTING)) for rank in late])
        found.update(
            rank=rank, phase=least.phase, done=least.done, total=least.total, health=answers[rank][1]
        )
    return found


def observe(
    docker: DockerApi, target: Mapping[str, Any], log_lines: int, probe_health: Probe = probe
) -> dict[str, Any]:
    """Return the report of one container.

    docker: the Docker Engine.
    target: the container, as in the module's option ``targets``.
    log_lines: number of last log lines in the report.
    probe_health: queries a health URL.

    Raises DockerError.
    """
    report: dict[str, Any] = {
        "name": target["name"],
        "status": "missing",
        "stopped": False,
        "failed": True,
        "ready": False,
        "exit_code": None,
        "oom_killed": False,
        "error": "",
        "restart_count": 0,
        "started_at": None,
        "phase": None,
        "done": None,
        "total": None,
        "rank": None,
        "ready_ranks": 0,
        "joined": None,
        "health": "",
        "log": [],
        "fingerprint": "missing",
    }
    container = docker.inspect(target["name"])
    if container is None:
        return report
    state = container["State"]
    restarts = container.get("RestartCount", 0)
    baseline = target.get("baseline")
    restarted = baseline is not None and restarts > baseline
    report.update(
        status=state["Status"],
        failed=state["Status"] != "running" or restarted,
        exit_code=state["ExitCode"] if state["Status"] != "running" or restarts else None,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        restart_count=restarts,
        started_at=state.get("StartedAt"),
    )
    # If it is running again, the previous attempt shows the cause.
    again = restarted and state["Status"] == "running"
    window: dict[str, Any] = {"until" if again else "since": report["started_at"]}
    if report["failed"] and not again:
        window["early"] = START_LAG_SECONDS
    ranks = target.get("ranks") or []
    text = docker.logs(target["name"], SCAN_LINES * max(1, len(ranks)), **window)
    report["log"] = split_lines(text)[-log_lines:]
    report["joined"] = clients_joined(text)
    latest = progress(text)
    if latest:
        report.update(phase=latest.phase, done=latest.done, total=latest.total)
    if report["failed"]:
        report["reason"] = reason(text)
    elif ranks:
        report.update(observe_ranks(ranks, text, probe_health))
    elif target.get("health_url"):
        report["ready"], report["health"] = probe_health(
            target["health_url"], target.get("health_expect") or {}
        )
    else:
        report["ready"] = report["phase"] == READY
    report["fingerprint"] = "|".join(
        str(report[key])
        for key in (
            *("status", "ready", "restart_count", "phase", "done", "total", "rank", "ready_ranks", "joined"),
        )
    )
    return report


def stop_failed(
    docker: DockerApi, targets: Sequence[Mapping[str, Any]], reports: Sequence[dict[str, Any]]
) -> None:
    """Stop failed containers that would be restarted, if their target has ``stop``; update their reports."""
    for target, report in zip(targets, reports):
        if target.get("stop") and report["failed"] and report["status"] in ("running", "restarting"):
            # If it cannot be stopped, the report is still more important.
            with suppress(DockerError):
                report["stopped"] = docker.stop(target["name"])


def watch(
    docker: DockerApi,
    targets: Sequence[Mapping[str, Any]],
    hold: float,
    settle: float,
    log_lines: int,
    probe_health: Probe = probe,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Return the reports of all containers as soon as one is worth it, as the module's documentation says.

    docker: the Docker Engine.
    targets: the containers.
    hold: seconds after which it reports in any case.
    settle: seconds during which mere progress is collected.
    log_lines: number of last log lines in a report.
    probe_health, clock, sleep: replaced in tests.

    Raises DockerError.
    """
    begin = clock()
    known = {target["name"]: target.get("known", "") for target in targets}
    while True:
        reports = [observe(docker, target, log_lines, probe_health) for target in targets]
        stop_failed(docker, targets, reports)
        elapsed = clock() - begin
        changed = any(report["fingerprint"] != known[report["name"]] for report in reports)
        if any(r["failed"] for r in reports) or all(r["ready"] for r in reports):
            return reports
        if elapsed >= hold or (changed and elapsed >= settle):
            return reports
        sleep(min(POLL_SECONDS, max(hold - elapsed, 0.01)))


def info(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails."""
    docker = DockerApi(options["docker_socket"])
    try:
        reports = watch(docker, options["targets"], options["hold"], options["settle"], options["log_lines"])
    except DockerError as error:
        return error.failure("The engines cannot be watched.")
    return {"changed": False, "targets": reports}
