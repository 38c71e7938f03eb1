# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import deployment_server
from ansible_collections.ascend.pd_rollout.plugins.module_utils.deployment_server import (
    compare,
    digest,
    outdated,
)

KEY = {"pd_rollout.key": "0123456789ab"}


def labels(instance, role="decoder", hash_="a", **more):
    return {"pd_rollout.role": role, "pd_rollout.instance": instance, "pd_rollout.hash": hash_, **more}


def container(name, state="running", image="sha256:1", **more):
    script = f"/etc/pd_rollout/pd/{name.removeprefix('pd-')}.sh"
    return {
        "Names": [f"/{name}"],
        "State": state,
        "ImageID": image,
        "Labels": labels(name.removeprefix("pd-"), **more),
        "Mounts": [{"Source": "/root/.cache"}, {"Source": script}],
    }


def planned(name, secret_path=None):
    return {
        "container": name,
        "image": "vllm-ascend",
        "labels": labels(name.removeprefix("pd-")),
        "secret_path": secret_path,
    }


def look(containers, plan, images=None):
    return compare(containers, ["prefiller", "decoder"], plan, KEY, images or {})


def test_as_planned():
    assert look([container("pd-decode1")], [planned("pd-decode1")], {"vllm-ascend": "sha256:1"}) == {
        "strays": [],
        "running": ["pd-decode1"],
        "broken": [],
    }


@pytest.mark.parametrize(
    ("found", "running"),
    [
        pytest.param([], False, id="missing"),
        pytest.param([container("pd-decode1", "exited")], False, id="stopped"),
        pytest.param([container("pd-decode1", "created")], False, id="never-started"),
        pytest.param([container("pd-decode1", "restarting")], True, id="restarting"),
        pytest.param([container("pd-decode1", hash_="b")], True, id="another-script"),
        pytest.param([container("pd-decode1", image="sha256:2")], True, id="another-image"),
    ],
)
def test_broken(found, running):
    result = look(found, [planned("pd-decode1")], {"vllm-ascend": "sha256:1"})
    assert result["broken"] == ["decode1"]
    assert result["running"] == (["pd-decode1"] if running else [])


def test_a_changed_key_breaks_what_reads_it():
    plan = [planned("pd-decode1", "/etc/pd_rollout/pd/api_key")]
    assert look([container("pd-decode1")], plan)["broken"] == ["decode1"]
    assert look([container("pd-decode1", **KEY)], plan)["broken"] == []


def test_what_is_not_planned_is_a_stray_but_other_roles_are_not():
    result = look([container("pd-decode2"), container("pd-proxy", role="proxy")], [])
    assert result["strays"] == [
        {"name": "pd-decode2", "image": "sha256:1", "scripts": ["/etc/pd_rollout/pd/decode2.sh"]}
    ]


def files_of(folder):
    return {
        "script": "exec vllm serve\n",
        "script_path": str(folder / "pd" / "decode1.sh"),
        "secret_path": str(folder / "pd" / "api_key"),
    }


@pytest.fixture
def written(tmp_path):
    """A slice whose files are as planned."""
    plan = files_of(tmp_path)
    (tmp_path / "pd").mkdir(mode=0o700)
    for path, text, mode in (
        (plan["script_path"], plan["script"], 0o700),
        (plan["secret_path"], "key", 0o600),
    ):
        Path(path).write_text(text)
        Path(path).chmod(mode)
    return plan


def outdated_of(plan, key="key"):
    return [Path(path).name for path in outdated([plan], digest(key), os.getuid())]


def test_missing_files_are_outdated_with_their_directory(tmp_path):
    assert outdated_of(files_of(tmp_path)) == ["pd", "decode1.sh", "api_key"]


def test_files_as_planned_are_not_outdated(written):
    assert outdated_of(written) == []


def test_changed_content_is_outdated(written):
    assert outdated_of({**written, "script": "exec vllm serve --other\n"}) == ["decode1.sh"]
    assert outdated_of(written, "another") == ["api_key"]


def test_changed_modes_are_outdated(written, tmp_path):
    (tmp_path / "pd").chmod(0o755)
    (tmp_path / "pd" / "api_key").chmod(0o644)
    assert outdated_of(written) == ["pd", "api_key"]


NODES = [{"host": "prefill2", "rank": 1}, {"host": "prefill1", "rank": 0}]
FIRST, SECOND = "2026-01-02T03:04:05.6Z", "2026-01-02T03:09:05.6Z"


class Docker:
    """A Docker Engine with containers that may be started again, by whom it may be."""

    def __init__(self, *names):
        self.list = [container(name) for name in names]
        self.starts = {name: {"container": "c1", "at": FIRST, "restarts": 0} for name in names}

    def containers(self, labels):
        return self.list

    def image_id(self, reference):
        return None

    def inspect(self, name):
        start = self.starts.get(name)
        if start is None:
            return None
        state = {"StartedAt": start["at"], "Status": "running"}
        return {"Id": start["container"], "State": state, "RestartCount": start["restarts"]}


