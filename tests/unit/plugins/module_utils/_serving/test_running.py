# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What containers say of themselves by their labels, and a server by its mark."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import running


def container(name, role, state="running", image="sha256:1", **labels):
    own = {"pd_rollout.role": role, **{f"pd_rollout.{key}": value for key, value in labels.items()}}
    return {"Names": [f"/{name}"], "State": state, "ImageID": image, "Labels": own}


ENGINE = {
    "instance": "decode",
    "release": "v0.13.0",
    "version": "abc",
    "chips": "0,1,15",
    "apis": "10.0.0.3:8004,10.0.0.3:8005",
}


def test_an_engine_says_what_it_is_and_where_it_serves():
    found = [
        container("pd-p", "prefiller"),
        container("pd-d", "decoder", **ENGINE),
        container("pd-proxy", "proxy"),
    ]
    decoder, prefiller = running.containers(found, {"pd-d": "sha256:1"})
    assert decoder == {
        "name": "pd-d",
        "instance": "decode",
        "role": "decoder",
        "state": "running",
        "up": True,
        "image": "sha256:1",
        "other_image": False,
        "release": "v0.13.0",
        "version": "abc",
        "chips": [0, 1, 15],
        "apis": ["10.0.0.3:8004", "10.0.0.3:8005"],
        "model": "",
        "key": "",
    }
    # One of an earlier version of the collection.
    assert (prefiller["name"], prefiller["instance"], prefiller["version"]) == ("pd-p", "", "")
    assert (prefiller["chips"], prefiller["apis"]) == ([], None)


@pytest.mark.parametrize(
    ("state", "up"),
    [
        ("running", True),
        ("restarting", True),
        ("paused", True),
        ("created", False),
        ("exited", False),
        ("dead", False),
    ],
)
def test_which_states_hold_chips_and_ports(state, up):
    (engine,) = running.containers([container("pd-d", "decoder", state)], {})
    assert (engine["state"], engine["up"]) == (state, up)
    routers = running.routers_up([container("pd-proxy", "proxy", state, hash="h")])
    assert routers == ([{"name": "pd-proxy", "hash": "h"}] if up else [])
    lists = running.lists([container("pd-proxy", "proxy", state)], None)
    assert (lists is not None) is up


def test_an_image_differs_only_from_one_that_is_planned_and_there():
    found = [container("pd-d", "decoder", image="sha256:old")]
    for images, differs in (({"pd-d": "sha256:new"}, True), ({"pd-d": "sha256:old"}, False), ({}, False)):
        assert running.containers(found, images)[0]["other_image"] is differs


ROUTERS = [
    container("pd-d", "decoder", **ENGINE),
    container("pd-router-blue", "proxy", hash="b", prefillers="10.0.0.1:8004", decoders=""),
    container("pd-router-green", "proxy", hash="g", prefillers="", decoders="10.0.0.3:8004,10.0.0.4:8004"),
]
BLUE = {"prefillers": ["10.0.0.1:8004"], "decoders": []}
GREEN = {"prefillers": [], "decoders": ["10.0.0.3:8004", "10.0.0.4:8004"]}


def test_of_two_routers_the_list_of_the_one_that_gets_the_requests_counts():
    assert running.lists(ROUTERS, {"active": "blue"}) == BLUE
    assert running.lists(ROUTERS, {"active": "green"}) == GREEN
    # There is no front yet: clients ask the router that runs.
    assert running.lists(ROUTERS, {"active": None}) == running.lists(ROUTERS, None)
    assert running.lists(ROUTERS[:2], {"active": "green"}) is None
    assert running.lists(ROUTERS[:2], None) == BLUE
    assert running.lists(ROUTERS[:1], None) is None


def test_routers_that_run_by_name():
    assert running.routers_up(ROUTERS[::-1]) == [
        {"name": "pd-router-blue", "hash": "b"},
        {"name": "pd-router-green", "hash": "g"},
    ]


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ('{"stop": true}', "stopped"),
        ('{"stop": false}', "drained"),
        ("{}", "drained"),
        ("[]", "drained"),
        # Somebody was interrupted.
        ("", "drained"),
        ('{"stop"', "drained"),
    ],
)
def test_the_mark_of_a_drained_server(tmp_path, text, mark):
    assert running.drained(str(tmp_path)) == ""
    (tmp_path / "drained.json").write_text(text)
    assert running.drained(str(tmp_path)) == mark


def test_without_a_directory_nothing_is_drained(tmp_path):
    assert running.drained(None) == ""
    assert running.drained(str(tmp_path / "absent")) == ""
    # A mark that cannot be read is one.
    (tmp_path / "drained.json").mkdir()
    assert running.drained(str(tmp_path)) == "drained"
