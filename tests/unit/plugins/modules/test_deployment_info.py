# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import http.server
import os
import re
import threading
import types
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action import deployment_groups
from ansible_collections.ascend.pd_rollout.plugins.action.deployment_groups import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.contents import text_sha256
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import entry
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.entry import (
    compare,
    key_ids,
    outdated,
    reduced,
)

ID = "0123456789abcdef"
KEY = {"pd_rollout.key": ID}


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
    ids = {"/etc/pd_rollout/pd/api_key": ID}
    return compare(containers, ["prefiller", "decoder"], plan, ids, images or {})


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
    assert look([container("pd-decode1", **{"pd_rollout.key": "0" * 16})], plan)["broken"] == ["decode1"]
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
        (plan["secret_path"] + ".id", ID, 0o600),
    ):
        Path(path).write_text(text)
        Path(path).chmod(mode)
    return plan


def outdated_of(plan, key="key"):
    ids = key_ids([plan], text_sha256(key), os.getuid())
    return [Path(path).name for path in outdated([plan], text_sha256(key), ids, os.getuid())]


def test_missing_files_are_outdated_with_their_directory(tmp_path):
    assert outdated_of(files_of(tmp_path)) == ["pd", "decode1.sh", "api_key.id", "api_key"]


def test_files_as_planned_are_not_outdated(written):
    assert outdated_of(written) == []


def test_changed_content_is_outdated(written):
    assert outdated_of({**written, "script": "exec vllm serve --other\n"}) == ["decode1.sh"]
    assert outdated_of(written, "another") == ["api_key.id", "api_key"]


def test_the_name_of_a_key_is_by_chance_and_stays_with_it(written):
    path, owner = written["secret_path"], os.getuid()
    assert key_ids([written], text_sha256("key"), owner) == {path: ID}
    others = {key_ids([written], text_sha256("another"), owner)[path] for _ in range(3)}
    assert len(others | {ID}) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in others)
    # What is no name of a key, or could be somebody else's, is none.
    for text, mode in (("0123", 0o600), ("", 0o600), (ID, 0o644)):
        Path(path + ".id").write_text(text)
        Path(path + ".id").chmod(mode)
        assert key_ids([written], text_sha256("key"), owner)[path] != text
    assert key_ids([{**written, "secret_path": None}], text_sha256("key"), owner) == {}


def test_changed_modes_are_outdated(written, tmp_path):
    (tmp_path / "pd").chmod(0o755)
    (tmp_path / "pd" / "api_key").chmod(0o644)
    assert outdated_of(written) == ["pd", "api_key"]


def test_the_server_is_not_told_environment_and_script(written):
    plan = {**written, "env": {"A": "hunter22"}, "argv": ["hunter22"], "ranks": [], "container": "pd-d"}
    (slice_,) = reduced([plan])
    assert "hunter22" not in str(slice_)
    assert plan["script"] not in str(slice_)
    assert outdated_of(slice_) == []
    assert outdated_of({**slice_, "script_digest": text_sha256("other")}) == ["decode1.sh"]
    assert reduced([slice_]) == [slice_]


@pytest.mark.parametrize("installed", [True, False])
def test_what_an_engine_that_is_down_still_has_is_told(tmp_path, monkeypatch, installed):
    """Where none is installed there is nothing to remove, and nothing to say."""
    monkeypatch.setattr(entry.shutil, "which", lambda _: "/usr/bin/dockerd" if installed else None)
    found = entry.state(
        {
            "deployment": "pd",
            "roles": ["prefiller", "decoder", "proxy"],
            "planned": [],
            "secret_digest": "",
            "require_engine": False,
            "docker_socket": str(tmp_path / "docker.sock"),
            "_check_mode": False,
        }
    )
    assert (found["reachable"], found["strays"], found["settled"]) == (False, [], False)
    reduced = " ".join(found.get("warnings", []))
    assert ("containers of deployment pd, if any, were not removed" in reduced) == installed
    assert bool(reduced) == installed


