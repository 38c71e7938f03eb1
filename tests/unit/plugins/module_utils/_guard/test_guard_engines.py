# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard sees of engines, and how it starts them: with a Docker Engine of one container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.config import Engine
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.engines import (
    STOP,
    Engines,
    Look,
    containers,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.generations import NONE

FIRST, SECOND = "2026-01-02T03:04:05.6Z", "2026-01-02T03:09:05.6Z"


class Docker:
    """A Docker Engine with one container, unless there is none."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = {"Status": "running", "StartedAt": FIRST}
        self.restarts, self.calls = 0, list[str]()
        self.before_start: Any = lambda: None

    def containers(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        self.calls.append(f"containers {labels}")
        return [{"Names": ["/pd-decode"], "State": "running"}] if self.state else []

    def inspect(self, name: str) -> dict[str, Any] | None:
        if self.state is None or name != "pd-decode":
            return None
        return {"Id": "c1", "State": self.state, "RestartCount": self.restarts}

    def stop(self, name: str, seconds: int) -> bool:
        self.calls.append(f"stop {name} within {seconds} s")
        return True

    def start(self, name: str) -> bool:
        self.calls.append(f"start {name}")
        self.before_start()
        if self.state is None:
            return False
        self.state = {"Status": "running", "StartedAt": SECOND}
        return True


@pytest.fixture
def docker() -> Docker:
    return Docker()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine("pd-decode", "decode", "decoder", 0, ("192.0.2.1:7200",), str(tmp_path / "decode.sh"))


def engines(docker: Docker, engine: Engine) -> Engines:
    return Engines([engine], docker, docker)  # type: ignore[arg-type]


def look(docker: Docker, engine: Engine) -> Look:
    listed = containers(docker, "pd")  # type: ignore[arg-type]
    return engines(docker, engine).looks(listed)["decode"]


def note(engine: Engine, **content: Any) -> None:
    Path(engine.script_path).with_suffix(".started").write_text(json.dumps(content), encoding="utf-8")


def noted(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(engine.script_path).with_suffix(".started").read_text())
    return found


def test_a_container_that_is_not_there_is_not_up(docker: Docker, engine: Engine) -> None:
    docker.state = None
    assert look(docker, engine) == Look()
    # It went between the list and the look.
    assert engines(docker, engine).looks({"pd-decode": {}})["decode"] == Look()


def test_a_start_that_was_noted_has_its_generation(docker: Docker, engine: Engine) -> None:
    note(engine, generation="aa+2", container="c1", started_at=FIRST, seconds=900.0)
    assert look(docker, engine) == Look(True, True, (2, "aa"), (2, "aa"), 900.0, FIRST)


@pytest.mark.parametrize("other", [{"started_at": SECOND}, {"container": "c0"}])
def test_a_start_by_somebody_else_has_none(docker: Docker, engine: Engine, other: dict[str, str]) -> None:
    note(engine, **{"generation": "aa+2", "container": "c1", "started_at": FIRST, **other})
    found = look(docker, engine)
    assert (found.up, found.runs, found.last) == (True, None, (2, "aa"))


def test_without_a_record_only_restarts_by_the_docker_engine_are_known(
    docker: Docker, engine: Engine
) -> None:
    assert look(docker, engine) == Look(True, True, NONE, NONE, None, FIRST)
    docker.restarts = 1
    assert look(docker, engine) == Look(True, True, None, NONE, None, FIRST)


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ({"Status": "created"}, "it was never started"),
        ({"Status": "exited", "OOMKilled": True}, "its memory ran out (OOM)"),
        (
            {"Status": "exited", "ExitCode": 137, "FinishedAt": SECOND, "Error": ""},
            "it ended with status 137 at 2026-01-02T03:09:05Z",
        ),
        (
            {"Status": "dead", "ExitCode": 1, "FinishedAt": SECOND, "Error": "no device"},
            "it ended with status 1 at 2026-01-02T03:09:05Z: no device",
        ),
    ],
)
def test_how_it_ended(docker: Docker, engine: Engine, state: dict[str, Any], ended: str) -> None:
    note(engine, generation="aa")
    docker.state = state
    assert look(docker, engine) == Look(True, False, None, (0, "aa"), None, "", ended)


def test_a_start_is_noted_before_and_after_it(docker: Docker, engine: Engine) -> None:
    note(engine, generation="aa", seconds=900.0, container="c0", started_at=FIRST)
    before: list[dict[str, Any]] = []
    docker.before_start = lambda: before.append(noted(engine))
    engines(docker, engine).start(engine, (1, "aa"))
    assert docker.calls == ["start pd-decode"]
    (first,) = before
    assert (first["generation"], first["container"], first["seconds"]) == ("aa+1", "", 900.0)
    assert look(docker, engine) == Look(True, True, (1, "aa"), (1, "aa"), 900.0, SECOND)


def test_a_start_that_fails_was_one(docker: Docker, engine: Engine) -> None:
    docker.state = None
    with pytest.raises(DockerError, match="no container pd-decode"):
        engines(docker, engine).start(engine, (1, ""))
    assert noted(engine)["generation"] == "+1"


def test_a_stop_is_the_docker_engines(docker: Docker, engine: Engine) -> None:
    engines(docker, engine).stop(engine)
    assert docker.calls == [f"stop pd-decode within {STOP} s"]
