# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that deployed containers run and answer.

Nothing is said of what was never deployed there: without a container and without a launch script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .._findings import Finding
from .._serving import nodes
from .._serving.engine_log import READY, progress, reason, split_lines
from .._serving.probe import probe
from .catalogue import HOST_CHECKS

DEPLOYMENT = "pd_rollout.deployment"
# Lines of a log that are read, for each server in the container.
LOG_LINES = 400


def findings(wants: Mapping[str, Any], docker: DockerApi, ask: Callable[..., Any] = probe) -> list[Finding]:
    """Return findings about deployed containers that do not serve.

    ``wants``: the plan's requirements for this server; ``ask``: the function that makes a health check.
    """
    serving = wants.get("serving") or []
    try:
        listed = docker.containers({DEPLOYMENT: wants["deployment"]}) if serving else []
        found = {one["Names"][0].lstrip("/"): one for one in listed}
        return [
            finding for one in serving for finding in judge(docker, one, found.get(one["container"]), ask)
        ]
    except DockerError as error:
        return [stopped(one, f"the Docker Engine does not answer: {error}") for one in serving if laid(one)]


def laid(one: Mapping[str, Any]) -> bool:
    """Return whether a rollout has written the launch script on this server."""
    try:
        return Path(one["script_path"]).is_file()
    except OSError:
        return False


def judge(
    docker: DockerApi, one: Mapping[str, Any], container: Mapping[str, Any] | None, ask: Callable[..., Any]
) -> Iterable[Finding]:
    """Yield at most one finding about a planned container.

    ``one``: the container and its health check, as planned; ``container``: as the Docker Engine lists it, or
    None; ``ask``: the function that makes a health check.
    """
    if container is None:
        if laid(one):
            yield stopped(one, "no container, only its launch script")
        return
    details = docker.inspect(one["container"])
    if details is None or details["State"]["Status"] != "running":
        yield stopped(one, how_it_ended(docker, one, details))
        return
    apart = nodes.left_group(details, nodes.read_record(one)) if one["group"] else ""
    if apart:
        yield HOST_CHECKS.finding(
            "host-deployed-apart",
            f"{one['title']} was started without the other nodes of its instance",
            instance=one["instance"],
            seen=apart,
        )
        return
    silent = unanswered(one, ask)
    if silent:
        yield HOST_CHECKS.finding(
            "host-deployed-silent",
            f"{one['title']} runs but does not answer correctly",
            instance=one["instance"],
            seen=f"{'; '.join(silent)}{how_far(docker, one, details)}",
            container=one["container"],
        )


def stopped(one: Mapping[str, Any], seen: str) -> Finding:
    return HOST_CHECKS.finding(
        "host-deployed-stopped",
        f"{one['title']} is not running",
        instance=one["instance"],
        seen=seen,
        container=one["container"],
    )


def how_it_ended(docker: DockerApi, one: Mapping[str, Any], details: Mapping[str, Any] | None) -> str:
    if details is None:
        return "its container has just been removed"
    state = details["State"]
    text = f"container {state['Status']}, exit code {state['ExitCode']}"
    if state.get("OOMKilled"):
        text += ", killed because it ran out of memory"
    if not str(state.get("FinishedAt") or "0001").startswith("0001"):
        text += f", ended {state['FinishedAt'][:19]}Z"
    told = state.get("Error") or reason(docker.logs(one["container"], LOG_LINES, since=state["StartedAt"]))
    return f"{text}: {told}" if told else text


def unanswered(one: Mapping[str, Any], ask: Callable[..., Any]) -> list[str]:
    """Return the health checks that fail, of one API server or of several ranks, each with its answer."""
    urls = [rank["health_url"] for rank in one["ranks"]] or [one["health_url"]] * bool(one["health_url"])
    if not urls:
        return []
    with ThreadPoolExecutor(len(urls)) as pool:
        answers = list(pool.map(lambda url: ask(url, one["expect"]), urls))
    failed = [f"{url} {seen}" for url, (ready, seen) in zip(urls, answers) if not ready]
    more = [f"and {len(failed) - 3} more of {len(urls)} ranks"] if len(failed) > 3 else []
    return failed[:3] + more


def how_far(docker: DockerApi, one: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Return the progress of a start from the container's log, and the number of restarts; may be empty."""
    text = docker.logs(
        one["container"], LOG_LINES * max(1, len(one["ranks"])), since=details["State"]["StartedAt"]
    )
    latest = progress(text)
    words = ""
    if latest is not None and latest.phase != READY:
        words = f"; still starting: {latest.text}"
    elif not split_lines(text):
        words = "; its log is empty"
    restarts = details.get("RestartCount") or 0
    if restarts:
        words += f"; the Docker Engine has restarted it ({restarts} time{'s' * (restarts > 1)})"
    return words
