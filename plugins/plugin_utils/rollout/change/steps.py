# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""In which order a deployment is changed.

Every change of the routers' list is one switch of the front to a second router (docs/operation.md), and an
instance is changed only while no router lists it. So a step is: switch to a list, or close the front; end
what is in the step; start it; compare its answers (canary). The list of the next step then has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..model import ROLES, Role
from .seen import Seen, SeenInstance


@dataclass(frozen=True)
class Step:
    """One step. Its parts happen in the order of the fields."""

    # The instances that the routers are to list; None: their list stays. Nothing: the front is closed.
    listed: tuple[SeenInstance, ...] | None = None
    # What is ended for good: what is not planned is removed, what is drained only stopped.
    removed: tuple[SeenInstance, ...] = ()
    # What is ended, where it runs, and started, or only awaited.
    changed: tuple[SeenInstance, ...] = ()
    # What serves meanwhile.
    serving: tuple[SeenInstance, ...] = ()
    # With what the changed ones are compared: instances of their version that run already.
    partners: tuple[SeenInstance, ...] = ()
    # Whether requests get no answer meanwhile.
    outage: bool = False

    @property
    def closed(self) -> bool:
        return self.listed == ()

    @property
    def titles(self) -> list[str]:
        """What it does, for people."""
        said = {
            "remove": [one for one in self.removed if not one.planned],
            "stop": [one for one in self.removed if one.planned],
            "make anew": [one for one in self.changed if one.mend == "make" and one.up],
            "start": [one for one in self.changed if one.mend == "make" and not one.up],
            "restart": [one for one in self.changed if one.mend == "restart"],
            "wait for": [one for one in self.changed if not one.mend],
        }
        found = ["end the routers"] if self.closed else []
        found += [f"{what} {_names(instances)}" for what, instances in said.items() if instances]
        return found or ["list all"]


def _names(instances: Iterable[SeenInstance]) -> str:
    return ", ".join(one.name for one in instances)


@dataclass(frozen=True)
class Change:
    """All steps, and why some of them cost an outage."""

    steps: tuple[Step, ...] = ()
    # One sentence for each cause.
    outages: tuple[str, ...] = ()
    # What the routers list at the end.
    target: tuple[SeenInstance, ...] = ()
    # What of the target may have its files put in order.
    tidied: tuple[SeenInstance, ...] = ()
    # What is left out, because a server of it is drained.
    drained: tuple[SeenInstance, ...] = ()

    @property
    def outage(self) -> bool:
        return any(step.outage for step in self.steps)


@dataclass(frozen=True)
class Options:
    """What a run may do."""

    # Whether a front switches between two routers. Without one, a router that gets another list is started
    # anew.
    front: bool
    # Whether clients ask the one engine, without a router.
    colocated: bool
    # How many serving instances of a role are changed at once.
    unavailable: int = 1
    # Whether the run is about engines, and about routers (--tags).
    engines: bool = True
    routers: bool = True
    # The instances that may be changed; None: all. The others stay as they are, and listed if they are.
    only: frozenset[str] | None = None


def steps(seen: Seen, options: Options) -> Change:
    """Return the steps from what runs to what is planned."""
    maker = _Maker(seen, options)
    change = maker.change()
    if options.routers or options.colocated:
        return change
    return _without_routers(change, works=maker.works)


def _without_routers(change: Change, *, works: bool) -> Change:
    """Return a change without the switches of the routers, which go on asking what they list.

    works: whether there is a service to interrupt.
    """
    kept = tuple(replace(step, listed=None) for step in change.steps if step.changed or step.removed)
    asked = [one.name for step in kept for one in (*step.changed, *step.removed) if one.serving]
    if not asked or not works:
        return replace(change, steps=tuple(replace(step, outage=False) for step in kept), outages=())
    why = f"this run leaves the routers out (--tags), and they list {', '.join(asked)}"
    return replace(change, steps=tuple(replace(step, outage=True) for step in kept), outages=(why,))


_NO_FRONT = "there is no front (pd_front_port), so that clients see each change behind their router"
_COLOCATED = "pd_mode is colocated: clients ask the one engine itself"


