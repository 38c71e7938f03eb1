# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Waits for the engines of one host; see plugins/modules/engine_wait.py for the documentation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ansible import constants as C
from ansible import context
from ansible.utils.display import Display

from ..module_utils._findings import Finding, text_of
from ..module_utils._serving import engine_status
from ..module_utils._serving.catalogue import ENGINE_CHECKS
from ..module_utils._serving.engine_log import PHASES, READY, STARTING, WAITING, Progress
from ..plugin_utils._run.deadlines import SOON
from ..plugin_utils._run.fast_module import ServerFunction
from ..plugin_utils._run.polling import Polling
from ..plugin_utils._run.screen import show
from ..plugin_utils._serving.start_state import StartState

display = Display()

ENGINE_INFO = ServerFunction("engine_info", "_serving.engine_status", "info", engine_status.ARGUMENTS)
# Seconds of one long poll: bounds how late a host learns that another one has failed.
HOLD = 4.0
# Seconds that a headless node waits to hear where its head's API is, before it asks its own container again.
HEAD_PATIENCE = 2.0
# Seconds between two lines of mere progress of one engine.
PROGRESS_EVERY = 5.0


@dataclass
class Target:
    """One container to wait for, and what is known of it."""

    container: str
    title: str
    instance: str
    rank: int
    # Inventory hosts by node rank; one for an engine on a single node and for the proxy.
    nodes: tuple[str, ...]
    health_url: str | None
    health_expect: dict[str, Any] = field(default_factory=dict)
    # With external data parallel, rank and health_url of each server in the container.
    ranks: list[dict[str, Any]] = field(default_factory=list)
    master: str = ""
    baseline: int | None = None
    # Whether this run has started it: if that fails, it is not left to be started again without end.
    fresh: bool = False
    known: str = ""
    ready: bool = False
    progress: Progress = field(default_factory=lambda: Progress(STARTING))
    shown: str = ""
    shown_at: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """How far it is, for people."""
        if not self.ranks or self.ready or "ready_ranks" not in self.report:
            return self.progress.text
        of = f" (rank {self.report['rank']})" if self.report["rank"] is not None else ""
        return f"{self.progress.text}{of}, {self.report['ready_ranks']} of {len(self.ranks)} ranks ready"

    @property
    def place(self) -> str:
        """What a node of the instance is called."""
        return "node" if self.ranks else "rank"

    @property
    def headless(self) -> bool:
        return self.rank > 0 and self.health_url is None


def engine_target(engine: dict[str, Any], started: list[str]) -> Target:
    """The Target of an engine's slice of the plan."""
    api, master = engine.get("api"), engine.get("master")
    nodes = tuple(node["host"] for node in sorted(engine["ready"]["nodes"], key=lambda node: node["rank"]))
    ranks = [
        {"rank": rank["rank"], "health_url": f"http://{rank['api']['host']}:{rank['api']['port']}/health"}
        for rank in engine.get("ranks") or []
    ]
    title = engine["instance"]
    if ranks:
        title += f" ranks {ranks[0]['rank']}-{ranks[-1]['rank']}"
    elif len(nodes) > 1:
        title += f" rank {engine['node_rank']}"
    return Target(
        container=engine["container"],
        title=title,
        instance=engine["instance"],
        rank=engine["node_rank"],
        nodes=nodes,
        health_url=f"http://{api['host']}:{api['port']}/health" if api else None,
        ranks=ranks,
        master=f"{master['host']}:{master['port']}" if master else "",
        baseline=0 if engine["container"] in started else None,
        fresh=engine["container"] in started,
    )


def proxy_target(proxy: dict[str, Any], host: str, started: list[str]) -> Target:
    """The Target of the proxy's slice of the plan."""
    return Target(
        container=proxy["container"],
        title="proxy",
        instance="proxy",
        rank=0,
        nodes=(host,),
        health_url=proxy["health_url"],
        health_expect=dict(proxy["expected"]),
        baseline=0 if proxy["container"] in started else None,
        fresh=proxy["container"] in started,
    )


def formed(phase: str | None) -> bool:
    """Whether a node in this phase has found its group."""
    return phase in PHASES and PHASES.index(phase) > PHASES.index(WAITING)


