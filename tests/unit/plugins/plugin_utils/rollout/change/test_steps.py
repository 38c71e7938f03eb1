# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The order of a change: who serves in each step, and what needs an outage."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.seen import (
    Part,
    Seen,
    SeenInstance,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.steps import (
    Options,
    Step,
    steps,
)

ROLES = ("prefiller", "decoder")


def part(name, host, up=True, chips=range(16)):
    return Part(host, f"pd-{name}", up, frozenset(chips), (f"{host}:8004",))


def instance(name, role, host=None, **more):
    """An instance on a server of its own that runs as planned and is listed."""
    host = host or f"host-{name}"
    own = (part(name, host),)
    return replace(
        SeenInstance(name, role, True, own, own, ready=True, listed=True),
        **more,
    )


def prefiller(name, **more):
    return instance(name, "prefiller", **more)


def decoder(name, **more):
    return instance(name, "decoder", **more)


def stray(name, role, host=None, **more):
    return replace(instance(name, role, host), planned=False, wanted=(), ready=False, **more)


DIFFERS = {"ready": False, "why": "its container was created from another plan", "mend": "make"}
NEW = {"ready": False, "why": "there is no container", "mend": "make", "parts": (), "listed": False}
OLD = {**DIFFERS, "other_version": True, "release": "v0.18.0", "planned_release": "v0.23.0"}


def seen(*instances, routed=True, settled=True, unseen_routers=()):
    lists = {
        role: frozenset(api for one in instances if one.role == role and one.listed for api in one.apis)
        for role in ROLES
    }
    return Seen(instances, lists, routed, settled, unseen_routers=unseen_routers)


def short(change):
    """Steps as tuples of names: (listed, removed, changed), and whether it is an outage."""

    def names(found):
        return None if found is None else " ".join(one.name for one in found)

    return [(names(s.listed), names(s.removed), names(s.changed), s.outage) for s in change.steps]


def behind_a_front(found, **more):
    return steps(found, Options(front=True, colocated=False, **more))


def test_nothing_to_do():
    assert short(behind_a_front(seen(prefiller("p1"), decoder("d1")))) == []


def test_a_first_deployment_is_started_at_once():
    found = seen(prefiller("p1", **NEW), decoder("d1", **NEW), routed=False, settled=False)
    assert short(behind_a_front(found)) == [(None, "", "p1 d1", False), ("p1 d1", "", "", False)]


def test_one_instance_of_each_role_after_the_other():
    found = seen(
        *(prefiller(f"p{n}", **DIFFERS) for n in (1, 2)), *(decoder(f"d{n}", **DIFFERS) for n in (1, 2))
    )
    assert short(behind_a_front(found)) == [
        ("p2 d2", "", "p1 d1", False),
        ("p1 d1", "", "p2 d2", False),
        ("p1 p2 d1 d2", "", "", False),
    ]


def test_more_at_once_but_never_all():
    found = seen(prefiller("p1"), *(decoder(f"d{n}", **DIFFERS) for n in (1, 2, 3)))
    assert short(behind_a_front(found, unavailable=5)) == [
        ("p1 d3", "", "d1 d2", False),
        ("p1 d1 d2", "", "d3", False),
        ("p1 d1 d2 d3", "", "", False),
    ]


def test_the_only_one_of_its_role_needs_an_outage():
    change = behind_a_front(seen(prefiller("p1"), decoder("d1", **DIFFERS)))
    assert short(change) == [("", "", "d1", True), ("p1 d1", "", "", False)]
    assert change.outages == ("d1 is the only decoder",)


def test_the_repair_of_what_is_down_needs_none():
    down = {"ready": False, "why": "its container is exited", "mend": "restart"}
    dead = decoder("d1", parts=(part("d1", "host-d1", up=False),), **down)
    assert short(behind_a_front(seen(prefiller("p1"), dead))) == [
        (None, "", "d1", False),
        ("p1 d1", "", "", False),
    ]
    # What is dead leaves the list, if another one serves.
    assert short(behind_a_front(seen(prefiller("p1"), dead, decoder("d2")))) == [
        ("p1 d2", "", "d1", False),
        ("p1 d1 d2", "", "", False),
    ]