class _Maker:
    """Makes the steps, and keeps what serves in between."""

    def __init__(self, seen: Seen, options: Options) -> None:
        self.seen, self.colocated, self.front = seen, options.colocated, options.front
        self.engines, self.unavailable = options.engines, max(1, options.unavailable)
        self.roles: tuple[Role, ...] = ("decoder",) if options.colocated else ROLES
        only = options.only
        # Whether the run is about the whole deployment.
        self.everything = only is None
        self.drained = tuple(one for one in seen.planned if one.drained)
        self.target = tuple(
            one
            for one in seen.instances
            if not one.drained and (one.planned if only is None or one.name in only else one.listed)
        )
        # Whether there can be a service at the end.
        self.serviceable = self._serves(self.target)
        self.todo = tuple(
            one
            for one in self.target
            if one.todo and (only is None or one.name in only) and (self.serviceable or not one.ready)
        )
        # A router that this run does not reach may list what is not planned.
        strays = () if seen.unseen_routers or only is not None else seen.strays
        self.ended = (*strays, *(one for one in self.drained if one.to_stop and one.up))
        self.tidied = tuple(one for one in self.target if only is None or one.name in only)
        # What runs as planned, for comparisons.
        self.ready = tuple(one for one in self.target if one.ready)
        # What gets requests now, and may go on.
        self.serving = tuple(one for one in seen.instances if one.serving)
        # Whether there is a service to interrupt.
        self.works = self._serves(self.serving) and (seen.routed or options.colocated)
        self.steps: list[Step] = []
        self.outages: list[str] = []

    def change(self) -> Change:
        if self._settled():
            if self.everything and not self.seen.files_settled:
                self.steps.append(Step(None if self.colocated else self.target, serving=self.target))
        elif not self.engines:
            self._routers_only()
        elif not self.works:
            self._from_nothing()
        elif any(one.other_key for one in self.serving if one.planned and not one.drained):
            self.outages.append("the engines' key (pd_api_key) changes, which engines and routers share")
            self._at_once(self.todo)
        elif not self.front:
            self._without_front()
        elif any(one.other_version for one in self.todo if one.serving):
            self._versions()
        else:
            self._roll()
        self._note_unseen_routers()
        outages = tuple(dict.fromkeys(self.outages))
        tidied = self.tidied if self.steps else ()
        return Change(tuple(self.steps), outages, self.target, tidied, self.drained)

    def _note_unseen_routers(self) -> None:
        """A router that this run does not reach goes on asking the instances that it changes."""
        unseen = ", ".join(self.seen.unseen_routers)
        for number, step in enumerate(self.steps):
            asked = [one.name for one in step.changed if one.serving]
            if unseen and asked and self.works and not step.outage:
                self.steps[number] = replace(step, outage=True)
                self.outages.append(
                    f"the routers of {unseen} are not in this run, and list {', '.join(asked)}"
                )

    def _settled(self) -> bool:
        gone = any(one.listed for one in self.drained)
        routed = self.colocated or self.seen.routers_settled or not self.serviceable
        return not self.todo and not self.ended and not gone and routed

    def _serves(self, instances: Iterable[SeenInstance]) -> bool:
        return {one.role for one in instances} >= set(self.roles)

    def _routers_only(self) -> None:
        """The engines stay as they are. Half-way through a change of version, one alone is listed."""
        if self.colocated:
            return
        if self.works:
            mixed = any(one.other_version for one in self.serving)
            self.target = tuple(one for one in self.target if one.serving or (one.ready and not mixed))
        self.steps.append(Step(self.target, serving=self.target, outage=self._relisted()))
        if self._relisted():
            self.outages.append(_NO_FRONT)

    def _relisted(self) -> bool:
        """Return whether a router that serves is started anew, without a front to hide it."""
        return not (self.front or self.colocated) and self._list_differs() and self.works

    def _list_differs(self) -> bool:
        listed = {api for apis in self.seen.lists.values() for api in apis}
        wanted = {api for one in self.target for api in one.planned_apis}
        return listed != wanted or (self.everything and self.seen.routers_differ)

    def _from_nothing(self) -> None:
        """Nothing serves: everything at once."""
        if self.todo or self.ended:
            self.steps.append(Step(removed=self.ended, changed=self.todo, partners=self.ready))
        self._list_all()

    def _list_all(self) -> None:
        if self.serviceable and not self.colocated:
            self.steps.append(Step(listed=self.target, serving=self.target))

    def _without_front(self) -> None:
        """A router that gets another list is started anew; clients of a colocated engine ask no other."""
        if any(one.serving for one in (*self.todo, *self.ended)):
            self.outages.append(_COLOCATED if self.colocated else _NO_FRONT)
            self._at_once(self.todo)
            return
        if self.todo or self.ended:
            self.steps.append(
                Step(removed=self.ended, changed=self.todo, serving=self.serving, partners=self.ready)
            )
        if self._relisted():
            # Only for as long as the router starts.
            self.outages.append(_NO_FRONT)
            self.steps.append(Step(listed=self.target, serving=self.target, outage=True))
        elif not self.seen.routers_settled:
            self._list_all()

    def _at_once(self, changed: Sequence[SeenInstance]) -> None:
        """All that is left at once, while nothing serves."""
        listed = None if self.colocated else ()
        self.steps.append(Step(listed, self.ended, tuple(changed), (), self.ready, outage=True))
        self._list_all()

    def _startable(self) -> tuple[list[SeenInstance], list[SeenInstance]]:
        """Return what serves nobody and is to start: those whose chips and ports are free, and the others."""
        down = [one for one in self.todo if not one.serving]
        held = [one for one in down if self._blocked(one, self.seen.instances)]
        return [one for one in down if one not in held], held

    def _blocked(self, one: SeenInstance, by: Iterable[SeenInstance]) -> bool:
        return any(other is not one and other.in_the_way_of(one) for other in by)

    def _start(self, free: Sequence[SeenInstance], partners: Sequence[SeenInstance]) -> None:
        """Start what serves nobody, beside what does."""
        if not free:
            return
        dead = any(one.listed and not one.serving for one in self.seen.instances)
        # A router goes on asking what it lists: what is dead leaves the list first.
        listed = self.serving if dead else None
        self.steps.append(Step(listed, (), tuple(free), self.serving, tuple(partners)))

    # Behind a front, with instances that may serve together.

    def _roll(self) -> None:
        free, held = self._startable()
        current = [one for one in self.serving if one in self.target]
        rolling = [one for one in self.todo if one.serving]
        self._start(free, [one for one in current if one.ready or one.why])
        joined = [*current, *free]
        joined, held = self._replaced(joined, held, rolling)
        last = self._last_of_role(rolling, joined)
        if last or not self._serves(joined):
            leaving = [one for one in self.serving if one not in current]
            self._outage(last or leaving, [*rolling, *held])
            return
        removed = self.ended
        blocked = [one for one in held if not self._blocked(one, rolling)]
        if blocked:
            self.steps.append(_step(joined, removed, blocked))
            removed, joined = (), [*joined, *blocked]
        for batch in self._batches(rolling, joined):
            self.steps.append(_step([one for one in joined if one not in batch], removed, batch))
            removed = ()
        behind = [one for one in held if one not in blocked]
        if behind:
            self.steps.append(_step(joined, removed, behind))
            removed = ()
        self.steps.append(Step(self.target, removed, (), self.target))

    def _replaced(
        self,
        joined: list[SeenInstance],
        held: list[SeenInstance],
        rolling: Sequence[SeenInstance],
    ) -> tuple[list[SeenInstance], list[SeenInstance]]:
        """Replace what leaves by what needs its chips or ports, one after the other, where all at once would
        leave nothing of a role. Return what serves then, and what is left to start."""
        for one in held if not self._serves(joined) else ():
            gone = [old for old in self.ended if old.in_the_way_of(one)]
            rest = [old for old in self.ended if old.serving and old not in gone and not old.other_version]
            if not gone or self._blocked(one, rolling) or not self._serves([*joined, *rest]):
                continue
            self.steps.append(_step([*joined, *rest], tuple(gone), [one]))
            joined = [*joined, one]
            held = [other for other in held if other is not one]
            self.ended = tuple(old for old in self.ended if old not in gone)
        return joined, held

    def _last_of_role(
        self, rolling: Sequence[SeenInstance], joined: Sequence[SeenInstance]
    ) -> list[SeenInstance]:
        """Return those that nothing else of their role would stand in for."""
        return [
            one for one in rolling if not any(other.role == one.role for other in joined if other is not one)
        ]

    def _outage(self, last: Sequence[SeenInstance], changed: Sequence[SeenInstance]) -> None:
        """The rest at once, with a closed front."""
        for one in last:
            others = sum(other.role == one.role for other in self.serving)
            why = f"{one.name} is the {'only' if others < 2 else 'last'} {one.role}"
            if one.drained:
                why += ", and is drained"
            elif not one.planned:
                why += ", and what is to replace it needs its chips or ports"
            self.outages.append(why)
        self._at_once(changed)

    def _batches(
        self, rolling: Sequence[SeenInstance], joined: Sequence[SeenInstance]
    ) -> Iterator[list[SeenInstance]]:
        """Yield what is changed at once: of each role as many as may be unavailable, and never all."""
        queues = {role: [one for one in rolling if one.role == role] for role in self.roles}
        sizes = {
            role: min(self.unavailable, sum(one.role == role for one in joined) - 1) for role in self.roles
        }
        while any(queues.values()):
            waiting = [one for queue in queues.values() for one in queue]
            batch: list[SeenInstance] = []
            for role, queue in queues.items():
                # First those whose new chips and ports no other one still has.
                ready = [one for one in queue if not self._blocked(one, waiting)] or queue
                batch += ready[: sizes[role]]
            for queue in queues.values():
                queue[:] = [one for one in queue if one not in batch]
            yield batch

    # Behind a front, with two versions that must not serve together.

    def _versions(self) -> None:
        """First one part in the new version, while the other serves; then that part serves alone."""
        # What this run does not reach stays in the version before.
        self.target = tuple(one for one in self.target if not one.elsewhere)
        self.serviceable = self._serves(self.target)
        free, held = self._startable()
        same = [one for one in self.serving if one.ready and not one.elsewhere]
        old = [one for one in self.serving if one not in same]
        self._start(free, same)
        half = self._half([*free, *same], old)
        left = [one for one in old if one not in half]
        new = [*free, *half, *same]
        rest = [one for one in left if one in self.target]
        if not self._serves([*left, *same]) or not self._serves(new):
            self._version_outage([one for one in old if one in self.target], held, old)
            return
        if half:
            serving = (*left, *same)
            self.steps.append(Step(serving, (), tuple(half), serving, (*free, *same)))
        self.steps.append(_step(new, self.ended, [*rest, *held]))
        self.steps.append(Step(self.target, (), (), self.target))

    def _half(self, new: Sequence[SeenInstance], old: Sequence[SeenInstance]) -> list[SeenInstance]:
        """Return the first part: half of the old instances of each role that has no new one yet."""
        half: list[SeenInstance] = []
        for role in self.roles:
            if not any(one.role == role for one in new):
                mine = [one for one in old if one.role == role]
                ours = [one for one in mine if one in self.target]
                half += ours[: len(mine) // 2]
        return half

    def _version_outage(
        self,
        changing: Sequence[SeenInstance],
        held: Sequence[SeenInstance],
        old: Sequence[SeenInstance],
    ) -> None:
        found = {release for one in changing for release in (one.release, one.planned_release)}
        pair = " and ".join(sorted(found)) if len(found) > 1 else "what runs and what is planned"
        few = [role for role in self.roles if sum(one.role == role for one in old) == 1]
        only = f", and there is only one {' and one '.join(few)}" if few else ""
        self.outages.append(f"{pair} must not be paired{only}")
        self._at_once([*changing, *held])


def _step(
    serving: Sequence[SeenInstance], removed: tuple[SeenInstance, ...], changed: Sequence[SeenInstance]
) -> Step:
    """Return a step in which everything that serves may be paired with what is changed."""
    listed = tuple(serving)
    return Step(listed, removed, tuple(changed), listed, listed)
