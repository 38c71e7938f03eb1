# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What is read of a server for its front."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._commands import Answer
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query import front, processes
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import PlannedFront

DEBIAN = "HAProxy version 2.6.12-1+deb12u4 2025/04/25 - https://haproxy.org/\nStatus: long-term\n"
POLICY = "haproxy:\n  Installed: (none)\n  Candidate: 2.6.12-1+deb12u4\n  Version table:\n"
NO_CANDIDATE = "haproxy:\n  Installed: (none)\n  Candidate: (none)\n"


def answer(text: str = "", status: int | None = 0, problem: str | None = None) -> Answer:
    return Answer("tool", "query", text, status, problem)


MISSING = answer(status=None, problem="missing")


class Runner:
    """Answers by the first word of a command; what is not told is not installed."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, command):
        name = Path(command.words[0]).name.replace("-", "_")
        self.asked.append(" ".join(command.words))
        return self.answers.get(name, MISSING)


PLANNED = PlannedFront("/etc/pd_rollout/pd/front", ("pd-front", "pd-address"), ("haproxy", "keepalived"))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    """Programs and units are files of the test."""
    monkeypatch.setattr(front, "_SBIN", f"{tmp_path}/")
    monkeypatch.setattr(front, "_UNITS", str(tmp_path))
    return Path(tmp_path)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (DEBIAN, "2.6.12"),
        ("HA-Proxy version 2.4.8-7.oe2203 2021/11/03\n", "2.4.8"),
        ("HAProxy version 3.0.11 2025/06/03\n", "3.0.11"),
        ("haproxy: error while loading shared libraries", None),
    ],
)
def test_the_version_of_haproxy(text: str, version: str | None) -> None:
    assert front.parse_haproxy(answer(text)) == version


def test_what_is_installed_is_enough(folders: Path) -> None:
    for name in ("haproxy", "keepalived"):
        (folders / name).touch()
    runner = Runner(haproxy=answer(DEBIAN))
    assert front.inspect_front(runner, PLANNED) == front.Front(
        "2.6.12", systemd=Path("/run/systemd/system").is_dir()
    )
    assert runner.asked == [f"{folders}/haproxy -v"]


@pytest.mark.parametrize(
    ("answers", "offered", "unknown"),
    [
        ({"apt_cache": answer(POLICY)}, "2.6.12", ()),
        ({"apt_cache": answer(NO_CANDIDATE)}, None, ("haproxy", "keepalived")),
        ({"apt_cache": answer("")}, None, ("haproxy", "keepalived")),
        ({"apt_cache": answer(status=100)}, None, ()),
        ({"dnf": answer("2.9.5\n2.10.1\n")}, "2.10.1", ()),
        ({"dnf": answer("")}, None, ()),
        ({"dnf": answer("Error: Cache-only enabled but no cache", 1)}, None, ()),
        ({}, None, ()),
    ],
    ids=str,
)
def test_what_the_package_manager_knows(answers, offered: str | None, unknown: tuple[str, ...]) -> None:
    found = front.inspect_front(Runner(**answers), PLANNED)
    assert found is not None and (found.offered, found.unknown) == (offered, unknown)


def test_only_what_is_missing_is_looked_for(folders: Path) -> None:
    (folders / "haproxy").touch()
    runner = Runner(haproxy=answer(DEBIAN), apt_cache=answer(NO_CANDIDATE))
    found = front.inspect_front(runner, PLANNED)
    assert found is not None and (found.version, found.unknown) == ("2.6.12", ("keepalived",))


def test_nothing_is_asked_without_a_front() -> None:
    runner = Runner()
    assert front.inspect_front(runner, None) is None and not runner.asked


@pytest.mark.parametrize(("status", "stopped"), [(0, ()), (3, ("pd-front",))])
def test_a_unit_that_was_deployed_must_run(folders: Path, status: int, stopped: tuple[str, ...]) -> None:
    (folders / "pd-front.service").touch()
    runner = Runner(haproxy=answer(DEBIAN), systemctl=answer(status=status))
    found = front.inspect_front(runner, PLANNED)
    assert found is not None and found.stopped == stopped
    assert [words for words in runner.asked if "systemctl" in words] == [
        "systemctl is-active pd-front.service"
    ]


@pytest.mark.parametrize(
    ("cgroup", "own"),
    [
        ("0::/system.slice/pd-front.service\n", True),
        ("0::/docker/0123/system.slice/pd-front.service\n", True),
        ("0::/system.slice/haproxy.service\n", False),
        ("0::/system.slice/other-pd-front.service\n", False),
        ("", False),
    ],
)
def test_a_process_of_the_front_is_the_deployments_own(monkeypatch, cgroup: str, own: bool) -> None:
    monkeypatch.setattr(processes, "read_file", lambda path: cgroup)
    assert processes.in_unit(42, ["pd-guard", "pd-front"]) is own
    assert not processes.in_unit(42, ["pd-guard"]) and not processes.in_unit(42, [])


@pytest.mark.parametrize(("unit", "own"), [("pd-front", True), ("pd-guard", True), ("other", False)])
def test_ports_of_front_and_guard_are_those_of_the_deployment(
    monkeypatch: pytest.MonkeyPatch, unit: str, *, own: bool
) -> None:
    monkeypatch.setattr(processes, "in_unit", lambda _, units: unit in units)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (holder,) = processes.gather_port_holders([(port, port)], set(), {}, ["pd-front", "pd-guard"])
    assert (holder.port, holder.own) == (port, own)
