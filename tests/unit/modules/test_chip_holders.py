# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who has chips: containers by what `docker inspect` shows, processes by what they have open."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import chip_holders as c
from ansible_collections.ascend.pd_rollout.plugins.module_utils import docker_engine, host_query
from ansible_collections.ascend.pd_rollout.plugins.module_utils import host_parsers as parsers


def inspected(*devices: str, env: tuple[str, ...] = (), **host) -> dict:
    """As the Docker Engine answers to `docker run --device …`."""
    made = [{"PathOnHost": one, "PathInContainer": one, "CgroupPermissions": "rwm"} for one in devices]
    return {
        "Id": "5" * 64,
        "Name": "/other",
        "Config": {"Env": ["PATH=/usr/bin", *env]},
        "HostConfig": {"Devices": made, "Privileged": False, "Runtime": "runc", **host},
    }


MANAGER = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")


@pytest.mark.parametrize(
    ("details", "chips", "alone"),
    [
        (inspected("/dev/davinci0", *MANAGER), (0,), True),
        (inspected("/dev/davinci12", "/dev/davinci3"), (3, 12), True),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=0-2,4",), Runtime="ascend"), (0, 1, 2, 4), True),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=Ascend910-7",), Runtime="ascend"), (7,), True),
        # Without the runtime nobody reads the variable.
        (inspected(env=("ASCEND_VISIBLE_DEVICES=1",)), (1,), False),
        (inspected("/dev/davinci0", Privileged=True), (0,), False),
        (inspected(*MANAGER), None, None),
        (inspected(Privileged=True), None, None),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=void",), Runtime="ascend"), None, None),
        ({"Id": "5" * 64, "HostConfig": {"Devices": None}, "Config": {"Env": None}}, None, None),
    ],
)
def test_chips_of_a_container(details: dict, chips: tuple[int, ...] | None, alone: bool | None) -> None:
    found = c.holder_of(details)
    if chips is None:
        assert found is None
    else:
        assert found is not None
        assert (found.name, found.chips, found.alone) == ("other", chips, alone)


def test_our_own_containers_and_those_that_have_gone_hold_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(path: str, _socket: str, _timeout: float) -> bytes:
        if "gone" in path:
            raise docker_engine.EngineError(f"{path} answered 404")
        return json.dumps(inspected("/dev/davinci1")).encode()

    monkeypatch.setattr(c.docker_engine, "get", get)
    found = c.of_docker([{"Id": "ours"}, {"Id": "gone"}, {"Id": "theirs"}], {"ours"}, "/none")
    assert [(one.name, one.chips) for one in found] == [("other", (1,))]


def test_this_machine_s_own_processes_are_no_containers() -> None:
    assert c.of_other_runtimes([os.getpid(), 2**22 + 1], set(), lambda pid: []) == []


def test_who_has_a_device_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c.os, "readlink", lambda path: "/dev/davinci3" if path.endswith("/0") else "pipe:[1]")
    assert c.openers([os.getpid(), 2**22 + 1], [3, 4]) == {3: [os.getpid()]}


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("\tNPU ID                 : 4\n\tDevice-share Status    : True\n\tChip ID   : 0\n", True),
        ("\tDevice-share Status    : True\n\tDevice-share Status    : False\n", False),
        ("This device does not support querying device-share.\n", None),
    ],
)
def test_whether_chips_may_be_shared(text: str, shared: bool | None) -> None:
    assert parsers.parse_device_share(text) is shared


def test_the_distribution() -> None:
    text = 'NAME="openEuler"\nID="openEuler"\nPRETTY_NAME="openEuler 22.03 (LTS-SP3)"\n'
    assert parsers.parse_os_release(text) == ("openeuler", "openEuler 22.03 (LTS-SP3)")
    assert parsers.parse_os_release("ID=debian\n") == ("debian", "debian")
    assert parsers.parse_os_release("") == ("", "")


@pytest.mark.parametrize(
    ("program", "knows"),
    [
        (b"\x7fELF 18.09.0 clone clone3 close", True),
        (b"\x7fELF 18.09.0 clone close", False),
        # The program on the disk is newer than the one that answers.
        (b"\x7fELF 26.1.4 clone3", None),
        (b"", None),
        (None, None),
    ],
)
def test_clone3_in_the_engine_s_program(
    program: bytes | None, knows: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dockerd"
    if program is not None:
        path.write_bytes(program)
    monkeypatch.setattr(host_query.docker_engine, "daemon_pid", lambda: None)
    monkeypatch.setattr(
        host_query.docker_engine, "dockerd_path", lambda: str(path) if program is not None else None
    )
    assert host_query.knows_clone3("18.09.0") is knows


def test_podman_in_the_engine_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "podman": {"Components": [{"Name": "Podman Engine", "Version": "4.9.4"}, {"Name": "Conmon"}]},
        "docker": {
            "Components": [{"Name": "Engine", "Version": "19.03.15"}, {"Name": "runc", "Version": "1.0.2"}]
        },
        "old": {"Version": "18.09.0"},
    }
    monkeypatch.setattr(docker_engine, "get", lambda _path, name: json.dumps(answers[name]).encode())
    assert host_query.components("podman") == (None, "Podman Engine")
    assert host_query.components("docker") == ("1.0.2", "")
    assert host_query.components("old") == (None, "")


def test_npu_smi_at_another_of_its_places(tmp_path: Path) -> None:
    usual, other = str(tmp_path / "bin"), str(tmp_path / "sbin")
    assert host_query.npu_smi_at(usual, (usual, other)) == usual
    Path(other).touch()
    assert host_query.npu_smi_at(usual, (usual, other)) == other
    # A path that somebody names is meant.
    assert host_query.npu_smi_at(f"{usual}/mine", (usual, other)) == f"{usual}/mine"
    Path(usual).touch()
    assert host_query.npu_smi_at(usual, (usual, other)) == usual