class Answers(http.server.BaseHTTPRequestHandler):
    """/health is well, /healthcheck counts one prefiller, everything else is not there."""

    def do_GET(self):
        body = {"/health": b"", "/healthcheck": b'{"prefill_instances": 1}'}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize(
    ("checks", "serves"),
    [
        pytest.param([], True, id="a node without an API"),
        pytest.param([("/health", {})], True, id="an engine"),
        pytest.param([("/health", {}), ("/none", {})], False, id="one of two ranks"),
        pytest.param([("/healthcheck", {"prefill_instances": 1})], True, id="the proxy"),
        pytest.param([("/healthcheck", {"prefill_instances": 2})], False, id="a proxy with another list"),
    ],
)
def test_settled_is_what_is_as_planned_and_serves(server, monkeypatch, checks, serves):
    class Docker:
        def __init__(self, _socket):
            pass

        def containers(self, _labels):
            return []

    monkeypatch.setattr(entry, "DockerApi", Docker)
    planned = [{"health": [{"url": server + path, "expect": expect} for path, expect in checks]}]
    monkeypatch.setattr(entry, "compare", lambda *_: {"strays": [], "running": [], "broken": []})
    monkeypatch.setattr(entry, "outdated", lambda *_: [])
    monkeypatch.setattr(entry, "key_ids", lambda *_: {})
    options = {"deployment": "pd", "roles": [], "secret_digest": "", "require_engine": True}
    options |= {"docker_socket": "", "_check_mode": False, "planned": [{**planned[0], "image": "x"}]}
    Docker.image_id = lambda *_: None
    node = {"pending": False, "why": "", "instance": "decoder"}
    monkeypatch.setattr(entry.deployment_nodes, "look", lambda *_: [node])
    assert entry.state(options)["settled"] is serves
    monkeypatch.setattr(entry.deployment_nodes, "look", lambda *_: [{**node, "pending": True}])
    assert entry.state(options)["settled"] is False
    monkeypatch.setattr(entry.deployment_nodes, "look", lambda *_: [node])
    monkeypatch.setattr(entry, "outdated", lambda *_: ["/etc/pd_rollout/pd/decoder.sh"])
    assert entry.state(options)["settled"] is False


@pytest.mark.parametrize(
    ("looks", "settled"),
    [
        ({"p1": True, "d1": True}, True),
        ({"p1": True, "d1": False}, False),
        ({"p1": True, "d1": None}, False),
    ],
    ids=["all", "all but one", "one did not answer"],
)
def test_a_deployment_is_settled_when_all_servers_are(looks, settled):
    action = ActionModule.__new__(ActionModule)
    results = {
        name: {} if one is None else {"__found": {"nodes": [], "settled": one}} for name, one in looks.items()
    }
    hostvars = types.SimpleNamespace(raw_get=results.get)
    found = action.work({"servers": list(looks), "result": "__found"}, {"hostvars": hostvars})
    assert found["settled"] is settled


def test_a_group_that_is_stopped_is_not_settled(monkeypatch):
    """All its nodes serve, but not of one start."""
    node = {"container": "pd-p", "instance": "p", "group": ["p1", "p2"], "why": "", "pending": False}
    node |= {"started_at": "now", "noted": True}
    results = {
        name: {"__found": {"nodes": [{**node, "generation": run}], "running": ["pd-p"], "settled": True}}
        for name, run in (("p1", "one"), ("p2", "another"))
    }
    monkeypatch.setattr(deployment_groups, "show", lambda _text: None)
    action = ActionModule.__new__(ActionModule)
    options = {"servers": ["p1", "p2"], "result": "__found"}
    found = action.work(options, {"hostvars": types.SimpleNamespace(raw_get=results.get)})
    assert found["stop"] == {"p1": ["pd-p"], "p2": ["pd-p"]}
    assert found["settled"] is False