@pytest.fixture
def docker(monkeypatch):
    engine = Docker("pd-decode1")
    monkeypatch.setattr(deployment_server, "DockerApi", lambda path: engine)
    return engine


@pytest.fixture
def group(written):
    """A slice of a node of an instance on two servers, with its files."""
    return {**planned("pd-decode1"), **written, "secret_path": None, "ready": {"nodes": NODES}}


def state_of(*plans, check_mode=False):
    return deployment_server.state(
        {
            "docker_socket": "",
            "deployment": "pd",
            "roles": ["decoder"],
            "planned": list(plans),
            "secret_labels": {},
            "secret_digest": "",
            "require_engine": True,
            "_check_mode": check_mode,
        }
    )


def note(plan, before=(), generation="run1", check_mode=False):
    return deployment_server.record(
        {
            "docker_socket": "",
            "planned": [plan],
            "before": list(before),
            "generation": generation,
            "_check_mode": check_mode,
        }
    )


def test_a_start_is_noted_once_and_then_known(docker, group):
    assert state_of(group)["nodes"] == [
        {
            "container": "pd-decode1",
            "instance": "decode1",
            "group": ["prefill1", "prefill2"],
            "why": "",
            "started_at": FIRST,
            "noted": False,
            "generation": "",
        }
    ]
    assert note(group) == {"changed": True, "started": ["pd-decode1"], "noted": ["pd-decode1"]}
    seen = state_of(group)
    assert seen["broken"] == []
    (node,) = seen["nodes"]
    assert (node["why"], node["noted"], node["generation"]) == ("", True, "run1")
    assert note(group, seen["nodes"], "run2") == {"changed": False, "started": [], "noted": []}
    assert state_of(group)["nodes"] == seen["nodes"]


def test_what_runs_without_a_note_is_noted_as_of_nobody(docker, group):
    before = state_of(group)["nodes"]
    assert note(group, before) == {"changed": True, "started": [], "noted": ["pd-decode1"]}
    assert state_of(group)["nodes"][0]["generation"] == ""
    docker.starts["pd-decode1"]["at"] = SECOND
    assert state_of(group)["broken"] == ["decode1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"at": SECOND}, "its container was started outside of a rollout, at 2026-01-02T03:09:05Z"),
        ({"container": "c2"}, "its container was started outside of a rollout, at 2026-01-02T03:04:05Z"),
        ({"restarts": 1}, "the Docker Engine has restarted its container (1 time)"),
    ],
    ids=["started-again", "made-by-hand", "restarted"],
)
def test_a_node_that_was_started_since_is_broken_though_it_runs(docker, group, change, why):
    note(group)
    docker.starts["pd-decode1"].update(change)
    seen = state_of(group)
    assert (seen["running"], seen["broken"]) == (["pd-decode1"], ["decode1"])
    assert seen["nodes"][0]["why"] == why


def test_an_engine_that_is_alone_may_be_restarted(docker, group):
    alone = {**group, "ready": {"nodes": NODES[:1]}}
    docker.starts["pd-decode1"].update(at=SECOND, restarts=3)
    assert state_of(alone)["broken"] == []
    assert note(alone, state_of(alone)["nodes"]) == {"changed": False, "started": [], "noted": []}


def test_nothing_is_noted_in_check_mode(docker, group):
    assert note(group, check_mode=True) == {"changed": False, "started": [], "noted": []}
    assert not state_of(group, check_mode=True)["nodes"][0]["noted"]


@pytest.mark.parametrize("content", ["", "[]", "no json"])
def test_a_note_that_cannot_be_read_is_none(docker, group, content):
    deployment_server.record_path(group).write_text(content)
    assert not state_of(group)["nodes"][0]["noted"]


class Proxy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, *args):
        """Nothing on the screen."""


@pytest.fixture
def proxy(written):
    """(server, slice) of a proxy that runs."""
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.answer = {"status": "ok", "prefill_instances": 2, "decode_instances": 1}
        expected = {"prefill_instances": 2, "decode_instances": 1}
        url = f"http://127.0.0.1:{server.server_port}/healthcheck"
        plan = {**planned("pd-decode1"), **written, "secret_path": None}
        yield server, {**plan, "health_url": url, "expected": expected}
        server.shutdown()


def test_a_proxy_with_the_planned_backends_is_left_alone(docker, proxy):
    assert state_of(proxy[1])["broken"] == []


def test_a_proxy_whose_list_was_changed_is_broken(docker, proxy):
    server, plan = proxy
    server.answer["prefill_instances"] = 1
    seen = state_of(plan)
    assert seen["broken"] == ["decode1"]
    assert "prefill_instances 1 instead of 2" in seen["nodes"][0]["why"]


def test_a_proxy_that_does_not_answer_may_be_starting(docker, proxy):
    server, plan = proxy
    assert state_of({**plan, "health_url": "http://127.0.0.1:9/healthcheck"})["broken"] == []
    server.answer = []
    assert state_of(plan)["broken"] == []