def test_new_instances_start_beside_the_others():
    found = seen(prefiller("p1"), prefiller("p2", **NEW), decoder("d1"))
    assert short(behind_a_front(found)) == [(None, "", "p2", False), ("p1 p2 d1", "", "", False)]


def test_what_is_no_longer_planned_leaves_the_list_before_it_ends():
    found = seen(prefiller("p1"), stray("p2", "prefiller"), decoder("d1"))
    assert short(behind_a_front(found)) == [("p1 d1", "p2", "", False)]


def test_an_instance_that_moves_is_replaced_before_it_ends():
    found = seen(prefiller("p1"), stray("d0", "decoder"), decoder("d1", **NEW))
    assert short(behind_a_front(found)) == [(None, "", "d1", False), ("p1 d1", "d0", "", False)]


def test_chips_of_what_leaves():
    """A new instance waits for the chips of one that leaves; of the last one, that is an outage."""
    old, new = stray("d0", "decoder", "host"), decoder("d1", host="host", **NEW)
    found = seen(prefiller("p1"), old, new, decoder("d2"))
    assert short(behind_a_front(found)) == [("p1 d2", "d0", "d1", False), ("p1 d1 d2", "", "", False)]
    change = behind_a_front(seen(prefiller("p1"), old, new))
    assert short(change) == [("", "d0", "d1", True), ("p1 d1", "", "", False)]
    assert change.outages == ("d0 is the only decoder, and what is to replace it needs its chips or ports",)


def test_chips_of_what_shrinks():
    """A new instance beside one that is made anew with fewer chips starts after it."""
    shrinks = decoder("d1", host="host", **DIFFERS)
    new = decoder("d3", host="host", **NEW)
    found = seen(prefiller("p1"), shrinks, decoder("d2"), new)
    changed = [step[2] for step in short(behind_a_front(found))]
    assert changed == ["d1", "d3", ""]


def test_chips_that_move_on_one_server():
    """p1 grows into what p2 leaves: p2 first."""
    low, high = (Part("host", "pd-p1", True, frozenset({0, 1}), ("host:1",)),), range(2, 4)
    wide = (Part("host", "pd-p1", True, frozenset(range(4)), ("host:1",)),)
    p2 = (Part("host", "pd-p2", True, frozenset(high), ("host:2",)),)
    other = (Part("other", "pd-p2", True, frozenset(high), ("other:2",)),)
    found = seen(
        prefiller("p1", parts=low, wanted=wide, **DIFFERS),
        prefiller("p2", parts=p2, wanted=other, **DIFFERS),
        decoder("d1"),
    )
    assert [step[2] for step in short(behind_a_front(found))] == ["p2", "p1", ""]


def test_all_of_a_role_renamed_are_replaced_one_by_one():
    old = [stray(f"d{n}", "decoder", f"host{n}") for n in (1, 2)]
    new = [decoder(f"e{n}", host=f"host{n}", **NEW) for n in (1, 2)]
    change = behind_a_front(seen(prefiller("p1"), *new, *old))
    assert not change.outages
    assert [step[1:3] for step in short(change)] == [("d1", "e1"), ("d2", "e2"), ("", "")]
    # Of another version they must not serve together.
    before = [replace(one, other_version=True) for one in old]
    assert behind_a_front(seen(prefiller("p1"), *new, *before)).outages


def test_what_was_replaced_is_not_ended_again_by_an_outage():
    old = [stray(f"d{n}", "decoder", f"host{n}") for n in (1, 2)]
    new = [decoder(f"e{n}", host=f"host{n}", **NEW) for n in (1, 2)]
    change = behind_a_front(seen(prefiller("p1", **DIFFERS), *new, *old))
    assert [step[1:] for step in short(change)] == [
        ("d1", "e1", False),
        ("d2", "e2", False),
        ("", "p1", True),
        ("", "", False),
    ]


