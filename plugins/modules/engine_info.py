#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: Look at engines while they start, and report when something changes
version_added: 0.1.0
description:
  - Reports for each container whether it runs, how often the Docker Engine has restarted it, how it ended,
    how far the
    engine in it has come by its own log, and whether its API answers.
  - A long poll. It returns when a state differs from what the caller knows, at once when a container is
    not running
    or everything is ready, and at the latest after O(hold).
  - Changes nothing, except with O(targets[].stop).
  - The action M(ascend.pd_rollout.engine_wait) calls it again and again.
author:
  - The ascend.pd_rollout authors
requirements:
  - Python 3.7 or later
attributes:
  check_mode:
    description: Can run in check mode and reports the same, as it only looks.
    support: full
  diff_mode:
    description: Shows differences when it changes something.
    support: none
options:
  targets:
    description: The containers to look at.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the container.
        type: str
        required: true
      health_url:
        description: Answers 200 when what runs in the container is ready. Without it the log decides.
        type: str
      health_expect:
        description: What the JSON answer of O(targets[].health_url) must hold.
        type: dict
        default: {}
      ranks:
        description:
          - The data-parallel ranks that have a server each in the container.
          - It is ready when all of them answer; its phase is that of the rank that is least far.
        type: list
        elements: dict
        default: []
        version_added: 0.2.0
        suboptions:
          rank:
            description: Number of the rank, as the log's lines begin with it.
            type: int
            required: true
          health_url:
            description: Answers 200 when the rank is ready.
            type: str
            required: true
      known:
        description: The RV(targets[].fingerprint) of the last report, empty at first.
        type: str
        default: ""
      baseline:
        description: Restarts that happened before the watch and do not count.
        type: int
      stop:
        description:
          - Stop the container when it has failed, so that the Docker Engine does not start it without end.
          - For one that the caller has started. What has served before is left to its restart policy.
        type: bool
        default: false
        version_added: 0.2.0
  hold:
    description: Seconds after which the report comes even if nothing changed.
    type: float
    default: 4
  settle:
    description: Seconds during which mere progress is collected, so that a fast log does not cause a
      report a line.
    type: float
    default: 1
  log_lines:
    description: Number of last log lines in a report.
    type: int
    default: 15
  docker_socket:
    description: Socket of the Docker Engine.
    type: path
    default: /var/run/docker.sock
"""

EXAMPLES = r"""
- name: Look at the decoder once
  ascend.pd_rollout.engine_info:
    targets:
      - name: pd-decode1
        health_url: http://192.0.0.3:8004/health
    hold: 0
"""

RETURN = r"""
targets:
  description: One entry for each of O(targets), in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the container.
      type: str
      returned: always
      sample: pd-decode1
    status:
      description: State of the container as the Docker Engine names it, or V(missing).
      type: str
      returned: always
      sample: running
    stopped:
      description: Whether it was stopped because of O(targets[].stop).
      type: bool
      returned: always
      version_added: 0.2.0
    failed:
      description: Whether it is not running, or has been restarted since the watch began.
      type: bool
      returned: always
    ready:
      description: Whether it is running and ready.
      type: bool
      returned: always
    exit_code:
      description: Exit code of the last process, V(null) while the first one runs.
      type: int
      returned: always
    oom_killed:
      description: Whether the kernel killed it for want of memory.
      type: bool
      returned: always
    error:
      description: What the Docker Engine says about a start that failed.
      type: str
      returned: always
    restart_count:
      description: Restarts by the Docker Engine since the container was started.
      type: int
      returned: always
    started_at:
      description: Time of the last start, by the server's clock.
      type: str
      returned: always
    phase:
      description: How far the engine is, or V(null) when the last lines of the log do not tell.
      type: str
      returned: always
      sample: loading shards
    done:
      description: Count within the phase.
      type: int
      returned: always
      sample: 43
    total:
      description: What RV(targets[].done) counts up to.
      type: int
      returned: always
      sample: 163
    rank:
      description: The rank that RV(targets[].phase) is of, where there are ranks that are not ready.
      type: int
      returned: always
      version_added: 0.2.0
      sample: 19
    ready_ranks:
      description: How many of O(targets[].ranks) answer.
      type: int
      returned: always
      version_added: 0.2.0
      sample: 12
    joined:
      description: Nodes of the group that have come and that are expected, when the log tells.
      type: list
      elements: int
      returned: always
      sample: [1, 2]
    health:
      description: What the health probe saw.
      type: str
      returned: always
      sample: connection refused
    reason:
      description: The line of the log that says why it failed.
      type: str
      returned: when it failed and the log tells
    log:
      description: The last lines of the log. After a restart those before it.
      type: list
      elements: str
      returned: always
    fingerprint:
      description: Differs when anything worth a report differs. Give it back as O(targets[].known).
      type: str
      returned: always
"""

import time
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.client import DockerApi, DockerError
from ..module_utils._serving.engine_log import (
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
from ..module_utils._serving.probe import probe

# Lines read to find the phase: the workers of one server together log less between two states.
SCAN_LINES = 400
POLL_SECONDS = 0.5
# An older Docker Engine takes the time of a start after it: a script that fails at once has said all by then.
START_LAG_SECONDS = 5


def observe_ranks(ranks, text, probe_health):
    """What is to be added to a report of a container with a server for each rank."""
    answers = {one["rank"]: probe_health(one["health_url"], {}) for one in ranks}
    late = [rank for rank, (ready, _seen) in answers.items() if not ready]
    found = {"ready": not late, "ready_ranks": len(ranks) - len(late), "phase": READY, "health": "ok"}
    if late:
        logs = by_rank(text, late)
        rank, least = slowest([(rank, progress(logs[rank]) or Progress(STARTING)) for rank in late])
        found.update(
            rank=rank, phase=least.phase, done=least.done, total=least.total, health=answers[rank][1]
        )
    return found


def observe(docker, target, log_lines, probe_health=probe):
    """One report of one container."""
    report = {
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
    # When it runs again it is the attempt before that tells why.
    again = restarted and state["Status"] == "running"
    window = {"until" if again else "since": report["started_at"]}
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


def stop_failed(docker, targets, reports):
    """Stop what has failed and would be started again, where the caller wants that."""
    for target, report in zip(targets, reports):
        if target.get("stop") and report["failed"] and report["status"] in ("running", "restarting"):
            # Where it cannot be stopped the report matters more.
            with suppress(DockerError):
                report["stopped"] = docker.stop(target["name"])


def watch(
    docker, targets, hold, settle, log_lines, probe_health=probe, clock=time.monotonic, sleep=time.sleep
):
    """Reports as soon as one is worth it: see DOCUMENTATION."""
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


def main():
    module = AnsibleModule(
        argument_spec={
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
        },
        supports_check_mode=True,
    )
    p = module.params
    try:
        reports = watch(DockerApi(p["docker_socket"]), p["targets"], p["hold"], p["settle"], p["log_lines"])
    except DockerError as error:
        module.fail_json(msg=f"Cannot watch the engines: {error}")
    module.exit_json(changed=False, targets=reports)


if __name__ == "__main__":
    main()
