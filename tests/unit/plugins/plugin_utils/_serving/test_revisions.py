# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a revision says, which one runs, and to which one a deployment goes back."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import revisions
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import (
    GroupShape,
    raw_inventory,
)

SERVERS = ("p1", "p2", "d1", "d2")
IMAGE, OTHER_IMAGE = "sha256:one", "sha256:two"


def plan(decoders=("d1", "d2"), **variables):
    """Two prefillers and two decoders, each on a server; the router beside the first prefiller."""
    hosts = ("p1", "p2", *decoders)
    shapes = {
        "prefiller": GroupShape((), ("p1", "p2"), ("p1", "p2")),
        "decoder": GroupShape((), decoders, decoders),
        "proxy": GroupShape(("p1",), ("p1",), ()),
        **{f"{name}": GroupShape((name,), (name,), ()) for name in hosts},
    }
    own = {
        name: {
            "ansible_host": f"198.51.100.{1 + SERVERS.index(name)}",
            "pd_image": "registry.example/vllm-ascend:v0.13.0-a3",
            "pd_model_path": "/weights/model",
            "pd_served_model_name": "model",
            "pd_profile": "generic",
            "pd_parallel": {"tensor": 16},
            **variables,
        }
        for name in hosts
    }
    return planner.make(raw_inventory("four", shapes, own)).to_dict()


BEFORE = plan()
MORE = plan(pd_engine_args={"max-num-seqs": 32})
FEWER = plan(decoders=("d1",))


def looks(of, image=IMAGE, drained=(), weights="", revision=None):
    """What deployment_info finds where a plan is deployed."""
    return {
        host: {
            "nodes": [{"instance": one["instance"], "seconds": 61.5} for one in share["engines"]],
            "containers": [
                {"name": one["container"], "up": True, "image": image, "other_image": False}
                for one in share["engines"]
            ],
            "drained": "drained" if host in drained else "",
            "weights": weights,
            "revision": revision if host == "p1" else None,
        }
        for host, share in of["hosts"].items()
    }


def record(number, of=BEFORE, texts=None, **more):
    made = revisions.of_plan(of, looks(of, **more), texts or {}, who="me@here", when="2026-03-01T10:15:00Z")
    return {"revision": number, **made}


def found(of, image=IMAGE, drained=()):
    """What revision_info finds where a plan is deployed."""
    return {
        host: {
            "containers": [
                {
                    "name": one["container"],
                    "role": one.get("role", "proxy"),
                    "image": image,
                    "hash": one["labels"]["pd_rollout.hash"],
                }
                for one in (*share["engines"], *share["routers"])
            ],
            "front": "",
            "drained": "drained" if host in drained else "",
        }
        for host, share in of["hosts"].items()
    }


def test_a_record():
    made = record(3)
    assert (made["topology"], made["release"], made["who"]) == ("2P2D", "v0.13.0", "me@here")
    assert made["image"] == {"reference": "registry.example/vllm-ascend:v0.13.0-a3", "ids": [IMAGE]}
    assert made["seconds"]["d2"] == {"d2": 61.5}
    assert made["servers"] == {name: f"198.51.100.{1 + n}" for n, name in enumerate(SERVERS)}
    assert list(made["routers"]) == ["p1"]
    assert list(made["instances"]) == list(SERVERS)
    # It is kept as JSON, as the plan is.
    assert json.loads(json.dumps(made)) == made
    assert json.loads(json.dumps(BEFORE)) == BEFORE


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (record(2), True),
        (record(2, MORE), False),
        (record(2, FEWER), False),
        (record(2, image=OTHER_IMAGE), False),
        (record(2, weights="a"), True),
    ],
    ids=["the same", "another argument", "a server less", "another image", "weights that were not known"],
)
def test_what_makes_another_revision(other, same):
    assert revisions.same(record(1), other) is same
    assert revisions.same(record(1, weights="b"), {**other, "weights": "c"}) is False


@pytest.mark.parametrize(
    ("known", "kept", "changes", "due"),
    [
        (None, None, False, True),
        (record(4), record(4), False, False),
        (record(4), record(4), True, True),
        (record(4, MORE), record(4, MORE), False, True),
        (record(4, image=OTHER_IMAGE), record(4, image=OTHER_IMAGE), False, True),
        # Another controller has made it.
        (record(4), None, False, True),
        (record(4), record(3), False, True),
    ],
    ids=["the first", "converged", "a change", "another plan", "another image", "none here", "older here"],
)
def test_when_there_is_a_revision_to_keep(known, kept, changes, due):
    assert revisions.due(BEFORE, looks(BEFORE, revision=known), known, kept, changes=changes) is due


def test_a_router_s_server_that_lacks_it_gets_it():
    assert revisions.due(BEFORE, looks(BEFORE, revision=record(3)), record(4), record(4), changes=False)


def test_the_image_of_a_drained_server_does_not_count():
    made = looks(BEFORE, drained=["d2"])
    made["d2"]["containers"][0]["image"] = OTHER_IMAGE
    assert revisions.image_ids(made) == [IMAGE]


def test_weights_that_differ_between_servers_are_not_known():
    made = looks(BEFORE, weights="a")
    assert revisions.weights(made) == "a"
    made["d2"]["weights"] = "b"
    assert revisions.weights(made) == ""