def absent(target: Target, nodes: dict[int, dict[str, Any]]) -> list[str]:
    """The other nodes of a target's group that have not come to it yet, each with what is known of it."""
    if any(formed(state.get("phase")) for state in nodes.values()) or formed(target.progress.phase):
        return []
    missing = []
    for rank, host in enumerate(target.nodes):
        state = nodes.get(rank)
        if rank == target.rank or (state and state["status"] == "running" and state["phase"] == WAITING):
            continue
        seen = "not seen by this run" if state is None else f"container {state['status']}, {state['phase']}"
        missing.append(f"{target.place} {rank} on {host} ({seen})")
    return missing


def group_sentence(target: Target, nodes: dict[int, dict[str, Any]]) -> str:
    """Who is missing in a group for which this node waits; empty when it does not."""
    if len(target.nodes) < 2 or target.progress.phase != WAITING:
        return ""
    missing = absent(target, nodes)
    if missing:
        return f"The group of {target.instance} has not formed: missing {', '.join(missing)}."
    if any(formed(state.get("phase")) for rank, state in nodes.items() if rank != target.rank):
        return f"The other nodes of {target.instance} have formed their group without {target.title}."
    joined = target.report.get("joined")
    come = f" {joined[0]} of {joined[1]} nodes have come to {target.master}." if joined else ""
    return (
        f"The group of {target.instance} has not formed although all its nodes wait for each other.{come}"
        f" Look whether each of them reaches {target.master}, by the address and interface of the plan."
    )


def how_it_ended(report: dict[str, Any]) -> str:
    """What has become of a container, in a few words."""
    status = report["status"]
    if status == "missing":
        return "its container is gone"
    if status == "running":
        times = report["restart_count"]
        words = f"it ended and was restarted ({times} time{'s' if times > 1 else ''})"
        return f"{words}, and is stopped now" if report.get("stopped") else words
    words = f"its container is {status}, exit code {report['exit_code']}"
    if report["oom_killed"]:
        words += ", killed because it ran out of memory"
    if report["error"]:
        words += f", {report['error']}"
    return f"{words}, and is stopped now" if report.get("stopped") else words


# A finding about a container, and the last lines of its log.
Failure = tuple[Finding, list[str]]


