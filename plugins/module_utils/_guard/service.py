# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guard of one server: looks, decides, acts. Each second, and whenever something has changed.

It decides by what it sees alone: the containers and the records of their starts, its requests, what the other
guards tell, the mark of a drained server, the lock of a rollout. What it does takes time, and is done beside
it: one thing at a time for each instance, and one for the routers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Callable

from .._docker.client import DockerApi, DockerError
from .._findings import RolloutError
from .._lock import RolloutLock
from .._serving.running import drained
from . import memory
from .config import SECRET, STATE, Config, Engine, Instance
from .engines import DEPLOYMENT, Engines, Look, containers
from .generations import Attempts, Generation, Node, Step, counted, decide
from .keeper import Keeper
from .peers import FORMAT, FRESH, UNKNOWN, Board, Peer, lasting, listen, thread
from .prober import Prober
from .router_starts import RouterStarts

# Seconds: between looks where nothing happens, and after which the Docker Engine is asked in any case.
TICK, REFRESH = 1.0, 10.0
# A lock whose run has given no sign of life for so long counts no more (role rollout_lock).
SILENCE, AGE = 300.0, 21600.0
# After a rollout the other guards have to see its end, too.
SETTLE = 3.0
# Pauses after which an instance that serves has ended its row of starts.
STEADY = 30.0
# An engine that has been loading for so many times as long as the last time, and seconds, is started anew.
LATE, LATE_AT_LEAST = 3.0, 7200.0
LOCK = "/run/pd_rollout.lock"


