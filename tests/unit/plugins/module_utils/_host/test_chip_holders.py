# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who has chips: containers by what `docker inspect` shows, processes by what they have open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.query import npu_smi_at
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import chip_holders as c
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import parsers
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query import docker


def inspected(*devices: str, env: tuple[str, ...] = (), **host) -> dict:
    """As the Docker Engine answers to `docker run --device …`."""
    mapped = [
        {"PathOnHost": device, "PathInContainer": device, "CgroupPermissions": "rwm"} for device in devices
    ]
    return {
        "Id": "5" * 64,
        "Name": "/other",
        "Config": {"Env": ["PATH=/usr/bin", *env]},
        "HostConfig": {"Devices": mapped, "Privileged": False, "Runtime": "runc", **host},
    }


MANAGER = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")


@pytest.mark.parametrize(
    ("details", "chips", "alone"),
    [
        (inspected("/dev/davinci0", *MANAGER), (0,), True),
        (inspected("/dev/davinci12", "/dev/davinci3"), (3, 12), True),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=0-2,4",), Runtime="ascend"), (0, 1, 2, 4), True),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=Ascend910-7",), Runtime="ascend"), (7,), True),
        (inspected(env=("ASCEND_VISIBLE_DEVICES=100,117",), Runtime="ascend"), (0, 1), True),
        (inspected("/dev/vdavinci116", *MANAGER), (1,), True),
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
            raise DockerError(f"{path} answered 404")
        return json.dumps(inspected("/dev/davinci1")).encode()

    monkeypatch.setattr(c, "get", get)
    found = c.of_docker([{"Id": "ours"}, {"Id": "gone"}, {"Id": "theirs"}], {"ours"}, "/none")
    assert [(holder.name, holder.chips) for holder in found] == [("other", (1,))]


def test_this_machine_s_own_processes_are_no_containers() -> None:
    assert c.of_other_runtimes([os.getpid(), 2**22 + 1], set(), lambda pid: [], {}) == []