class ActionModule(Polling):
    """Loops over M(ascend.pd_rollout.engine_info) until everything is ready or something has failed."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "engines": {"type": "list", "elements": "dict", "default": []},
        "proxy": {"type": "dict"},
        "started": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "int", "default": 3600},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._vars = task_vars
        self._host = task_vars["inventory_hostname"]
        targets = [engine_target(engine, options["started"]) for engine in options["engines"]]
        if options["proxy"]:
            targets.append(proxy_target(options["proxy"], self._host, options["started"]))
        result.update(changed=False, seconds={}, started={})
        if not targets:
            return result
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "nothing is awaited in check mode"}
        self._warn_of_few_forks()
        self._state = StartState(Path(C.DEFAULT_LOCAL_TMP) / "pd_rollout_wait" / self._task._uuid)
        begun = self._state.begun()
        try:
            failures = self._wait(targets, begun, options["timeout"])
        except Exception as error:
            self._state.abort(f"{self._host}: {error}")
            raise
        if failures:
            found = [finding.to_dict() for finding, _log in failures]
            msg = "\n".join(text_of([finding], log=log) for finding, log in failures)
            return {**result, "failed": True, "findings": found, "msg": msg}
        took = round(time.time() - begun, 1)
        result["seconds"] = {target.title: took for target in targets}
        result["started"] = {target.container: took for target in targets if target.fresh}
        return result

    def _warn_of_few_forks(self) -> None:
        hosts = self._vars.get("ansible_play_hosts") or [self._host]
        forks = context.CLIARGS.get("forks") or C.DEFAULT_FORKS
        if forks < len(hosts) and self._host == hosts[0]:
            display.warning(
                f"{forks} forks are fewer than the {len(hosts)} hosts of this play: engines are watched"
                " in batches, and one that fails in a later batch is seen late. Set forks in ansible.cfg."
            )

    def _wait(self, targets: list[Target], begun: float, timeout: int) -> list[Failure]:
        """Nothing when all targets are ready, else why not."""
        hold = 0.0
        while True:
            self._ask([target for target in targets if not target.ready], hold)
            hold = HOLD
            for target in targets:
                if target.report["failed"]:
                    return self._published([self._failed(target)])
                self._settle(target)
            if all(target.ready for target in targets):
                return []
            why = self._state.aborted()
            late = [target for target in targets if not target.ready]
            if why is not None:
                names = ", ".join(target.title for target in late)
                message = f"no longer waiting for {names} on {self._host}, because of another failure"
                return [(ENGINE_CHECKS.finding("engine-not-awaited", message, host=self._host, seen=why), [])]
            if time.time() - begun > timeout:
                return self._published([self._too_late(target, timeout) for target in late])

    def _ask(self, targets: list[Target], hold: float) -> None:
        asked = [
            {
                "name": target.container,
                "health_url": target.health_url,
                "health_expect": target.health_expect,
                "ranks": target.ranks,
                "known": target.known,
                "baseline": target.baseline,
                "stop": target.fresh,
            }
            for target in targets
        ]
        answer = self._poll(
            ENGINE_INFO,
            {"hold": hold, "targets": asked},
            about=f"the engines of {self._host}",
            answers="targets",
            task_vars=self._vars,
            seconds=hold + SOON,
        )
        reports = {report["name"]: report for report in answer["targets"]}
        for target in targets:
            self._note(target, reports[target.container])

    def _note(self, target: Target, report: dict[str, Any]) -> None:
        target.report, target.known = report, report["fingerprint"]
        if target.baseline is None:
            target.baseline = report["restart_count"]
        if report["phase"]:
            target.progress = Progress(report["phase"], report["done"], report["total"])
        if report["ready"]:
            target.ready, target.progress = True, Progress(READY)
        self._publish(target)
        self._show(target)

    def _publish(self, target: Target) -> None:
        self._state.post(
            target.instance,
            target.rank,
            host=self._host,
            status=target.report["status"],
            phase=target.progress.phase,
            ready=target.ready,
            health_url=target.health_url,
        )

    def _settle(self, target: Target) -> None:
        """A headless node is ready when its instance's head is: from here on its API is asked."""
        if not target.headless or target.ready:
            return
        head_plays = target.nodes[0] in self._vars.get("ansible_play_hosts", [])
        head = self._head(target.instance, HEAD_PATIENCE if head_plays else 0.0)
        if head and head["ready"]:
            target.ready, target.progress = True, Progress(READY)
            self._publish(target)
            self._show(target)
        elif head:
            target.health_url = head["health_url"]
        elif not head_plays and formed(target.progress.phase):
            target.ready = True

    def _head(self, instance: str, patience: float) -> dict[str, Any] | None:
        """What the head of an instance has published; its worker comes here at the same time as this one."""
        end = time.monotonic() + patience
        while True:
            head = self._state.nodes(instance).get(0)
            if head or time.monotonic() >= end:
                return head
            time.sleep(0.1)

    def _show(self, target: Target) -> None:
        """A line on the screen when an engine is in another phase, and now and then while it counts."""
        text, now = target.text, time.monotonic()
        if target.progress.phase == WAITING:
            missing = absent(target, self._state.nodes(target.instance))
            if len(target.nodes) < 2:
                text = "forming its group"
            elif missing:
                text += f": {', '.join(missing)}"
        same_phase = target.shown.startswith(target.progress.phase)
        if text == target.shown or (
            same_phase and not target.ready and now - target.shown_at < PROGRESS_EVERY
        ):
            return
        target.shown, target.shown_at = text, now
        show(f"{self._host} {target.title}: {text}")

    def _failed(self, target: Target) -> Failure:
        group = group_sentence(target, self._state.nodes(target.instance))
        head = f"{target.title} on {self._host} failed: {how_it_ended(target.report)}"
        return self._failure("engine-ended", target, head, [str(target.report.get("reason") or ""), group])

    def _published(self, failures: list[Failure]) -> list[Failure]:
        """The same, of which the other workers learn: they stop waiting."""
        first = failures[0][0]
        self._state.abort(f"{first.message}. {first.seen or ''}".rstrip())
        return failures

    def _too_late(self, target: Target, timeout: int) -> Failure:
        group = group_sentence(target, self._state.nodes(target.instance))
        head = f"{target.title} on {self._host} is not ready after {timeout} s: {target.text}"
        health = target.report.get("health") if not group else ""
        return self._failure(
            "engine-late", target, head, [f"{target.health_url} {health}" if health else "", group]
        )

    def _failure(self, code: str, target: Target, message: str, seen: list[str]) -> Failure:
        """What is wrong with a container, with the last lines of its log."""
        words = "; ".join(part for part in seen if part)
        finding = ENGINE_CHECKS.finding(
            code,
            message,
            host=self._host,
            instance=target.instance,
            seen=words or None,
            container=target.container,
        )
        return finding, target.report.get("log") or ["its log is empty"]
