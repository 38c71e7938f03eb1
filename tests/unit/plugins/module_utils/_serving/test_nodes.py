# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A node that runs is not thereby in the group that it was started for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import entry, nodes

NODES = [{"host": "prefill2", "rank": 1}, {"host": "prefill1", "rank": 0}]
FIRST, SECOND = "2026-01-02T03:04:05.6Z", "2026-01-02T03:09:05.6Z"


def container(name, state="running"):
    labels = {"pd_rollout.role": "decoder", "pd_rollout.instance": name[len("pd-") :]}
    return {"Names": [f"/{name}"], "State": state, "ImageID": "sha256:1", "Labels": labels, "Mounts": []}


@pytest.fixture
def alone(tmp_path):
    """A slice of the plan, of an instance on one server."""
    labels = {"pd_rollout.role": "decoder", "pd_rollout.instance": "decode1"}
    return {
        "container": "pd-decode1",
        "image": "vllm-ascend",
        "labels": labels,
        "script": "exec vllm serve\n",
        "script_path": str(tmp_path / "decode1.sh"),
        "secret_path": None,
        "ready": {"nodes": NODES[:1]},
    }


@pytest.fixture
def group(alone):
    """The same of an instance on two servers."""
    return {**alone, "ready": {"nodes": NODES}}


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
        return {
            "Id": start["container"],
            "State": state,
            "RestartCount": start["restarts"],
            "HostConfig": {"RestartPolicy": {"Name": "no"}},
        }


@pytest.fixture
def docker(monkeypatch):
    engine = Docker("pd-decode1")
    for module in (entry, nodes):
        monkeypatch.setattr(module, "DockerApi", lambda path: engine)
    return engine


def state_of(*plans, check_mode=False):
    return entry.state(
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


def note(plan, before=(), generation="run1", check_mode=False, seconds=None):
    return nodes.record(
        {
            "docker_socket": "",
            "planned": [plan],
            "before": list(before),
            "generation": generation,
            "seconds": seconds or {},
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
            "mend": "",
            "started_at": FIRST,
            "noted": False,
            "generation": "",
            "pending": False,
            "seconds": None,
            "answers": True,
        }
    ]
    assert note(group) == {"changed": True, "started": ["pd-decode1"], "noted": ["pd-decode1"]}
    seen = state_of(group)
    assert seen["broken"] == []
    (node,) = seen["nodes"]
    assert (node["why"], node["noted"], node["generation"]) == ("", True, "run1")
    assert note(group, seen["nodes"], "run2") == {"changed": False, "started": [], "noted": []}
    assert state_of(group)["nodes"] == seen["nodes"]


def test_how_long_a_start_took_is_kept_over_the_next_one(docker, alone, group):
    """Of engines that are alone as well, and beside what is noted of a group."""
    for plan in (alone, group):
        note(plan)
        assert note(plan, seconds={"pd-decode1": 81.5})["changed"]
        (node,) = state_of(plan)["nodes"]
        assert node["seconds"] == 81.5
    docker.starts["pd-decode1"]["at"] = SECOND
    note(group, generation="run2")
    (node,) = state_of(group)["nodes"]
    assert (node["seconds"], node["generation"]) == (81.5, "run2")


@pytest.mark.parametrize(("policy", "pending"), [("no", False), ("unless-stopped", True)])
def test_another_restart_policy_is_pending_and_no_reason_to_stop(docker, alone, policy, pending):
    (node,) = state_of({**alone, "restart_policy": policy})["nodes"]
    assert (node["why"], node["pending"]) == ("", pending)


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


def test_an_engine_that_is_alone_may_be_restarted(docker, alone):
    docker.starts["pd-decode1"].update(at=SECOND, restarts=3)
    assert state_of(alone)["broken"] == []
    assert note(alone, state_of(alone)["nodes"]) == {"changed": False, "started": [], "noted": []}


def test_nothing_is_noted_in_check_mode(docker, group):
    assert note(group, check_mode=True) == {"changed": False, "started": [], "noted": []}
    assert not state_of(group, check_mode=True)["nodes"][0]["noted"]


@pytest.mark.parametrize("content", ["", "[]", "no json"])
def test_a_note_that_cannot_be_read_is_none(docker, group, content):
    nodes.record_path(group).write_text(content)
    assert not state_of(group)["nodes"][0]["noted"]


class Proxy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, *args):
        """Nothing on the screen."""


@pytest.fixture
def proxy(alone):
    """(server, slice) of a proxy that runs."""
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.answer = {"status": "ok", "prefill_instances": 2, "decode_instances": 1}
        expected = {"prefill_instances": 2, "decode_instances": 1}
        url = f"http://127.0.0.1:{server.server_port}/healthcheck"
        yield server, {**alone, "ready": None, "health_url": url, "expected": expected}
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


@pytest.mark.parametrize(
    ("state", "why"),
    [("exited", "its container is exited"), (None, "there is no container")],
    ids=["stopped", "missing"],
)
def test_a_node_that_does_not_run_is_told_as_it_is(docker, group, state, why):
    docker.list = [container("pd-decode1", state)] if state else []
    assert [node["why"] for node in state_of(group)["nodes"]] == [why]


def recorded(docker, plan, monkeypatch):
    """The result of deployment_record, with a Docker Engine in place of the real one."""
    monkeypatch.setattr(nodes, "DockerApi", lambda _socket: docker)
    options = {"planned": [plan], "before": [], "generation": "g", "docker_socket": "", "_check_mode": False}
    return nodes.record(options)


def test_a_record_that_cannot_be_written_is_a_finding(group, monkeypatch, tmp_path):
    plan = {**group, "script_path": str(tmp_path / "missing" / "decode1.sh")}
    result = recorded(Docker("pd-decode1"), plan, monkeypatch)
    assert result["failed"]
    (finding,) = result["findings"]
    assert finding["code"] == "engine-start-unrecorded"
    assert finding["path"] == str(tmp_path / "missing")
    assert finding["seen"] == "No such file or directory"
    assert result["msg"].startswith("The starts of this run cannot be recorded.")


def test_a_silent_engine_is_a_finding_of_the_record(group, monkeypatch):
    docker = Docker("pd-decode1")
    monkeypatch.setattr(docker, "inspect", silent)
    result = recorded(docker, group, monkeypatch)
    assert result["failed"]
    assert [finding["code"] for finding in result["findings"]] == ["docker-silent"]
    assert result["findings"][0]["seen"] == "no answer"


def silent(_name):
    raise DockerError("no answer")


@pytest.fixture
def router(proxy):
    """(server, slice) of a vllm-router that runs."""
    server, plan = proxy
    server.answer = {
        "workers": [
            {"url": "http://p:1", "worker_type": "prefill", "is_healthy": True},
            {"url": "http://d:1", "worker_type": "decode", "is_healthy": False},
        ]
    }
    return server, {**plan, "expected": {"prefill": ["http://p:1"], "decode": ["http://d:1"]}}


def test_a_router_with_the_planned_backends_is_left_alone(docker, router):
    """Also if one is unhealthy: another start of the router would not change that."""
    assert state_of(router[1])["broken"] == []


def test_a_router_that_lost_a_backend_is_broken(docker, router):
    server, plan = router
    del server.answer["workers"][1]
    seen = state_of(plan)
    assert seen["broken"] == ["decode1"]
    assert seen["nodes"][0]["why"].endswith("decode none instead of http://d:1")
