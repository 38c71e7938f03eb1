# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the routers' list of one server: out with what fails, back with what has passed a canary.

The decisions are those of lists.py. What the rollout has listed is in the labels of the routers, so nothing
about the list has to be remembered.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Sequence

from .._docker.client import DockerError
from .._findings import RolloutError
from .._front.haproxy import HaproxyError
from .._serving.probe import probe
from . import canaries
from .config import Instance
from .lists import GOOD, HARD, SOFT, UNSURE, Decision, Status, decide, node_status, worst
from .peers import FRESH, LOST, thread
from .routers import Failed, Lists, Outdated, Routers

if TYPE_CHECKING:
    from .service import Service

ROLE_OF = {"prefillers": "prefiller", "decoders": "decoder"}
# Seconds: for a server without a guard until its engine must answer, and between two looks at it; between two
# attempts of a canary or a change, the first of which is followed by longer ones.
DIRECT, DIRECT_PAUSE, AGAIN, LONGEST = 1.5, 1.0, 5.0, 300.0
# Failed looks before an engine whose server accepts connections counts as gone, and failed canaries after
# which it is to start anew.
LOOKS, CANARIES = 2, 2
# Seconds until an engine that is asked to start anew has stopped.
ASKED = 60.0
# Seconds for which others wait until it has come back.
ANEW = 3600.0
# Seconds for which a change waits for the router before, which still answers requests: one that takes out an
# engine that cannot answer, and one that answers wrongly or not.
HARD_WAITS, SOFT_WAITS = 5.0, 60.0
# Seconds without a server until an instance counts as failing of which only a node without an API runs there.
LOST_FOR = 4.0


