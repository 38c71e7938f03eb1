# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What `pd-guard status` prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .memory import STATUS

# Events that are printed.
LAST = 10


def found(run: Path = Path("/run")) -> list[Mapping[str, Any]]:
    """Return the statuses of all guards of this server."""
    rows = []
    for path in sorted(run.glob(f"*-guard/{STATUS}")):
        try:
            rows.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return rows


def wrong(status: Mapping[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    rows = [f"{name}: {node['gave_up']}" for name, node in status["nodes"].items() if node["given_up"]]
    rows += [
        f"{name} is {node['state']}: {node['why']}" if node["why"] else f"{name} is {node['state']}"
        for name, node in status["nodes"].items()
        if not node["given_up"] and (node["state"] != "up" or node["why"])
    ]
    if status["docker"]:
        rows.append(status["docker"])
    rows += [f"{host} is {state}" for host, state in status["servers"].items() if state != "fresh"]
    lists = status["lists"]
    if lists:
        if lists["closed"]:
            rows.append(f"the front answers 503: {lists['closed']}")
        rows += [f"{name} is out of the list: {one['why']}" for name, one in lists["out"].items()]
        rows += [
            f"{name} stays listed, as the last of its role: {why}" for name, why in lists["failing"].items()
        ]
    return rows


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield a status for people."""
    yield f"deployment {status['deployment']} on {status['host']}"
    if status["locked"]:
        yield "  a rollout holds the lock: the guard does nothing"
    if status["drained"]:
        yield f"  the server is {status['drained']}: the guard leaves its engines as they are"
    for name, node in status["nodes"].items():
        rank = f", node {node['rank']}" if node["rank"] else ""
        starts = f", started {node['attempts']} times in a row" if node["attempts"] else ""
        why = f": {node['why']}" if node["why"] else ""
        yield f"  {name}{rank}  {node['state']}, generation {node['generation']}{starts}{why}"
    if status["lists"]:
        yield f"  the routers list {', '.join(status['lists']['listed']) or 'nothing that is known'}"
    problems = wrong(status)
    yield "  all is well" if not problems else "  not as it should be:"
    yield from (f"    - {problem}" for problem in problems)
    if status["events"]:
        yield "  last events:"
    for event in status["events"][-LAST:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(event["at"]))
        yield f"    {when}  {event['what']}"


def show(as_json: bool, statuses: list[Mapping[str, Any]] | None = None) -> int:
    """Print the statuses; return the exit status: 0 if all is well, 1 if not, 2 without a guard."""
    rows = found() if statuses is None else statuses
    if not rows:
        sys.stderr.write("No guard runs on this server.\n")
        return 2
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(line for status in rows for line in lines(status)) + "\n")
    return int(any(wrong(status) for status in rows))
