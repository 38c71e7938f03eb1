# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the check of a server says of what was deployed there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import health
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import (
    HostRequirements,
    PlannedFront,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import nodes as deployment_nodes
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import report
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving.health import planned_container

LOADING = "Loading safetensors checkpoint shards:  26% Completed | 43/163 [00:10<00:30,  3.9it/s]\n"
READY = "INFO:     Application startup complete.\n"
STARTED, ENDED = "2026-01-02T03:04:05.6Z", "2026-01-02T04:04:05.6Z"


class Docker:
    """A Docker Engine with at most one container."""

    def __init__(self, status=None, log="", exit_code=0, restarts=0, error=None):
        self.status, self.log, self.error = status, log, error
        state = {"Status": status, "ExitCode": exit_code, "StartedAt": STARTED, "FinishedAt": ENDED}
        self.details = {"Id": "c1", "State": state, "RestartCount": restarts}

    def containers(self, labels):
        if self.error:
            raise DockerError(self.error)
        return [{"Names": ["/pd-decode1"]}] if self.status else []

    def inspect(self, name):
        return self.details

    def logs(self, name, tail, since=None):
        return self.log


@pytest.fixture
def engine(tmp_path):
    """An engine of the plan that is alone, with its launch script."""
    script = tmp_path / "decode1.sh"
    script.write_text("exec vllm serve\n")
    return {
        "container": "pd-decode1",
        "instance": "decode1",
        "node_rank": 0,
        "script_path": str(script),
        "api": {"host": "10.0.0.3", "port": 8004},
        "ranks": [],
        "ready": {"nodes": [{"host": "decode1", "rank": 0}]},
    }


def required(*planned, directory="/etc/pd_rollout/pd", front=None):
    """What a server must fulfil that shall run these containers of the plan."""
    return HostRequirements(
        name="decode1",
        address="10.0.0.3",
        directory=directory,
        chips=(),
        devices=(),
        paths=(),
        ports=(),
        peers={},
        deployment="pd",
        serving=tuple(map(planned_container, planned)),
        front=front,
    )


def findings(docker, *planned, answers=(True, "ok"), **more):
    """The findings of the check of a server that shall run these containers of the plan."""
    ask = answers if callable(answers) else lambda url, expect: answers
    return health.findings(required(*planned, **more), docker, ask)


def test_what_was_never_deployed_is_no_finding(engine):
    Path(engine["script_path"]).unlink()
    assert findings(Docker(), engine) == []
    assert findings(Docker(error="no answer"), engine) == []
    assert findings(Docker()) == []


def test_what_serves_is_no_finding(engine):
    assert findings(Docker("running", READY), engine) == []


def test_a_container_that_is_gone_is_told_by_its_script(engine):
    (finding,) = findings(Docker(), engine)
    assert (finding.code, finding.severity) == ("host-deployed-stopped", "error")
    assert finding.message == "decode1 is not running"


def test_a_silent_docker_engine_runs_nothing(engine):
    (finding,) = findings(Docker(error="no answer"), engine)
    assert finding.code == "host-deployed-stopped"
    assert "no answer" in finding.seen


def test_what_ended_says_how(engine):
    (finding,) = findings(Docker("exited", "RuntimeError: the device is lost\n", exit_code=0), engine)
    assert finding.code == "host-deployed-stopped"
    assert finding.seen == (
        "container exited, exit code 0, ended 2026-01-02T04:04:05Z: RuntimeError: the device is lost"
    )
    assert "docker logs --tail 50 pd-decode1" in finding.cure


def test_what_does_not_answer_says_how_far_it_is(engine):
    refused = (False, "Connection refused")
    (finding,) = findings(Docker("running", LOADING, restarts=2), engine, answers=refused)
    assert (finding.code, finding.severity) == ("host-deployed-silent", "error")
    assert finding.seen == (
        "http://10.0.0.3:8004/health Connection refused; still starting: loading shards 43 of 163"
        "; the Docker Engine has restarted it (2 times)"
    )
    (finding,) = findings(Docker("running", READY), engine, answers=(False, "HTTP 503"))
    assert finding.seen == "http://10.0.0.3:8004/health HTTP 503"


def test_every_rank_is_asked(engine):
    ranks = [{"rank": n, "api": {"host": "10.0.0.3", "port": 7100 + n}} for n in range(6)]
    late = {f"http://10.0.0.3:{7100 + n}/health" for n in range(1, 6)}
    answers = lambda url, expect: (url not in late, "no answer")  # noqa: E731
    (finding,) = findings(Docker("running", READY), {**engine, "ranks": ranks}, answers=answers)
    assert "7101" in finding.seen
    assert "and 2 more of 6 ranks" in finding.seen


def test_a_proxy_with_another_list_does_not_answer_as_planned(engine):
    expected = {"prefill_instances": 2, "decode_instances": 1}
    proxy = {"container": "pd-decode1", "script_path": engine["script_path"], "expected": expected}
    asked = []

    def answers(url, expect):
        asked.append((url, expect))
        return False, "answers {}"

    (finding,) = findings(
        Docker("running", READY), {**proxy, "health_url": "http://x/healthcheck"}, answers=answers
    )
    assert asked == [("http://x/healthcheck", expected)]
    assert finding.message == "proxy runs but does not answer correctly"


def test_a_node_that_was_started_alone_is_told_though_it_runs(engine):
    nodes = [{"host": "decode1", "rank": 0}, {"host": "decode2", "rank": 1}]
    node = {**engine, "ready": {"nodes": nodes}, "node_rank": 1, "api": None}
    note = deployment_nodes.record_path(node)
    note.write_text(json.dumps({"container": "c1", "started_at": STARTED}))
    assert findings(Docker("running"), node) == []
    note.write_text(json.dumps({"container": "c1", "started_at": ENDED}))
    (finding,) = findings(Docker("running"), node)
    assert (finding.code, finding.severity) == ("host-deployed-apart", "error")
    assert finding.message == "node 1 of decode1 was started without the other nodes of its instance"


def test_where_the_play_repairs_it_is_a_hint(engine):
    (finding,) = findings(Docker(), engine)
    assert report.repaired(finding).severity == "hint"
    other = replace(finding, code="host-device-missing")
    assert report.repaired(other) == other


@pytest.mark.parametrize(
    ("map_says", "missing"),
    [("active green\n", "green"), ("active blue\n", "blue"), ("", "blue"), (None, "blue")],
)
def test_of_two_routers_the_active_one_must_run(tmp_path, map_says, missing):
    routers = []
    for colour in ("blue", "green"):
        script = tmp_path / f"router-{colour}.sh"
        script.write_text("exec python3\n")
        routers.append(
            {
                "container": f"pd-router-{colour}",
                "colour": colour,
                "script_path": str(script),
                "health_url": "http://127.0.0.1:8005/healthcheck",
            }
        )
    if map_says is not None:
        (tmp_path / "router.map").write_text(map_says)
    found = findings(Docker(), *routers, front=PlannedFront(str(tmp_path), ("pd-front",), ("haproxy",)))
    assert [finding.message for finding in found] == [f"the {missing} router is not running"]


@pytest.mark.parametrize(
    ("mark", "seen"),
    [
        ('{"stop": false}', "its engines may go on running"),
        ('{"stop": true}', "its engines were to stop too"),
        ("cut o", "its engines may go on running"),
    ],
)
def test_of_a_drained_server_nothing_else_is_said(engine, tmp_path, mark, seen):
    ended = Docker("exited")
    (finding,) = findings(ended, engine, directory=str(tmp_path))
    assert finding.code == "host-deployed-stopped"
    (tmp_path / "drained.json").write_text(mark)
    (finding,) = findings(ended, engine, directory=str(tmp_path))
    assert (finding.code, finding.severity, finding.seen) == ("host-drained", "warning", seen)
    assert "playbooks/undrain.yml -e server=decode1" in finding.cure
    assert [one.code for one in findings(Docker("running"), engine, directory=str(tmp_path))] == [
        "host-drained"
    ]


def test_the_router_of_a_drained_server_must_run(engine, tmp_path):
    """Only its instances are out of service: others ask through it."""
    (tmp_path / "drained.json").write_text("{}")
    script = tmp_path / "proxy.sh"
    script.write_text("exec python3\n")
    proxy = {"container": "pd-proxy", "script_path": str(script), "health_url": "http://x/healthcheck"}
    found = findings(Docker(), engine, proxy, directory=str(tmp_path))
    assert [(one.code, one.message) for one in found] == [
        ("host-drained", "the server is drained"),
        ("host-deployed-stopped", "proxy is not running"),
    ]
    found = findings(Docker(error="no answer"), engine, proxy, directory=str(tmp_path))
    assert [one.code for one in found] == ["host-drained", "host-deployed-stopped"]


class Routers(Docker):
    """A Docker Engine with a router of each colour, which list different APIs."""

    def containers(self, labels):
        return [
            {
                "Names": [f"/pd-router-{colour}"],
                "State": "running",
                "Labels": {
                    "pd_rollout.role": "proxy",
                    "pd_rollout.prefillers": "10.0.0.1:8004",
                    "pd_rollout.decoders": decoders,
                },
            }
            for colour, decoders in (("blue", "10.0.0.3:8004"), ("green", "10.0.0.3:8004,10.0.0.4:8004"))
        ]


PLANNED = {
    "upstream": {"prefill_instances": 1, "decode_instances": 2},
    "vllm-router": {
        "prefill": ["http://10.0.0.1:8004"],
        "decode": ["http://10.0.0.3:8004", "http://10.0.0.4:8004"],
    },
}
LESS = {
    "upstream": {"prefill_instances": 1, "decode_instances": 1},
    "vllm-router": {"prefill": ["http://10.0.0.1:8004"], "decode": ["http://10.0.0.3:8004"]},
}


@pytest.mark.parametrize("kind", [*PLANNED])
@pytest.mark.parametrize(("active", "answers"), [("blue", LESS), ("green", PLANNED)])
def test_what_a_router_was_started_with_and_answers(tmp_path, kind, active, answers):
    routers = [
        {
            "container": f"pd-router-{colour}",
            "colour": colour,
            "script_path": str(tmp_path / colour),
            "health_url": "http://127.0.0.1:8005/x",
            "expected": PLANNED[kind],
        }
        for colour in ("blue", "green")
    ]
    (tmp_path / "router.map").write_text(f"active {active}\n")
    requirements = required(*routers, front=PlannedFront(str(tmp_path), ("pd-front",), ("haproxy",)))
    asked = []

    def ask(url, expect):
        asked.append(expect)
        return True, "ok"

    lists = health.router_lists(requirements, Routers(), ask)
    assert asked == [answers[kind]]
    assert lists == {
        "prefillers": ["10.0.0.1:8004"],
        "decoders": ["10.0.0.3:8004", "10.0.0.4:8004"][: 2 if active == "green" else 1],
    }
    # Somebody has changed its list, or it does not answer.
    assert health.router_lists(requirements, Routers(), lambda url, expect: (False, "answers {}")) is None
    assert health.router_lists(requirements, Docker(), ask) is None
    assert health.router_lists(requirements, Docker(error="no answer"), ask) is None


def test_a_server_without_a_router_lists_nothing(engine):
    assert health.router_lists(required(engine), Docker("running")) is None