def test_without_a_front_a_new_instance_costs_a_restart_of_the_router_alone():
    found = seen(prefiller("p1"), decoder("d1"), decoder("d2", **NEW))
    change = steps(found, Options(front=False, colocated=False))
    assert short(change) == [(None, "", "d2", False), ("p1 d1 d2", "", "", True)]


def test_two_versions_never_meet():
    found = seen(*(prefiller(f"p{n}", **OLD) for n in (1, 2)), *(decoder(f"d{n}", **OLD) for n in (1, 2)))
    change = behind_a_front(found)
    assert short(change) == [
        ("p2 d2", "", "p1 d1", False),
        ("p1 d1", "", "p2 d2", False),
        ("p1 p2 d1 d2", "", "", False),
    ]
    # What is new is compared with what is new.
    assert [one.name for one in change.steps[0].partners] == []
    assert [one.name for one in change.steps[1].partners] == ["p1", "d1"]


def test_two_versions_of_one_pair_need_an_outage():
    change = behind_a_front(seen(prefiller("p1", **OLD), decoder("d1", **OLD), decoder("d2", **OLD)))
    assert short(change) == [("", "", "p1 d1 d2", True), ("p1 d1 d2", "", "", False)]
    assert change.outages == ("v0.18.0 and v0.23.0 must not be paired, and there is only one prefiller",)


def test_a_spare_pair_takes_over():
    found = seen(prefiller("p1", **OLD), decoder("d1", **OLD), prefiller("p2", **NEW), decoder("d2", **NEW))
    assert short(behind_a_front(found)) == [
        (None, "", "p2 d2", False),
        ("p2 d2", "", "p1 d1", False),
        ("p1 d1 p2 d2", "", "", False),
    ]


def test_without_a_front_each_change_is_an_outage():
    found = seen(prefiller("p1"), decoder("d1"), decoder("d2", **DIFFERS))
    change = steps(found, Options(front=False, colocated=False))
    assert short(change) == [("", "", "d2", True), ("p1 d1 d2", "", "", False)]
    assert "no front" in change.outages[0]


def test_without_a_front_a_dead_engine_is_just_started():
    dead = decoder("d2", parts=(part("d2", "host-d2", up=False),), ready=False, why="exited", mend="restart")
    assert short(
        steps(seen(prefiller("p1"), decoder("d1"), dead), Options(front=False, colocated=False))
    ) == [(None, "", "d2", False)]


def test_without_a_front_a_router_that_is_gone_is_just_started():
    """Another one serves; one that runs and is not as planned is started anew, which clients see."""
    found = seen(prefiller("p1"), decoder("d1"), settled=False)
    options = Options(front=False, colocated=False)
    assert short(steps(found, options)) == [("p1 d1", "", "", False)]
    assert steps(replace(found, routers_differ=True), options).outage


def test_a_drained_instance_leaves_the_list_and_stays():
    found = seen(prefiller("p1"), decoder("d1", drained=True), decoder("d2"))
    assert short(behind_a_front(found)) == [("p1 d2", "", "", False)]
    change = behind_a_front(seen(prefiller("p1"), decoder("d1", drained=True)))
    assert change.outage
    assert change.outages == ("d1 is the only decoder, and is drained",)


def test_routers_that_this_run_does_not_reach():
    found = seen(prefiller("p1"), decoder("d1", **DIFFERS), decoder("d2"), unseen_routers=("server2",))
    change = behind_a_front(found)
    assert change.outage
    assert change.outages == ("the routers of server2 are not in this run, and list d1",)


