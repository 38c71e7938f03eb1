# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a change and what stands where, for people."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.seen import (
    Part,
    Seen,
    SeenInstance,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.steps import (
    Change,
    Options,
    Step,
    steps,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.change.table import (
    duration,
    reasons,
    state,
    table,
)


def instance(name, role, **more):
    own = (Part(f"host-{name}", f"pd-{name}", True, frozenset(range(16)), (f"host-{name}:8004",)),)
    return replace(SeenInstance(name, role, True, own, own, ready=True, listed=True), **more)


P1, P2 = (instance(f"p{n}", "prefiller") for n in (1, 2))
D1, D2 = (instance(f"d{n}", "decoder") for n in (1, 2))
DIFFERS = {"ready": False, "mend": "make", "why": "its image is another one"}
DOWN = {"ready": False, "mend": "restart", "why": "its container is exited", "listed": False}
FRONT = Options(front=True, colocated=False)


def seen(*instances):
    lists = {
        role: frozenset(api for one in instances if one.role == role and one.listed for api in one.apis)
        for role in ("prefiller", "decoder")
    }
    return Seen(instances, lists, routed=True, routers_settled=True)


def test_the_steps_with_capacity_and_time():
    change = steps(seen(P1, P2, replace(D1, **DIFFERS), replace(D2, **DIFFERS)), FRONT)
    assert table(change, {"d1": 840.0, "d2": 42.4}) == [
        "step  what          prefillers  decoders  time",
        "1     make anew d1  2 of 2      1 of 2    14.0 min",
        "2     make anew d2  2 of 2      1 of 2    42 s",
        "3     list all      2 of 2      2 of 2    -",
    ]


def test_an_outage_has_no_capacity():
    change = steps(seen(P1, replace(D1, **DIFFERS)), FRONT)
    assert table(change, {})[1:] == [
        "1     end the routers; make anew d1  0 of 1      0 of 1    ?",
        "2     list all                       1 of 1      1 of 1    -",
    ]


def test_a_role_that_is_not_there():
    change = Change((Step(serving=(D1,), changed=(D1,)),), target=(D1,))
    assert table(change, {"d1": 59.4})[1] == "1     wait for d1  -           1 of 1    59 s"


@pytest.mark.parametrize(
    ("changed", "seconds", "text"),
    [
        ((), {}, "-"),
        ((P1,), {}, "?"),
        ((P1, P2), {"p1": 10.0}, "?"),
        ((P1, P2), {"p1": 10.0, "p2": 30.0}, "30 s"),
        ((P1,), {"p1": 59.9}, "60 s"),
        ((P1,), {"p1": 60.0}, "1.0 min"),
        ((P1,), {"p1": 0.0}, "0 s"),
    ],
)
def test_the_slowest_start_counts(changed, seconds, text):
    assert duration(changed, seconds) == text


def test_why_each_instance_is_changed():
    gone = replace(P2, planned=False, ready=False, wanted=())
    change = Change(
        (Step(removed=(gone, replace(D2, drained=True)), changed=(replace(D1, **DIFFERS), replace(P1))),),
        drained=(D2,),
    )
    assert list(reasons(change)) == [
        "d1: its image is another one",
        "p1: it is not in the routers' list yet",
        "p2: the plan does not have it",
        "d2: left out, because a server of it is drained (playbooks/undrain.yml)",
    ]


def test_what_stands_where_after_a_failure():
    found = seen(
        P1,
        replace(P2, **DIFFERS),
        replace(D1, listed=False),
        replace(D2, **DOWN),
        replace(P1, name="old", planned=False, ready=False),
    )
    assert state(found) == [
        "serving as planned: p1",
        "serving as before: p2",
        "changed, not listed yet: d1",
        "not serving: d2",
        "no longer planned, and still there: old",
    ]
    assert state(seen()) == []