class Processes:
    """Processes with a /dev of their own, as the functions of os and stat show them."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: str) -> None:
        # pid → the devices in its /dev
        self.devices = {11: [3], 12: [3], 13: [], 14: [100, 117]}
        self.capabilities = capabilities
        monkeypatch.setattr(c.os, "readlink", lambda path: f"mnt:[{path.split('/')[2]}]")
        monkeypatch.setattr(c, "_chips_in", lambda folder: self.chips(int(folder.split("/")[2])))
        monkeypatch.setattr(c, "read_file", self.read)
        monkeypatch.setattr(c, "Path", lambda path: self.place(tmp_path, path))

    def chips(self, pid: int) -> tuple[int, ...]:
        return tuple(sorted({parsers.chip_of_number(number) for number in self.devices[pid]}))

    def read(self, path: str) -> str:
        return f"CapEff:\t{self.capabilities}\n" if path.endswith("status") else "python3\n"

    @staticmethod
    def place(tmp_path: Path, path: str):
        class Place:
            @staticmethod
            def stat():
                return Path("/proc" if path == "/dev" else str(tmp_path)).stat()

        return Place()


UNPRIVILEGED, PRIVILEGED = "00000000a80425fb", "000001ffffffffff"


def test_containers_whose_devices_the_engine_does_not_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Processes(tmp_path, monkeypatch, UNPRIVILEGED)
    ids = {11: ["a" * 64], 12: ["b" * 64], 13: ["c" * 64], 14: ["d" * 64]}
    found = c.of_other_runtimes([11, 12, 13, 14], {"b" * 64}, ids.__getitem__, {"a" * 64: "by-a-hook"})
    assert [(holder.name, holder.chips, holder.alone, holder.pid) for holder in found] == [
        ("by-a-hook", (3,), True, None),
        # Virtual NPUs of chips 0 and 1.
        (f"{'d' * 12} (python3, pid 14)", (0, 1), True, 14),
    ]


def test_a_privileged_container_has_all_devices_and_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Processes(tmp_path, monkeypatch, PRIVILEGED)
    assert c.of_other_runtimes([11, 12], set(), lambda pid: [f"{pid}" * 32], {}) == []


def test_a_single_capability_more_makes_no_container_privileged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # --cap-add SYS_ADMIN
    Processes(tmp_path, monkeypatch, "00000000a82425fb")
    (holder,) = c.of_other_runtimes([11], set(), lambda pid: [f"{pid}" * 32], {})
    assert (holder.chips, holder.alone) == ((3,), True)


def namespace(number: int, pid: int, *chips: int) -> str:
    """As uda_proc_fs.c prints it."""
    text = f"ns_id {number} identify 1f00a root_tgid {pid} dev_num {len(chips)} namespace 000000002b1c, "
    text += "udev list:\nlogic_devid udevid\n"
    text += "".join(f"{at:8} {chip:8}\n" for at, chip in enumerate(chips))
    return text + "\n\n"


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [
        (namespace(0, 11, 0, 1) + namespace(1, 12, 5), [(11, [0, 1]), (12, [5])]),
        # The server itself and privileged containers take nothing.
        (namespace(128, 1, *range(16)) + namespace(3, 12, 5), [(12, [5])]),
        (namespace(127, 12, 100, 117), [(12, [0, 1])]),
        (namespace(0, 11), []),
        ("\n", []),
        (namespace(0, 11, 0, 1).replace("dev_num 2", "dev_num 3"), None),
        ("another form\n", None),
    ],
)
def test_the_driver_s_account(text: str, namespaces: list[tuple[int, list[int]]] | None) -> None:
    assert parsers.parse_namespaces(text) == namespaces


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        (
            "udevid 0 type(davinci, real, local) status 'ready, sia' added_udevid 0 chip_type x\n"
            "        has os device\n        has used by container, ns id 0\n\n"
            "udevid 1 type(davinci, real, local) status 'ready, sia' added_udevid 1 chip_type x\n"
            "        has os device\n        shared dev used by ns id: 3\n\n"
            "udevid 116 type(davinci, real, local) status 'ready, mia' added_udevid 2 chip_type x\n"
            "        has used by container, ns id 2\n\n",
            {0, 1},
        ),
        ("udevid 0 type(davinci) status 'ready, sia' added_udevid 0 chip_type x\n", set()),
        ("another form\n", None),
        ("", None),
    ],
)
def test_the_chips_that_somebody_has_opened(text: str, opened: set[int] | None) -> None:
    assert parsers.parse_udevices(text) == opened


def test_the_driver_says_who_has_taken_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    comms = {11: "python3\n", 12: "vllm\n", 13: None, 14: "VLLM::Worker\n"}
    ids = {11: ["a" * 64], 12: [], 13: [], 14: ["b" * 64]}
    monkeypatch.setattr(c, "read_file", lambda path: comms[int(path.split("/")[2])])
    idle, busy = c.ChipHolder("idle", (0, 1), True, "x"), c.ChipHolder("busy", (2, 3), True, "x")
    privileged = c.ChipHolder("privileged", (0, 1), False, "--privileged")

    def corrected(
        *namespaces: tuple[int, list[int]], own: str = "", more: Iterable[int] | None = ()
    ) -> list[tuple]:
        opened = None if more is None else {chip for _pid, chips in namespaces for chip in chips}.union(more)
        found = c.by_driver(
            [idle, busy, privileged], namespaces, opened, {own} - {""}, ids.__getitem__, {"a" * 64: "user"}
        )
        return [(holder.name, holder.chips, holder.alone, holder.pid) for holder in found]

    untaken = [("idle", (0, 1), False, None)]
    rest = [("privileged", (0, 1), False, None)]
    assert corrected((11, [2, 3])) == [*untaken, ("busy", (2, 3), True, None), *rest]
    # What nobody else shows: a privileged container with another user, a process with a namespace of its own.
    assert corrected((11, [2, 3, 7]), (12, [8])) == [
        *untaken,
        ("busy", (2, 3), True, None),
        *rest,
        ("user", (7,), True, None),
        ("of vllm (pid 12)", (8,), True, 12),
    ]
    # Ours have taken them: who else has the devices gets nothing.
    assert corrected((14, [0, 1, 2, 3]), own="b" * 64) == [*untaken, ("busy", (2, 3), False, None), *rest]
    # A chip is taken when it is opened, before the driver has set up the rest; and where that is not known.
    assert corrected((11, [2, 3]), more=[1]) == [
        ("idle", (0, 1), True, None),
        ("busy", (2, 3), True, None),
        *rest,
    ]
    assert corrected((11, [2, 3]), more=None)[0] == ("idle", (0, 1), True, None)
    # Whose a process was that has ended, is not known.
    ended = ("of a process that has ended (pid 13)", (9,), True, 13)
    assert corrected((13, [9]))[-1] == ended
    assert ended not in corrected((13, [9]), own="b" * 64)


def test_who_has_a_device_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c.os, "readlink", lambda path: "/dev/davinci3" if path.endswith("/0") else "pipe:[1]")
    assert c.openers([os.getpid(), 2**22 + 1], [3, 4]) == {3: [os.getpid()]}


def test_a_device_under_another_name_and_a_virtual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getpid()
    here = Path(f"/proc/{own}/fd/0").stat().st_rdev
    monkeypatch.setattr(c.os, "readlink", lambda path: "/dev/davinci0" if path.endswith("/0") else "pipe:[1]")
    # The container's davinci0 is the server's davinci3.
    monkeypatch.setattr(c, "device_numbers", lambda folder: {here: 3, here + 1: 0})
    assert c.openers([own], [0, 3]) == {3: [own]}
    assert c.openers([own], [0]) == {}
    monkeypatch.setattr(
        c.os, "readlink", lambda path: "/dev/vdavinci117" if path.endswith("/0") else "pipe:[1]"
    )
    monkeypatch.setattr(c, "device_numbers", lambda folder: {})
    assert c.openers([own], [0, 1]) == {1: [own]}


def test_device_numbers_tell_chips_apart_or_nothing() -> None:
    assert c.device_numbers("/no/such/folder") == {}
    assert c.device_numbers("/proc/self/fd") == {}


@pytest.mark.parametrize(
    ("path", "chip"),
    [
        ("/dev/davinci0", 0),
        ("/dev/davinci15", 15),
        ("/dev/davinci99", 99),
        ("/dev/davinci100", 0),
        ("/dev/vdavinci115", 0),
        ("/dev/vdavinci116", 1),
        ("/dev/davinci_manager", None),
        ("/dev/davinci0/x", None),
    ],
)
def test_the_chip_of_a_device(path: str, chip: int | None) -> None:
    assert parsers.chip_of_device(path) == chip


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
    monkeypatch.setattr(docker.dockerd, "daemon_pid", lambda: None)
    monkeypatch.setattr(docker.dockerd, "dockerd_path", lambda: str(path) if program is not None else None)
    assert docker.knows_clone3("18.09.0") is knows


@pytest.mark.parametrize(
    ("options", "profile"),
    [
        (["name=seccomp,profile=default"], "default"),
        (["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"], "builtin"),
        (["name=seccomp,profile=unconfined"], "unconfined"),
        (["name=seccomp,profile=/etc/docker/seccomp.json"], "/etc/docker/seccomp.json"),
        (["seccomp"], "default"),
        (["name=apparmor"], ""),
        ([], ""),
        # Not reported.
        (None, "default"),
    ],
)
def test_the_seccomp_profile_of_the_engine(options: list[str] | None, profile: str) -> None:
    assert docker.seccomp_profile(options) == profile


def test_podman_in_the_engine_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "podman": {"Components": [{"Name": "Podman Engine", "Version": "4.9.4"}, {"Name": "Conmon"}]},
        "docker": {
            "Components": [{"Name": "Engine", "Version": "19.03.15"}, {"Name": "runc", "Version": "1.0.2"}]
        },
        "old": {"Version": "18.09.0"},
    }
    monkeypatch.setattr(docker, "get", lambda _path, name, _seconds: json.dumps(answers[name]).encode())
    assert docker.components("podman") == (None, "Podman Engine")
    assert docker.components("docker") == ("1.0.2", "")
    assert docker.components("old") == (None, "")


def test_npu_smi_at_another_of_its_places(tmp_path: Path) -> None:
    usual, other = str(tmp_path / "bin"), str(tmp_path / "sbin")
    assert npu_smi_at(usual, (usual, other)) == usual
    Path(other).touch()
    assert npu_smi_at(usual, (usual, other)) == other
    # A path that somebody names is meant.
    assert npu_smi_at(f"{usual}/mine", (usual, other)) == f"{usual}/mine"
    Path(usual).touch()
    assert npu_smi_at(usual, (usual, other)) == usual