def test_a_run_that_leaves_the_routers_out():
    """Only what serves nobody may be changed, unless nothing serves."""
    engines = Options(front=True, colocated=False, routers=False)
    change = steps(seen(prefiller("p1", **DIFFERS), decoder("d1")), engines)
    assert short(change) == [(None, "", "p1", True)]
    assert change.outages == ("this run leaves the routers out (--tags), and they list p1",)
    change = steps(seen(prefiller("p1", **DIFFERS), decoder("d1", **NEW)), engines)
    assert short(change) == [(None, "", "p1 d1", False)]
    assert not change.outages
    change = steps(seen(prefiller("p1"), decoder("d1"), decoder("d2", **NEW)), engines)
    assert short(change) == [(None, "", "d2", False)]


def test_a_run_that_leaves_the_engines_out():
    routers = Options(front=True, colocated=False, engines=False)
    found = seen(prefiller("p1", **DIFFERS), decoder("d1"), settled=False)
    assert short(steps(found, routers)) == [("p1 d1", "", "", False)]


def world(rng):
    """A deployment as it may be: what is listed is of one version, or as planned before and after."""
    upgrade = rng.random() < 0.5
    # The role that the upgrade does not change, if there is one.
    unchanged = rng.choice([*ROLES, None, None])
    instances = []
    for role in ROLES:
        listed = [OLD] if upgrade and role != unchanged else [{}, {}, DIFFERS]
        for number in range(rng.randint(1, 4)):
            name = f"{role[0]}{number}"
            down = {"parts": (part(name, f"host-{name}", up=False),)}
            others = [
                NEW,
                {**DIFFERS, **down, "mend": "restart"},
                {"listed": False},
                {**OLD, "listed": False},
            ]
            more = rng.choice(listed if rng.random() < 0.7 else others)
            instances.append(instance(name, role, **more))
        if rng.random() < 0.4:
            host = rng.choice([None, f"host-{role[0]}0"])
            instances.append(stray(f"{role[0]}x", role, host, other_version=upgrade))
    return instances


def after(instances, step: Step):
    """The deployment after a step."""
    changed, removed = {one.name for one in step.changed}, {one.name for one in step.removed}
    listed = None if step.listed is None else {one.name for one in step.listed}
    return [
        replace(
            one,
            **(
                {"ready": True, "why": "", "mend": "", "other_version": False, "parts": one.wanted}
                if one.name in changed
                else {}
            ),
            listed=one.listed if listed is None else one.name in listed,
        )
        for one in instances
        if one.name not in removed
    ]


@pytest.mark.parametrize("seed", range(300))
def test_what_holds_in_every_change(seed):
    """No instance is changed while it is listed; no role is empty without an outage; no two versions are
    listed together; and a change that ends after any step is completed by the next run."""
    rng = random.Random(seed)
    found = world(rng)
    both = {one.name for one in found if one.listed and not one.other_version}
    front, stop_after = rng.random() < 0.8, rng.randint(0, 5)
    for _ in range(4):
        change = steps(seen(*found), Options(front=front, colocated=False, unavailable=rng.randint(1, 2)))
        assert bool(change.outages) == change.outage
        for step in change.steps[: stop_after or None]:
            working = {one.role for one in found if one.serving} == {*ROLES}
            if working and front and not step.outage:
                _holds(found, step, both)
            found = after(found, step)
        stop_after = 0
    assert all(one.ready and one.listed and one.planned for one in found)
    assert steps(seen(*found), Options(front=front, colocated=False)).steps == ()


def _holds(found, step, both):
    """What must hold while something serves: the step's list has both roles, of one version, and none of what
    the step ends. ``both``: what is of both versions."""
    served = {one.name for one in found if one.serving}
    listed = served if step.listed is None else {one.name for one in step.listed}
    ended = {one.name for one in (*step.changed, *step.removed)}
    assert not ended & listed & served
    assert {one.role for one in found if one.name in listed - ended} == {*ROLES}
    assert len({one.other_version for one in found if one.name in listed - both}) < 2
    partners = {one.name for one in step.partners}
    assert not [one for one in found if one.name in partners - both and one.other_version and step.changed]