class Service:
    """The guard.

    docker: the Docker Engine of this server, for what takes as long as it takes.
    quick: the same for looks, which must not keep the guard waiting.
    """

    def __init__(self, config: Config, docker: DockerApi, quick: DockerApi) -> None:
        self.config, self.docker, self._quick = config, docker, quick
        self.board, self.events = Board(), memory.Events()
        self._lock = RolloutLock(LOCK)
        self._engines = Engines(config.engines, docker, quick)
        self._probers = {
            one.instance: [Prober(config, one, api, self.board.wake) for api in one.apis]
            for one in config.engines
        }
        self.attempts = memory.attempts(config.folder / STATE)
        self._wanted: dict[str, Generation] = {}
        self._asked: dict[str, dict[str, Any]] = {}
        # What is being done with engines.
        self._busy: dict[str, str] = {}
        self._up_since: dict[str, float] = {}
        # Which start of an engine is loading, and since when.
        self._loading: dict[str, tuple[str, float]] = {}
        self._looks: dict[str, Look] = {}
        self._containers: dict[str, dict[str, Any]] | None = None
        self._no_docker = ""
        self._stale = True
        self._looked_at = 0.0
        self._locked, self._settled_at = False, 0.0
        self._told: dict[str, Any] = {}
        self._shown: dict[str, Any] = {}
        self.stopping = threading.Event()
        self._keeper = Keeper(self) if config.keeps_list else None
        self._router_starts = RouterStarts(config)

    # ── the life of the service ───────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Guard until it is told to stop. Raises OSError if it cannot begin."""
        config = self.config
        secret = (config.folder / SECRET).read_bytes().strip()
        server = listen(config.address, config.port, secret, config.host, self.board)
        for host, at in config.servers.items():
            lasting(f"hears {host}", Peer(host, at, secret, config.host, self.board).run)
        for probers in self._probers.values():
            for prober in probers:
                lasting(f"asks {prober.api}", prober.run)
        lasting("docker", self._follow_docker)
        self._tick()
        memory.notify("READY=1")
        self.events.note(f"guards {config.deployment} on {config.host}")
        while not self.stopping.is_set():
            self.board.wait(TICK)
            self._tick()
            memory.notify("WATCHDOG=1")
        self.board.tell({"bye": True})
        if self._keeper is not None:
            # Nobody would open it again.
            self._keeper.leave()
        time.sleep(TICK)
        server.close()

    def stop(self) -> None:
        """Have run() return; for a signal handler, so it may wait for nothing."""
        self.stopping.set()

    def _follow_docker(self) -> None:
        """Have every change of a container looked at."""
        while True:
            try:
                self.changed()
                for _ in self.docker.events({DEPLOYMENT: self.config.deployment}):
                    self.changed()
            except (DockerError, ValueError):
                self.changed()
                time.sleep(TICK)

    def runs(self, instance: str) -> Generation | None:
        """Return the generation of an engine of this server that runs; None if none does."""
        return self._looks.get(instance, Look()).runs

    def changed(self) -> None:
        """Have the containers looked at again."""
        self._stale = True
        self.board.wake()

    # ── one look ──────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        now = time.monotonic()
        # Before the look: what ends after this has everything looked at again.
        busy = frozenset(self._busy)
        self._see_lock(now)
        if self._keeper is not None and self._keeper.done():
            self._stale = True
        if self._stale or now - self._looked_at > REFRESH:
            self._stale, self._looked_at = False, now
            self._look()
        for ask in self.board.asks():
            self._hear(ask)
        nodes = {
            engine.instance: self._guard(engine, engine.instance in busy, now)
            for engine in self.config.engines
        }
        self._told = {
            "format": FORMAT,
            "host": self.config.host,
            "locked": self._locked,
            "drained": self._drained(),
            "nodes": nodes,
        }
        self.board.tell(self._told)
        if self._keeper is not None:
            self._keeper.tick(self._containers, nodes, now)
        self._start_router(now)
        self._show(nodes)

    def _see_lock(self, now: float) -> None:
        """Note whether a rollout runs. What it has repaired is counted anew."""
        locked = self.locked()
        if self._locked and not locked:
            self._settled_at = now + SETTLE
            self._wanted, self._asked = {}, {}
            self.attempts = {}
            memory.keep(self.config.folder / STATE, self.attempts)
            self._stale = True
        self._locked = locked

    def locked(self) -> bool:
        """Return whether a rollout holds the lock of this server and lives."""
        try:
            holder = self._lock.holder()
        except (RolloutError, OSError):
            return True
        # That of another deployment on this server changes nothing here.
        if holder is None or holder.get("deployment", self.config.deployment) != self.config.deployment:
            return False
        silent = holder["silent"]
        return bool(holder["age"] < AGE if silent is None else silent < SILENCE)

    def _drained(self) -> str:
        return drained(str(self.config.directory))

    def _look(self) -> None:
        try:
            self._containers = containers(self._quick, self.config.deployment)
            self._looks = self._engines.looks(self._containers)
            if self._no_docker:
                self.events.note("the Docker Engine answers again")
            self._no_docker = ""
        except DockerError as error:
            if not self._no_docker:
                self.events.note(str(error))
                for prober in (prober for probers in self._probers.values() for prober in probers):
                    prober.hurry()
            self._no_docker = str(error)
            # Containers may go on without it: what they are, their answers tell meanwhile.
            self._containers, self._stale = None, True

    def _hear(self, ask: Mapping[str, Any]) -> None:
        """Note that a router's guard asks for another start of an instance, as long as it runs as then; or
        that its canary has found right what the instance answers otherwise than before."""
        name = str(ask.get("instance"))
        if name not in self._probers:
            return
        if ask.get("ask") == "restart":
            self._asked[name] = dict(ask)
        elif ask.get("ask") == "accept":
            for prober in self._probers[name]:
                prober.accept()

    # ── one engine ────────────────────────────────────────────────────────────────────────────────────────

    def _guard(self, engine: Engine, busy: bool, now: float) -> dict[str, Any]:
        """Do for an engine what has to be done; return what the others are told of it.

        busy: whether it is being stopped or started: nothing else is decided meanwhile.
        """
        look = self._looks.get(engine.instance, Look())
        alone = len(self.config.instances[engine.instance].nodes) == 1
        if look.up and look.runs is None and alone and not busy:
            # Whoever has started it: it needs no others.
            look = look._replace(runs=look.last)
        probers = self._probers[engine.instance]
        for prober in probers:
            prober.follow(look.start)
        verdicts = [prober.verdict() for prober in probers]
        ready = look.up and all(verdict.ready for verdict in verdicts)
        bad = next((verdict.bad for verdict in verdicts if verdict.bad), "")
        hard = any(verdict.hard for verdict in verdicts)
        attempts = self.attempts.get(engine.instance, Attempts())
        held = self._held(engine, look, now)
        late = self._late(engine, look, ready, now)
        fault = (bad if hard else "") or late
        need = self._need(engine, look, fault, bool(attempts.given_up))
        if (held and not self._no_docker) or (alone and look.up and not need and not busy):
            # Alone it needs no generation but its own: somebody may have started one that was given up.
            self._wanted.pop(engine.instance, None)
        own = Node(look.runs, look.up, look.last, self._wanted.get(engine.instance, look.last), held)
        others = self._others(engine)
        step = (
            Step(own.wanted) if busy else decide(engine.rank, own, others, need, self._may_start(engine, now))
        )
        if step.wanted > own.wanted:
            self._count(engine, need or self._their_need(engine) or step.why, now)
            # Its pause, or that it is given up, counts for this start already.
            given_up = bool(self.attempts.get(engine.instance, Attempts()).given_up)
            need = self._need(engine, look, fault, given_up)
            if not given_up:
                self._wanted[engine.instance] = step.wanted
                own = own._replace(wanted=step.wanted)
            step = decide(engine.rank, own, others, need, self._may_start(engine, now))
        self._do(engine, step)
        # A group that somebody has started is not kept again: it would be stopped for that.
        self._steady(engine, ready and not bad and look.runs is not None, now)
        seen = all(verdict.seen for verdict in verdicts)
        state = self._state(look, seen, ready)
        return {
            "rank": engine.rank,
            "state": state,
            "why": look.ended if state == "down" else "",
            "bad": bad,
            "doubt": next((verdict.doubt for verdict in verdicts if verdict.doubt), ""),
            "need": need,
            "up": look.up,
            "runs": look.runs,
            "last": look.last,
            "wanted": step.wanted,
            "held": held,
            "step": self._busy.get(engine.instance) or step.why,
            "attempts": self.attempts.get(engine.instance, Attempts()).starts,
            "given_up": self.attempts.get(engine.instance, Attempts()).given_up,
        }

    def _state(self, look: Look, seen: bool, ready: bool) -> str:
        """Return the state of a node, in a word."""
        if look.up:
            return "up" if ready else "loading" if seen else UNKNOWN
        if look.exists:
            return "down"
        return UNKNOWN if self._no_docker else "missing"

    def _may_start(self, engine: Engine, now: float) -> bool:
        """Return whether the pause of an instance is over, and it was not given up."""
        attempts = self.attempts.get(engine.instance, Attempts())
        return now >= attempts.not_before and not attempts.given_up

    def _held(self, engine: Engine, look: Look, now: float) -> str:
        """Return why nothing is to be done with an engine; empty if something may be."""
        if self._locked:
            return "a rollout holds the lock"
        if now < self._settled_at:
            return "a rollout has just ended"
        if self._drained():
            return "the server is drained"
        if self._no_docker:
            return "the Docker Engine does not answer"
        if self.attempts.get(engine.instance, Attempts()).given_up:
            return "it was given up"
        return "" if look.exists else "there is no container"

    def _need(self, engine: Engine, look: Look, hard: str, given_up: bool) -> str:
        """Return why an engine has to start anew; empty if it need not. One that was given up is not stopped
        for what is wrong with it, since nobody would start it."""
        if not look.up:
            return look.ended or "it does not run"
        if look.runs is None:
            return "it was started by somebody else, without its other nodes"
        if hard and not given_up:
            return hard
        asked = self._asked.get(engine.instance)
        if asked is not None and list(look.runs) == asked.get("runs") and not given_up:
            return str(asked.get("why"))
        self._asked.pop(engine.instance, None)
        return ""

    def _late(self, engine: Engine, look: Look, ready: bool, now: float) -> str:
        """Return that an engine has been loading for longer than it can take, by its last start; or empty."""
        if ready or not look.up or look.seconds is None:
            self._loading.pop(engine.instance, None)
            return ""
        start, since = self._loading.setdefault(engine.instance, (look.start, now))
        if start != look.start:
            self._loading[engine.instance] = (look.start, now)
            return ""
        limit = max(LATE * look.seconds, LATE_AT_LEAST)
        return f"it has been loading for {now - since:.0f} s" if now - since > limit else ""

    def _others(self, engine: Engine) -> dict[int, Node | None]:
        """Return the other nodes of an engine's instance by rank, as their guards tell them."""
        found: dict[int, Node | None] = {}
        for rank, host in enumerate(self.config.instances[engine.instance].nodes):
            if rank == engine.rank:
                continue
            state, report, _ = self.board.theirs(host)
            told = report.get("nodes", {}).get(engine.instance) if state == FRESH else None
            found[rank] = None if told is None else node_of(told)
        return found

    def _their_need(self, engine: Engine) -> str:
        """Return why another node of an engine's instance has to start anew, and which."""
        for host in self.config.instances[engine.instance].nodes:
            state, report, _ = self.board.theirs(host)
            need = report.get("nodes", {}).get(engine.instance, {}).get("need")
            if need and state == FRESH:
                return f"{host}: {need}"
        return ""

    def _count(self, engine: Engine, why: str, now: float) -> None:
        """Count a start that is to come; the head does for all nodes."""
        if engine.rank:
            return
        settings = self.config.settings
        before = self.attempts.get(engine.instance, Attempts())
        after = counted(before, settings.attempts, settings.pause, why, now)
        self.attempts[engine.instance] = after
        memory.keep(self.config.folder / STATE, self.attempts)
        if after.given_up:
            self.events.note(f"{engine.instance} is given up: {after.given_up}")
        else:
            self.events.note(f"{engine.instance} is started anew ({after.starts}): {why}")

    def _steady(self, engine: Engine, serves: bool, now: float) -> None:
        """End the row of starts of an instance that has served for long enough."""
        if not serves:
            self._up_since.pop(engine.instance, None)
            return
        since = self._up_since.setdefault(engine.instance, now)
        if engine.instance in self.attempts and now - since > STEADY * self.config.settings.pause:
            del self.attempts[engine.instance]
            memory.keep(self.config.folder / STATE, self.attempts)

    def _do(self, engine: Engine, step: Step) -> None:
        """Stop or start an engine beside everything else, unless that is under way."""
        if not step.action or engine.instance in self._busy:
            return
        if step.action == "stop":
            self._busy[engine.instance] = f"stops: {step.why}"
            self.events.note(f"{engine.container} is stopped: {step.why}")
            work = partial(self._engines.stop, engine)
        else:
            self._busy[engine.instance] = "starts"
            self.events.note(f"{engine.container} is started")
            work = partial(self._engines.start, engine, step.wanted)
        thread(f"changes {engine.instance}", lambda: self._worked(engine.instance, work))

    def _start_router(self, now: float) -> None:
        """Start the router that is to serve, if the Docker Engine has not done so after its own restart."""
        held = self._locked or now < self._settled_at or self._containers is None
        name = "" if held else self._router_starts.due(self._containers or {}, self._serves, now)
        if name and name not in self._busy:
            self._busy[name] = "starts"
            self.events.note(f"{name} is started: it has ended")
            thread(f"starts {name}", lambda: self._worked(name, partial(self._run_router, name)))

    def _run_router(self, name: str) -> None:
        self.docker.start(name)

    def _serves(self, instance: Instance) -> bool:
        """Return whether all nodes of an instance are up and in service, as their guards tell."""
        for host in instance.nodes:
            own = host == self.config.host
            state, report, _ = (FRESH, self._told, "") if own else self.board.theirs(host)
            node = report.get("nodes", {}).get(instance.name, {})
            if state != FRESH or report.get("drained") or node.get("state") != "up":
                return False
        return True

    def _worked(self, name: str, work: Callable[[], None]) -> None:
        try:
            self.undisturbed(work)
        except (RolloutError, OSError) as error:
            self.events.note(f"{name}: {error}")
            # Not at once again: what is wrong with the Docker Engine may pass.
            time.sleep(TICK)
        finally:
            # In this order: nothing is decided by a look from before the end.
            self._stale = True
            self._busy.pop(name, None)
            self.changed()

    def undisturbed(self, work: Callable[[], None]) -> bool:
        """Do something that no rollout may begin meanwhile; nothing if one has begun. Return whether it was
        done. Raises RolloutError, and what the work raises."""
        with self._lock.undisturbed():
            if self.locked():
                return False
            work()
            return True

    # ── what is shown ─────────────────────────────────────────────────────────────────────────────────────

    def _show(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the status if it has changed."""
        rows = {
            name: {
                "rank": node["rank"],
                "state": node["state"],
                "why": node["bad"] or node["doubt"] or node["why"] or ("" if node["held"] else node["step"]),
                "generation": (node["runs"] or node["last"])[0],
                "attempts": node["attempts"],
                "given_up": bool(node["given_up"]),
                "gave_up": node["given_up"],
            }
            for name, node in nodes.items()
        }
        peers = {host: self.board.theirs(host) for host in self.config.servers}
        shown: dict[str, Any] = {
            "format": memory.FORMAT,
            "host": self.config.host,
            "deployment": self.config.deployment,
            "locked": self._locked,
            "drained": self._drained(),
            "docker": self._no_docker,
            "nodes": rows,
            "servers": {
                host: state if state == FRESH else f"{state}: {why}"
                for host, (state, _, why) in peers.items()
            },
            "lists": None if self._keeper is None else self._keeper.status(),
            "events": list(self.events.last),
        }
        if shown != self._shown:
            self._shown = shown
            try:
                memory.write(self.config.run / memory.STATUS, {**shown, "at": time.time()}, 0o644)
            except OSError as error:
                self.events.note(f"the status cannot be written: {error}")


def node_of(told: Mapping[str, Any]) -> Node:
    """Return a node from what its guard tells."""
    runs = told.get("runs")
    return Node(
        None if runs is None else (int(runs[0]), str(runs[1])),
        bool(told.get("up")),
        _generation(told.get("last")),
        _generation(told.get("wanted")),
        str(told.get("held") or ""),
    )


def _generation(told: Any) -> Generation:
    return (int(told[0]), str(told[1]))