@pytest.mark.parametrize(
    ("now", "runs"),
    [
        (found(BEFORE), True),
        (found(MORE), False),
        (found(FEWER), False),
        (found(BEFORE, image=OTHER_IMAGE), False),
        ({**found(BEFORE), "d2": found(MORE, drained=["d2"])["d2"]}, True),
        ({**found(BEFORE), "d2": found(MORE)["d2"]}, False),
        ({name: {**one, "containers": []} for name, one in found(BEFORE).items()}, False),
        ({**found(BEFORE), "p1": {**found(BEFORE)["p1"], "front": "a"}}, False),
    ],
    ids=["it", "other", "fewer", "image", "drained", "half-way", "stopped", "front"],
)
def test_whether_a_revision_runs(now, runs):
    assert revisions.runs(record(1), now) is runs


def test_back_to_the_newest_that_does_not_run():
    good, bad = record(1), record(2, MORE)
    # After a change that failed, which is no revision.
    assert revisions.before([good], found(MORE)) is good
    # After a good one.
    assert revisions.before([good, bad], found(MORE)) is good
    # After going back.
    assert revisions.before([good, bad, record(3)], found(BEFORE)) is bad
    assert revisions.before([good], found(BEFORE)) is None
    assert revisions.before([], found(BEFORE)) is None


def test_front_alone_changes_a_revision():
    fronted = {**record(2), "hash": "another", "fronts": {"p1": "a"}}
    now = found(BEFORE)
    now["p1"]["front"] = "a"
    assert revisions.before([record(1), fronted], now)["revision"] == 1


def test_the_revisions_of_all_places_and_of_one_deployment():
    other = {**record(3), "deployment": "other"}
    stores = [[record(1), other], [record(2)], [record(1)]]
    assert [one["revision"] for one in revisions.merged(stores, "pd")] == [1, 2]
    assert revisions.newest([None, record(1), other, record(2)], "pd")["revision"] == 2
    assert revisions.newest([None], "pd") is None


def test_texts_that_must_not_have_changed():
    texts = {f"{p} {d}": ["a"] for p in ("p1", "p2") for d in ("d1", "d2")}
    old = record(1, texts=texts)
    now = looks(BEFORE)
    assert revisions.known_texts(BEFORE, now, old) == texts
    assert set(revisions.known_texts(FEWER, now, old)) == {"p1 d1", "p2 d1"}
    # Where one of the two is of another version.
    other = copy.deepcopy(old)
    other["instances"]["p1"]["version"] = "another"
    assert set(revisions.known_texts(BEFORE, now, other)) == {"p2 d1", "p2 d2"}
    assert revisions.known_texts(BEFORE, now, None) == {}


def test_other_weights_and_another_image_may_answer_otherwise():
    old = record(1, weights="a", texts={"p1 d1": ["a"]})
    now = looks(BEFORE, weights="a")
    assert revisions.known_texts(BEFORE, now, old) == {"p1 d1": ["a"]}
    assert revisions.known_texts(BEFORE, looks(BEFORE, weights="b"), old) == {}
    now["d1"]["containers"][0]["other_image"] = True
    assert revisions.known_texts(BEFORE, now, old) == {}


def test_the_list():
    made = [record(1), record(2, MORE), record(3, FEWER), record(4, FEWER, image=OTHER_IMAGE)]
    assert revisions.lines(made) == [
        "revision  when              who      release  topology  what changed",
        "4         2026-03-01 10:15  me@here  v0.13.0  2P1D      image",
        "3         2026-03-01 10:15  me@here  v0.13.0  2P1D      removed d2; changed p1, p2, d1",
        "2         2026-03-01 10:15  me@here  v0.13.0  2P2D      changed p1, p2, d1, d2",
        "1         2026-03-01 10:15  me@here  v0.13.0  2P2D      -",
    ]


def test_the_list_names_release_weights_and_routers():
    new = {**record(2, weights="b"), "release": "v0.18.0", "routers": {}, "fronts": {"p1": "a"}}
    assert revisions.difference(new, record(1, weights="a")) == "v0.13.0 to v0.18.0; weights; routers; front"
    assert revisions.difference(record(2), record(1)) == "other settings of the plan"


def test_servers_that_one_of_the_two_lacks():
    assert revisions.missing_servers(record(1), ["p1", "p2", "d1"]) == {"d2": "198.51.100.4"}
    assert revisions.missing_servers(record(1, FEWER), SERVERS) == {}
    made = revisions.with_servers(FEWER, {name: f"198.51.100.{1 + n}" for n, name in enumerate(SERVERS)})
    assert made["hash"] == FEWER["hash"]
    assert list(made["hosts"]) == ["p1", "p2", "d1", "d2"]
    assert made["hosts"]["d2"].keys() == made["hosts"]["p1"].keys()
    assert made["hosts"]["d2"]["directory"] == "/etc/pd_rollout/pd"
    assert not revisions.occupied(made["hosts"]["d2"])
    # A plan of a revision to which one had gone back has such a part itself.
    assert revisions.with_servers(made, {"p1": "", "p2": "", "d1": ""}) == FEWER


def test_a_plan_from_before_the_guard_has_none():
    hosts = {
        host: {
            **{key: value for key, value in share.items() if key != "guard"},
            "engines": [
                {key: value for key, value in engine.items() if key != "guarded"}
                for engine in share["engines"]
            ],
        }
        for host, share in FEWER["hosts"].items()
    }
    made = revisions.with_servers({**FEWER, "hosts": hosts}, dict.fromkeys(SERVERS, ""))
    assert [share["guard"] for share in made["hosts"].values()] == [None] * 4
    assert revisions.deployed(made) == revisions.deployed(FEWER)


@pytest.mark.parametrize("changes", [{"pd_guard": False}, {"pd_guard_port": 8500}])
def test_another_guard_is_nothing_else_that_is_deployed(changes):
    """A revision is what serves: engines, routers, fronts."""
    assert revisions.deployed(plan(**changes)) == revisions.deployed(BEFORE)