class Keeper:
    """Keeps the list of the routers on a server.

    service: the guard of the server.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._config = service, service.config
        self._routers = Routers(service.config, service.docker)
        self._names = {api: one.name for one in self._config.instances.values() for api in one.apis}
        self._lists: Lists | None = None
        # Instances that were failing and have not passed a canary since; why each left the list, and when.
        self._unproven: set[str] = set()
        self._out: dict[str, dict[str, Any]] = {}
        # What canaries have found, and how often in a row.
        self._bad: dict[str, tuple[str, int]] = {}
        # The instance that was asked last to start anew, and when.
        self._anew, self._anew_at = "", 0.0
        # By instance and server: what looks at engines have found whose guard tells nothing.
        self._direct: dict[tuple[str, str], list[str]] = {}
        self._asking: set[tuple[str, str]] = set()
        # Since when servers are lost.
        self._lost_since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._failures = 0
        self._wanted: set[str] = set()
        # A change that is made, or whose result was not looked at yet.
        self._changing = self._done = False
        self._draining = self._comparing = self._sampling = False
        # Since when something that is to leave the list waits for the router before; canaries in a row that
        # could not ask.
        self._waits_since, self._mute = 0.0, 0
        self._canary_at = time.monotonic() + self._config.settings.canary
        self._turn = 0
        self._statuses: dict[str, Status] = {}
        # Instances that answer otherwise than before, and how.
        self._doubts: dict[str, str] = {}
        self._first = True

    # ── one look ──────────────────────────────────────────────────────────────────────────────────────────

    def done(self) -> bool:
        """Return whether a change has been made since the last look: the next one shows it."""
        done, self._done = self._done, False
        if done:
            self._changing = False
        return done

    def tick(
        self,
        containers: Mapping[str, Mapping[str, Any]] | None,
        nodes: Mapping[str, Mapping[str, Any]],
        now: float,
    ) -> None:
        """Have the list and the front say what can serve.

        containers: the Docker Engine's list by name; None if it does not answer.
        nodes: what this guard tells of its own engines.
        """
        self._lists = None if containers is None else self._routers.lists(containers)
        # Replaced as a whole: a canary's thread reads them.
        self._doubts = self._doubted(nodes)
        self._statuses = {one.name: self._status(one, nodes) for one in self._config.instances.values()}
        if self._lists is None:
            return
        base, listed = self._named(self._lists.base), set(self._named(self._lists.listed))
        self._prove(base, listed)
        decision = decide(self._roles(), base, listed, self._statuses, self._unproven, self._bad)
        self._decided(decision, base, listed, now)
        idle = not self._changing and not self._draining and not self._service.locked()
        if idle and containers is not None and self._routers.draining(containers):
            self._draining = True
            thread("drains", self._drain)

    def _prove(self, base: Sequence[str], listed: Collection[str]) -> None:
        """Note what fails: it has to prove itself before it counts as good. At the start also what is not
        listed, and after a rollout, which compares what it starts, no more than that."""
        if self._service.locked():
            self._first = True
            return
        if self._first:
            self._first = False
            self._bad.clear()
            self._anew = ""
            self._unproven = {name for name in base if name not in listed}
            if self._routers.closed():
                self._unproven |= set(base)
        for name in base:
            status = self._statuses.get(name)
            if status is not None and status.kind in (SOFT, HARD):
                # The next start, or the next good answers, prove themselves anew.
                self._bad.pop(name, None)
                if name not in self._unproven:
                    self._unproven.add(name)
                    self._service.events.note(f"{name} fails: {status.why}")
            elif name in self._doubts and name not in self._bad:
                self._bad[name] = (self._doubts[name], 0)
                self._unproven.add(name)
                self._service.events.note(f"{name} is doubted: {self._doubts[name]}")
        self._unproven &= set(base)

    def _decided(self, decision: Decision, base: Sequence[str], listed: Collection[str], now: float) -> None:
        """Carry out a decision, as far as nothing else is under way."""
        if self._service.locked():
            # A rollout opens a front that is closed.
            return
        self._close(decision.closed)
        wanted = self._wanted = set(decision.listed)
        if wanted != set(listed) and not self._changing and now >= self._not_before.get("", 0.0):
            gone = set(listed) - wanted
            if not self._draining or self._has_waited(gone, now):
                self._changing = True
                thread("lists", partial(self._change, decision.listed, gone, wanted - set(listed)))
        if not self._draining or not set(listed) - wanted:
            self._waits_since = now
        self._have_asked(decision.compare, listed, now)

    def _has_waited(self, gone: Collection[str], now: float) -> bool:
        """Return whether a change has waited for long enough for the router before, which still answers
        requests: they are cut then. Where nothing is to leave the list, it waits for the last one."""
        hard = any(self._statuses[name].kind == HARD for name in gone if name in self._statuses)
        return bool(gone) and now - self._waits_since >= (HARD_WAITS if hard else SOFT_WAITS)

    def _have_asked(self, compare: Sequence[str], listed: Collection[str], now: float) -> None:
        """Have a canary compare what is to be listed, and another one ask what is."""
        # All together, as soon as one is due: those that come back at different times have only each other.
        due = any(now >= self._not_before.get(name, 0.0) for name in compare)
        if due and not self._comparing:
            options = self._comparison(compare, listed)
            if options is not None:
                self._comparing = True
                self._later(compare)
                thread("canary", partial(self._compare, options, compare, self._running(compare)))
        if now >= self._canary_at and not self._sampling:
            self._canary_at = now + self._config.settings.canary
            self._sampling = True
            thread("sample", partial(self._sample, listed))

    def _close(self, why: str) -> None:
        """Have the front answer itself, with a reason, or no longer."""
        if why == self._routers.closed():
            return
        try:
            self._routers.close(why)
            self._service.events.note(f"the front answers 503: {why}" if why else "the front serves again")
        except (HaproxyError, OSError) as error:
            self._service.events.note(f"the front cannot be told: {error}")

    def leave(self) -> None:
        """Leave the front serving."""
        self._close("")

    # ── how instances are ─────────────────────────────────────────────────────────────────────────────────

    def _roles(self) -> dict[str, str]:
        known = {one.name: one.role for one in self._config.instances.values()}
        if self._lists is not None:
            for key, role in ROLE_OF.items():
                for api in self._lists.base[key]:
                    known.setdefault(self._names.get(api, api), role)
        return known

    def _named(self, apis: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the instances of APIs; an API that the plan does not know stands for itself."""
        return list(dict.fromkeys(self._names.get(api, api) for key in ROLE_OF for api in apis[key]))

    def _status(self, instance: Instance, nodes: Mapping[str, Mapping[str, Any]]) -> Status:
        """Return how an instance is, from all of its nodes."""
        found = [self._node(instance, host, nodes) for host in instance.nodes]
        generations = {status.generation for status in found if status.generation}
        status = worst(found)
        if status.kind in (GOOD, UNSURE) and len(generations) > 1:
            return Status(HARD, "its nodes are of different starts")
        return status._replace(generation=min(generations, default=""))

    def _node(self, instance: Instance, host: str, nodes: Mapping[str, Mapping[str, Any]]) -> Status:
        """Return how one node is: as its guard tells, or as its API answers."""
        state, report, why = self._report(host, nodes)
        if state != LOST:
            self._lost_since.pop(host, None)
        told = report.get("nodes", {}).get(instance.name)
        if state == FRESH and told is not None:
            self._direct.pop((instance.name, host), None)
            runs = told.get("runs")
            status = node_status(told["state"], told["why"], told["bad"])
            return status._replace(generation="" if runs is None else f"{runs[1]}+{runs[0]}")
        if state == FRESH:
            return Status(UNSURE)
        apis = [api for api in instance.apis if self._address(host) == api.rpartition(":")[0]]
        if not apis:
            return self._without_api(host, state, why)
        return self._asked_directly(instance.name, apis, host, state, why)

    def _doubted(self, nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return how instances answer otherwise than before, as the guards of their nodes tell."""
        found: dict[str, str] = {}
        for instance in self._config.instances.values():
            for host in instance.nodes:
                state, report, _ = self._report(host, nodes)
                doubt = report.get("nodes", {}).get(instance.name, {}).get("doubt")
                if doubt and state == FRESH:
                    found[instance.name] = str(doubt)
        return found

    def _report(
        self, host: str, nodes: Mapping[str, Mapping[str, Any]]
    ) -> tuple[str, Mapping[str, Any], str]:
        """Return the state of a server, its guard's last report, and why it has none."""
        own = host == self._config.host
        return (FRESH, {"nodes": nodes}, "") if own else self._service.board.theirs(host)

    def _without_api(self, host: str, state: str, why: str) -> Status:
        """Return how a node is that can only be known from its server: lost for a moment is not lost."""
        if state != LOST:
            return Status(UNSURE)
        now = time.monotonic()
        long = now - self._lost_since.setdefault(host, now) >= LOST_FOR
        return Status(SOFT, f"{host}: {why}") if long else Status(UNSURE)

    def _address(self, host: str) -> str:
        return self._config.address if host == self._config.host else self._config.servers[host][0]

    def _asked_directly(self, name: str, apis: Sequence[str], host: str, state: str, why: str) -> Status:
        """Return how an engine is whose guard tells nothing: a look at it may be under way."""
        key = (name, host)
        if key not in self._asking:
            self._asking.add(key)
            thread(f"asks {name}", partial(self._ask, key, apis))
        failed = self._direct.get(key)
        if failed and (state == LOST or len(failed) >= LOOKS):
            return Status(HARD, f"{host}: {why if state == LOST else failed[-1]}")
        return Status(GOOD if failed == [] else UNSURE)

    def _ask(self, key: tuple[str, str], apis: Sequence[str]) -> None:
        """Look at an engine's health, without its guard."""
        try:
            problems = [
                said
                for ready, said in (probe(f"http://{api}/health", None, DIRECT) for api in apis)
                if not ready
            ]
            self._direct[key] = [*self._direct.get(key, []), problems[0]][-LOOKS:] if problems else []
            self._service.board.wake()
            time.sleep(DIRECT_PAUSE)
        finally:
            self._asking.discard(key)

    # ── beside the look ───────────────────────────────────────────────────────────────────────────────────

    def _change(self, names: Sequence[str], gone: Collection[str], back: Collection[str]) -> None:
        """Have other instances listed."""
        reasons = {name: self._why(name) for name in gone}
        begin = time.monotonic()
        # Whatever comes of it: not at once again.
        self._not_before[""] = begin + AGAIN
        try:
            done = self._service.undisturbed(partial(self._relist, names))
        except Outdated as error:
            self._not_before.pop("", None)
            self._service.events.note(f"the list was not changed: {error}")
        except (Failed, DockerError, HaproxyError, RolloutError, OSError, ValueError) as error:
            self._failures += 1
            self._not_before[""] = time.monotonic() + min(AGAIN * 2.0 ** (self._failures - 1), LONGEST)
            self._service.events.note(f"the list could not be changed: {error}")
        else:
            self._failures = 0
            self._not_before.pop("", None)
            if not done:
                # A rollout has begun.
                return
            took = f"({time.monotonic() - begin:.1f} s)"
            for name in gone:
                self._out[name] = {"why": reasons[name], "since": time.time()}
                self._service.events.note(f"{name} is out of the list {took}: {reasons[name]}")
            for name in back:
                self._out.pop(name, None)
                self._service.events.note(f"{name} is in the list again {took}")
        finally:
            self._done = True
            self._service.board.wake()

    def _why(self, name: str) -> str:
        """Return what speaks against an instance."""
        # A canary's thread and the service's change what is bad.
        bad = self._bad.get(name)
        return self._statuses.get(name, Status(UNSURE)).why if bad is None else bad[0]

    def _relist(self, names: Sequence[str]) -> None:
        lists = self._lists
        if lists is None:
            raise Failed("no router gets requests")
        chosen = set(names)
        listed = {
            key: [api for api in lists.base[key] if self._names.get(api, api) in chosen] for key in ROLE_OF
        }
        self._routers.change(listed, lists.base, lambda: self._wanted == chosen)

    def _drain(self) -> None:
        """End the router that was replaced, when its last request is answered."""
        try:
            if self._routers.drain(lambda: not self._changing and not self._service.locked()):
                self._service.events.note("the router before has answered its last request")
        except (DockerError, HaproxyError, OSError) as error:
            self._service.events.note(f"the router before cannot be ended: {error}")
            time.sleep(AGAIN)
        finally:
            self._draining = False
            self._service.changed()

    def _comparison(self, names: Sequence[str], listed: Collection[str]) -> dict[str, Any] | None:
        """Return the options of a canary by which instances prove themselves, with each other and with what
        is listed and good; None if there is nothing of the other role."""
        members = self._config.instances
        asked = [members[name] for name in names if name in members]
        proven = [
            one
            for one in members.values()
            if one.name in listed and one.name not in self._unproven and self._is_good(one.name)
        ]
        prefillers, decoders = (
            [one for one in [*asked, *proven] if one.role == role] for role in ("prefiller", "decoder")
        )
        if not decoders or not (prefillers or self._config.protocol == "none"):
            return None
        return canaries.options(self._config, prefillers, decoders, names)

    def _compare(self, options: Mapping[str, Any], names: Sequence[str], before: Mapping[str, str]) -> None:
        """Have instances prove themselves, before they are listed."""
        try:
            self._judge([options], names, before)
        finally:
            # However it ends, the next one can begin.
            self._comparing = False
            self._service.board.wake()

    def _sample(self, listed: Collection[str]) -> None:
        """Ask each instance that serves with one of the other role."""
        try:
            self._ask_some(listed)
        finally:
            self._sampling = False
            self._service.board.wake()

    def _ask_some(self, listed: Collection[str]) -> None:
        good = [name for name in listed if self._is_good(name) and name not in self._unproven]
        members = self._config.instances
        of = {
            role: [n for n in good if n in members and members[n].role == role] for role in ROLE_OF.values()
        }
        pairs = canaries.matching(of["prefiller"], of["decoder"], self._turn)
        self._turn += 1
        if self._config.protocol == "none":
            pairs = [("", name) for name in of["decoder"]]
        asked = [
            canaries.options(self._config, [members[p]] if p else [], [members[d]], []) for p, d in pairs
        ]
        names = sorted({name for pair in pairs for name in pair if name})
        if pairs:
            self._judge(asked, names, self._running(names))

    def _is_good(self, name: str) -> bool:
        return self._statuses.get(name, Status(GOOD)).kind == GOOD

    def _running(self, names: Sequence[str]) -> dict[str, str]:
        return {name: self._statuses[name].generation for name in names if name in self._statuses}

    def _judge(
        self, asked: Sequence[Mapping[str, Any]], names: Sequence[str], before: Mapping[str, str]
    ) -> None:
        """Run canaries, and note what they say of instances that still run as before."""
        try:
            results = canaries.run(asked, self._config.folder / "pd-guard.pyz")
            outcome = canaries.outcome(results, names)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            outcome = canaries.Outcome(failed=str(error))
        now, doubts = self._running(names), self._doubts
        for name in outcome.passed:
            if now.get(name) != before.get(name) or not self._is_good(name):
                continue
            if name in doubts:
                # It is right, and proves itself once more when its guard knows that.
                self._tell(self._config.instances[name].nodes, {"ask": "accept", "instance": name})
                self._bad[name] = (doubts[name], 0)
                continue
            if name in self._unproven:
                self._service.events.note(f"{name} has passed its canary")
            self._unproven.discard(name)
            self._bad.pop(name, None)
            self._not_before.pop(name, None)
        failing = [
            (name, why)
            for name, why in outcome.bad
            if now.get(name) == before.get(name) and self._is_good(name)
        ]
        for name, why in failing:
            if name in outcome.silent and name not in self._unproven:
                # It works, as its guard sees: whoever has no time for a canary still serves others.
                self._service.events.note(f"the canary of {name} got no answer: {why}")
                continue
            times = self._bad.get(name, ("", 0))[1] + 1
            self._bad[name] = (f"its canary fails: {why}", times)
            self._unproven.add(name)
            self._service.events.note(f"the canary of {name} fails ({times}): {why}")
            self._later([name])
        self._start_anew([(name, why) for name, why in failing if name not in outcome.silent])
        self._mute = self._mute + 1 if outcome.failed else 0
        if outcome.failed:
            self._service.events.note(f"the canary cannot ask: {outcome.failed}")
            self._later(names)
        if self._mute >= CANARIES:
            # That nobody can compare them is no reason to serve nobody.
            for name in names:
                if name in self._unproven and name not in self._bad and self._is_good(name):
                    self._service.events.note(f"{name} counts as good without a canary, since none can ask")
                    self._unproven.discard(name)

    def _later(self, names: Sequence[str]) -> None:
        for name in names:
            times = self._bad.get(name, ("", 1))[1]
            self._not_before[name] = time.monotonic() + min(AGAIN * 2.0 ** max(times - 1, 0), LONGEST)

    def _start_anew(self, failing: Sequence[tuple[str, str]]) -> None:
        """Have an instance start anew that has failed often enough: one of them, a decoder first, since the
        fault of one may show at the other; and the next one only after that has come back, since what fails
        may be none of them."""
        if self._starts_anew():
            return
        roles = self._roles()
        due = [(name, why) for name, why in failing if self._bad.get(name, ("", 0))[1] >= CANARIES]
        for name, why in sorted(due, key=lambda one: roles.get(one[0]) != "decoder")[:1]:
            instance = self._config.instances[name]
            head = instance.nodes[0]
            own = head == self._config.host
            nodes = self._service.board.theirs(head)[1].get("nodes", {})
            runs = self._service.runs(name) if own else nodes.get(name, {}).get("runs")
            if runs is None:
                continue
            message = {
                "ask": "restart",
                "instance": name,
                "runs": list(runs),
                "why": f"its canary fails: {why}",
            }
            self._tell([head], message)
            # The next start proves itself anew.
            self._bad.pop(name, None)
            self._anew, self._anew_at = name, time.monotonic()

    def _tell(self, hosts: Iterable[str], message: dict[str, Any]) -> None:
        """Tell guards something, of which this one may be one."""
        for host in hosts:
            if host == self._config.host:
                self._service.board.ask(message)
            else:
                self._service.board.send(host, message)

    def _starts_anew(self) -> bool:
        """Return whether an instance that was asked to start anew has not come back yet."""
        status, waited = self._statuses.get(self._anew), time.monotonic() - self._anew_at
        if status is None or waited > ANEW:
            return False
        return status.kind != GOOD or waited < ASKED

    def status(self) -> dict[str, Any]:
        """Return what is shown."""
        lists = self._lists
        listed = [] if lists is None else self._named(lists.listed)
        base = [] if lists is None else self._named(lists.base)
        out = {
            name: self._out.get(name) or {"why": self._why(name), "since": None}
            for name in base
            if name not in listed
        }
        return {
            "listed": listed,
            "out": out,
            "closed": self._routers.closed(),
            "failing": {name: self._why(name) for name in listed if self._why(name)},
            "comparing": sorted(self._unproven),
        }
