# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What routers are to list, and when the front answers itself."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.lists import (
    GOOD,
    HARD,
    SOFT,
    Decision,
    Status,
    decide,
    node_status,
    worst,
)
from hypothesis import given
from hypothesis import strategies as st

BASE = ["p1", "p2", "d1", "d2"]
ROLES = {name: "prefiller" if name.startswith("p") else "decoder" for name in [*BASE, "p3", "d3"]}
GOODS = dict.fromkeys(BASE, Status(GOOD))


def of(listed: list[str] = BASE, unproven: set[str] | None = None, **kinds: str) -> Decision:
    statuses = {**GOODS, **{name: Status(kind, "it fails") for name, kind in kinds.items()}}
    return decide(ROLES, BASE, listed, statuses, unproven or set())


def test_where_all_is_well_all_are_listed() -> None:
    assert of() == Decision(tuple(BASE))
    # Without a status nothing speaks against it.
    assert decide(ROLES, BASE, BASE, {}, set()) == Decision(tuple(BASE))


@pytest.mark.parametrize("kind", [SOFT, HARD])
def test_what_fails_leaves_the_list_while_another_one_of_its_role_serves(kind: str) -> None:
    assert of(p1=kind) == Decision(("p2", "d1", "d2"))
    assert of(p1=kind, d2=kind) == Decision(("p2", "d1"))


@pytest.mark.parametrize(("kind", "closed"), [(SOFT, ""), (HARD, "no decoder answers")])
def test_the_last_of_a_role_stay_and_the_front_answers_only_if_none_can(kind: str, closed: str) -> None:
    assert of(d1=kind, d2=kind) == Decision(tuple(BASE), closed)
    # One left before, the other one fails now.
    assert of(["p1", "p2", "d2"], d1=HARD, d2=kind) == Decision(("p1", "p2", "d2"), closed)


def test_one_that_may_answer_keeps_the_front_open() -> None:
    assert of(d1=SOFT, d2=HARD) == Decision(tuple(BASE))


def test_all_roles_without_an_answer_are_named() -> None:
    closed = of(p1=HARD, p2=HARD, d1=HARD, d2=HARD).closed
    assert closed == "no prefiller answers; no decoder answers"


def test_what_is_well_again_proves_itself_before_it_is_listed() -> None:
    assert of(["p2", "d1", "d2"], {"p1"}) == Decision(("p2", "d1", "d2"), "", ("p1",))
    assert of(["p2", "d1", "d2"]) == Decision(tuple(BASE))
    # While it fails there is nothing to prove.
    assert of(["p2", "d1", "d2"], {"p1"}, p1=HARD).compare == ()


def test_of_a_role_that_has_just_started_clients_are_told() -> None:
    decision = of(BASE, {"d1", "d2"})
    assert decision.closed == "the decoder has just started and is being tested"
    assert (decision.listed, decision.compare) == (tuple(BASE), ("d1", "d2"))


def test_one_that_has_proved_itself_replaces_those_that_stayed() -> None:
    assert of(["p1", "p2", "d1"], d1=HARD) == Decision(("p1", "p2", "d2"))


def test_what_no_rollout_has_listed_is_never_listed() -> None:
    statuses = {**GOODS, "p3": Status(GOOD)}
    assert decide(ROLES, BASE, BASE, statuses, set()).listed == tuple(BASE)


KINDS = st.sampled_from([GOOD, SOFT, HARD])


@given(
    st.lists(st.sampled_from(sorted(ROLES)), unique=True),
    st.dictionaries(st.sampled_from(sorted(ROLES)), KINDS),
    st.sets(st.sampled_from(sorted(ROLES))),
    st.sets(st.sampled_from(sorted(ROLES))),
)
def test_whatever_happens_no_role_is_emptied_and_nothing_good_is_left_out(
    base: list[str], kinds: dict[str, str], listed: set[str], unproven: set[str]
) -> None:
    statuses = {name: Status(kind, "it fails") for name, kind in kinds.items()}
    found = decide(ROLES, base, listed & set(base), statuses, unproven)
    assert set(found.listed) <= set(base)
    assert list(found.listed) == [name for name in base if name in found.listed]
    for role in set(ROLES.values()):
        mine = [name for name in base if ROLES[name] == role]
        chosen = [name for name in found.listed if ROLES[name] == role]
        good = [name for name in mine if kinds.get(name, GOOD) == GOOD and name not in unproven]
        assert bool(chosen) == bool(mine)
        if good:
            assert chosen == good
            assert role not in found.closed
        if any(kinds.get(name) == SOFT for name in chosen):
            assert role not in found.closed
        if mine and all(kinds.get(name) == HARD for name in mine):
            assert f"no {role} answers" in found.closed
    assert all(name in unproven and kinds.get(name, GOOD) == GOOD for name in found.compare)
    # Once carried out, it is the same again.
    assert decide(ROLES, base, found.listed, statuses, unproven) == found


def test_how_a_node_is() -> None:
    assert node_status("up", "", "").kind == GOOD
    assert node_status("up", "", "it hangs") == Status(SOFT, "it hangs")
    assert node_status("loading", "", "") == Status(HARD, "it is loading")
    assert node_status("down", "it ended with status 1", "it hangs") == Status(HARD, "it ended with status 1")


def test_an_instance_is_as_its_worst_node() -> None:
    soft, hard = Status(SOFT, "it hangs"), Status(HARD, "it ended")
    assert worst([Status(GOOD), soft, hard]) is hard
    assert worst([soft, Status(GOOD)]) is soft
    assert worst([]) == Status(GOOD)
