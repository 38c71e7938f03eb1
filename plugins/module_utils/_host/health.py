# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that deployed containers run and answer.

Nothing is said of what was never deployed there: without a container and without a launch script. Of a server
that is drained it is said, and nothing else of its engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._docker.client import DockerApi, DockerError
from .._findings import Finding
from .._front import files
from .._serving import nodes, running
from .._serving.engine_log import READY, progress, reason, split_lines
from .._serving.probe import probe
from .catalogue import HOST_CHECKS
from .requirements import HostRequirements, PlannedContainer

DEPLOYMENT = "pd_rollout.deployment"
# Lines of a log that are read, for each server in the container.
LOG_LINES = 400


def findings(
    requirements: HostRequirements, docker: DockerApi, ask: Callable[..., Any] = probe
) -> list[Finding]:
    """Return findings about deployed containers that do not serve.

    ``requirements``: the plan's for this server; ``docker``: its Docker Engine; ``ask``: the function that
    makes a health check.
    """
    mark = running.drained(requirements.directory)
    serving = [planned for planned in _expected(requirements) if not mark or planned.instance is None]
    said = [drained(requirements, mark)] if mark else []
    try:
        listed = docker.containers({DEPLOYMENT: requirements.deployment}) if serving else []
        existing = {running.name_of(entry) for entry in listed}
        return said + [
            finding
            for planned in serving
            for finding in judge(docker, planned, planned.container in existing, ask)
        ]
    except DockerError as error:
        seen = f"the Docker Engine does not answer: {error}"
        return said + [stopped(planned, seen) for planned in serving if is_deployed(planned)]


def _expected(requirements: HostRequirements) -> list[PlannedContainer]:
    """Return what must run: of the two routers behind a front only the one that gets the requests."""
    active = _active(requirements)
    return [planned for planned in requirements.serving if planned.colour in (None, active)]


def _active(requirements: HostRequirements) -> str:
    front = requirements.front
    return (files.active(Path(front.directory)) if front else None) or files.COLOURS[0]


def drained(requirements: HostRequirements, mark: str) -> Finding:
    """Return the finding about a server out of service; ``mark``: from ``running.drained``."""
    return HOST_CHECKS.finding(
        "host-drained",
        "the server is drained",
        host=requirements.name or None,
        seen="its engines were to stop too" if mark == "stopped" else "its engines may go on running",
    )


def router_lists(
    requirements: HostRequirements, docker: DockerApi, ask: Callable[..., Any] = probe
) -> dict[str, list[str]] | None:
    """Return the APIs that the router of this server was started with, by role.

    None if none runs here, or if it answers with another list. What a change leaves out, such as the
    instances of drained servers, is not in it. Arguments: as of ``findings``.
    """
    router = next((planned for planned in _expected(requirements) if planned.instance is None), None)
    if router is None:
        return None
    try:
        found = docker.containers({DEPLOYMENT: requirements.deployment})
    except DockerError:
        return None
    active = {"active": _active(requirements)} if router.colour else None
    lists = running.lists(found, active)
    if lists is None or failed_checks(replace(router, expect=_answer(router.expect, lists)), ask):
        return None
    return lists


def _answer(expect: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return how a router's health check answers with other lists; ``expect``: with the planned ones.

    The upstream script answers with numbers, vllm-router with URLs.
    """
    found: dict[str, Any] = {}
    for key, value in expect.items():
        apis = lists["prefillers" if key.startswith("prefill") else "decoders"]
        found[key] = len(apis) if isinstance(value, int) else [f"http://{api}" for api in apis]
    return found


def is_deployed(planned: PlannedContainer) -> bool:
    """Return whether a rollout has written the launch script on this server."""
    try:
        return Path(planned.script_path).is_file()
    except OSError:
        return False


def judge(
    docker: DockerApi, planned: PlannedContainer, exists: bool, ask: Callable[..., Any]
) -> Iterable[Finding]:
    """Yield at most one finding about a planned container.

    ``docker``: the Docker Engine; ``planned``: the container and its health check; ``exists``: whether the
    Docker Engine lists it; ``ask``: the function that makes a health check. Raises DockerError.
    """
    if not exists:
        if is_deployed(planned):
            yield stopped(planned, "no container, only its launch script")
        return
    details = docker.inspect(planned.container)
    if details is None or details["State"]["Status"] != "running":
        yield stopped(planned, how_it_ended(docker, planned, details))
        return
    record = nodes.read_record({"script_path": planned.script_path}) if planned.group else None
    apart = nodes.left_group(details, record) if planned.group else ""
    if apart:
        yield HOST_CHECKS.finding(
            "host-deployed-apart",
            f"{planned.title} was started without the other nodes of its instance",
            instance=planned.instance,
            seen=apart,
        )
        return
    failed = failed_checks(planned, ask)
    if failed:
        yield HOST_CHECKS.finding(
            "host-deployed-silent",
            f"{planned.title} runs but does not answer correctly",
            instance=planned.instance,
            seen=f"{'; '.join(failed)}{start_progress(docker, planned, details)}",
            container=planned.container,
        )


def stopped(planned: PlannedContainer, seen: str) -> Finding:
    """Return the finding about a container that is not running; ``seen``: what is known about its end."""
    return HOST_CHECKS.finding(
        "host-deployed-stopped",
        f"{planned.title} is not running",
        instance=planned.instance,
        seen=seen,
        container=planned.container,
    )


def how_it_ended(docker: DockerApi, planned: PlannedContainer, details: Mapping[str, Any] | None) -> str:
    """Return how a container ended, with the reason from the Docker Engine or from its log.

    ``details``: its data from the Docker Engine, None if it is gone. Raises DockerError.
    """
    if details is None:
        return "its container has just been removed"
    state = details["State"]
    text = f"container {state['Status']}, exit code {state['ExitCode']}"
    if state.get("OOMKilled"):
        text += ", killed because it ran out of memory"
    if not str(state.get("FinishedAt") or "0001").startswith("0001"):
        text += f", ended {state['FinishedAt'][:19]}Z"
    cause = state.get("Error") or reason(docker.logs(planned.container, LOG_LINES, since=state["StartedAt"]))
    return f"{text}: {cause}" if cause else text


def failed_checks(planned: PlannedContainer, ask: Callable[..., Any]) -> list[str]:
    """Return the health checks that fail, of one API server or of several ranks, each with its answer."""
    urls = planned.health_urls
    if not urls:
        return []
    with ThreadPoolExecutor(len(urls)) as pool:
        answers = list(pool.map(lambda url: ask(url, planned.expect), urls))
    failed = [f"{url} {seen}" for url, (ready, seen) in zip(urls, answers) if not ready]
    more = [f"and {len(failed) - 3} more of {len(urls)} ranks"] if len(failed) > 3 else []
    return failed[:3] + more


def start_progress(docker: DockerApi, planned: PlannedContainer, details: Mapping[str, Any]) -> str:
    """Return the progress of a start from the container's log, and the number of restarts; may be empty.

    ``details``: the container's data from the Docker Engine. Raises DockerError.
    """
    text = docker.logs(
        planned.container, LOG_LINES * max(1, len(planned.ranks)), since=details["State"]["StartedAt"]
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
