# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Each bad state of a server gives exactly its finding; a good one gives none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import host_verdict as v
from ansible_collections.ascend.pd_rollout.plugins.module_utils.hccn_parsers import (
    NpuChip,
    NpuInfo,
    NpuProcess,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils.host_checks import HOST_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils.host_query import (
    Docker,
    Holder,
    HostState,
    Nic,
)

GIGA = 10**9
WANTS = {
    "name": "prefill1",
    "address": "10.0.0.11",
    "interface": None,
    "directory": "/etc/pd_rollout/pd",
    "deployment": "pd",
    "image": "ascend/vllm-ascend:v0.13.0-a3",
    "driver": "25.5.0",
    "chips": [0, 1, 2, 3],
    "devices": [f"/dev/davinci{chip}" for chip in range(4)] + ["/dev/davinci_manager"],
    "paths": ["/usr/local/dcmi"],
    "ports": [
        {"first": 8004, "last": 8004, "purpose": "API", "instance": "p", "bound": True},
        {"first": 36100, "last": 36103, "purpose": "KV handshake", "instance": "p", "bound": True},
        {"first": 36300, "last": 36303, "purpose": "KV handshake", "instance": "d", "bound": False},
        {"first": 15000, "last": 17000, "purpose": "Mooncake RPC", "instance": None, "bound": False},
        {"first": 60000, "last": 60031, "purpose": "HCCL", "instance": None, "bound": False},
    ],
    "peers": {"decode1": "10.0.0.13"},
    "shm": 2**30,
    "advertise": ["10.0.0.11"],
}


def chips(**changes) -> NpuInfo:
    made = [
        NpuChip(number // 2, number % 2, number, "Ascend910", "OK", "0000:9D:00.0", 3100, 65536)
        for number in range(4)
    ]
    return NpuInfo("25.5.0", tuple(replace(one, **changes) if one.phy_id == 3 else one for one in made), ())


GOOD = HostState(
    npu=chips(),
    driver="25.5.0",
    firmware=("7.8.0.2.212",),
    ephemeral=(32768, 60999),
    reserved=((36100, 36103), (60000, 60031)),
    nics=(Nic("lo", True, 65536, ("127.0.0.1",)), Nic("eth0", True, 1500, ("10.0.0.11",))),
    default_address="10.0.0.11",
    ways={"decode1": ("10.0.0.11", "eth0")},
    docker=Docker(True, None, "24.0", "overlay2", "systemd", "/var/lib/docker", "arm64", True),
    free={"/etc/pd_rollout/pd": GIGA, "/var/lib/docker": 100 * GIGA},
    memory={"MemTotal": 2000 * GIGA, "MemAvailable": 1500 * GIGA},
    shm_bytes=GIGA,
    machine="aarch64",
    kernel={"thp": "madvise", "governor": "performance", "swappiness": "0", "numa_balancing": "0"},
)


def holder(port: int, listens: bool = True, own: bool = False) -> Holder:
    return Holder(port, "0.0.0.0", listens, 4242, "python3 app.py (pid 4242)", own)


def process(pid: int) -> NpuInfo:
    return replace(
        chips(), processes=(NpuProcess(1, 0, pid, "python3", 1024), NpuProcess(1, 1, pid, "python3"))
    )


OTHER_NIC = Nic("eth1", True, 1500, ("192.168.0.5",))
CASES: dict[str, tuple[dict, dict, list[str]]] = {
    # name: changes of the state, changes of what is wanted, codes
    "good": ({}, {}, []),
    "a chip's device missing": ({"devices_missing": ("/dev/davinci3",)}, {}, ["host-device-missing"]),
    "mount missing": ({"paths_missing": ("/usr/local/dcmi",)}, {}, ["host-mount-missing"]),
    "foreign process": ({"npu": process(9)}, {}, ["host-npu-process"]),
    "own process": ({"npu": process(9), "own_pids": frozenset({9})}, {}, []),
    "process on another chip": ({"npu": process(9)}, {"chips": [0, 1]}, []),
    "memory used": ({"npu": chips(hbm_used=60000)}, {}, ["host-hbm-used"]),
    "memory used by our deployment": ({"npu": chips(hbm_used=60000), "own_running": True}, {}, []),
    "memory unknown": ({"npu": chips(hbm_used=None, hbm_total=None)}, {}, []),
    "npu-smi silent": ({"npu": None}, {}, []),
    "driver old": ({"driver": "24.1.0"}, {}, ["host-driver-older"]),
    "driver newer": ({"driver": "25.5.1"}, {}, []),
    "driver candidate": ({"driver": "25.5.rc1"}, {}, ["host-driver-older"]),
    "firmware old": ({}, {"firmware": "7.8.0.3.1"}, ["host-firmware-older"]),
    "firmware of one NPU old": (
        {"firmware": ("7.7.0.9.1", "7.8.0.2.212")},
        {"firmware": "7.8.0.2.212"},
        ["host-firmware-older"],
    ),
    "firmware as the release has it": ({}, {"firmware": "7.8.0.2.212"}, []),
    "firmware unknown": ({"firmware": ()}, {"firmware": "7.8.0.2.212"}, []),
    "release without a firmware": ({"firmware": ("1.0",)}, {"firmware": None}, []),
    "A2 image": ({}, {"image": "ascend/vllm-ascend:v0.13.0"}, ["host-image-hardware"]),
    "image of unknown kind": ({}, {"image": "mine/engine:1"}, []),
    "image of another architecture": (
        {"docker": replace(GOOD.docker, image_architecture="amd64")},
        {},
        ["host-image-architecture"],
    ),
    "architecture": (
        {"machine": "riscv64", "docker": replace(GOOD.docker, image_architecture=None)},
        {},
        ["host-architecture"],
    ),
    "port taken": ({"holders": (holder(8004),)}, {}, ["host-port-taken"]),
    "ports of one purpose taken by one": (
        {"holders": (holder(36100), holder(36101))},
        {},
        ["host-port-taken"],
    ),
    "port ours": ({"holders": (holder(8004, own=True),)}, {}, []),
    "port held by a connection": ({"holders": (holder(36100, False),)}, {}, ["host-port-connection"]),
    "port that nobody binds": ({"holders": (holder(36300),)}, {}, []),
    "HCCL port": ({"holders": (holder(60000),)}, {}, ["host-port-hccl"]),
    "connection in HCCL's range": ({"holders": (holder(60000, False),)}, {}, []),
    "pool on the loopback": ({"holders": (replace(holder(15500), address="127.0.0.11"),)}, {}, []),
    "pool": ({"holders": (holder(15500),)}, {}, ["host-port-pool"]),
    "nothing reserved": ({"reserved": ()}, {}, ["host-ports-not-reserved"]),
    "narrow range": ({"reserved": (), "ephemeral": (50000, 59999)}, {}, []),
    "NIC missing": ({}, {"interface": "bond0"}, ["host-nic-missing"]),
    "NIC down": (
        {"nics": (Nic("eth0", False, 1500, ("10.0.0.11",)),)},
        {},
        ["host-nic-down"],
    ),
    "address on another NIC": (
        {"nics": (*GOOD.nics, OTHER_NIC)},
        {"interface": "eth1"},
        ["host-address-elsewhere"],
    ),
    "no address": ({}, {"address": "10.0.0.99", "advertise": ["10.0.0.99"]}, ["host-address-missing"]),
    "VLLM_HOST_IP is another": ({}, {"advertise": ["10.9.9.9"]}, ["host-advertised-address"]),
    "default route elsewhere": (
        {"default_address": "192.168.0.5"},
        {"advertise": [None]},
        ["host-advertised-address"],
    ),
    "default route elsewhere, address told": ({"default_address": "192.168.0.5"}, {}, []),
    "route elsewhere": ({"ways": {"decode1": ("192.168.0.5", "eth1")}}, {}, ["host-route-elsewhere"]),
    "route over another NIC": ({"ways": {"decode1": ("10.0.0.11", "eth1")}}, {}, ["host-route-elsewhere"]),
    "route of another table": ({"ways": {"decode1": ("10.0.0.11", None)}}, {}, []),
    "no route": ({"ways": {"decode1": (None, None)}}, {}, ["host-route-elsewhere"]),
    "not root": (
        {"root": False, "docker": Docker(True, "the socket is only for root")},
        {},
        ["host-not-root"],
    ),
    "no engine": ({"docker": Docker(False)}, {}, ["host-docker-absent"]),
    "engine silent": ({"docker": Docker(True, "no socket")}, {}, ["host-docker-silent"]),
    "vfs": ({"docker": replace(GOOD.docker, driver="vfs")}, {}, ["host-docker-storage"]),
    "engine too old": ({"docker": replace(GOOD.docker, version="20.10.9")}, {}, ["host-docker-old"]),
    "engine just new enough": ({"docker": replace(GOOD.docker, version="20.10.10+dfsg1")}, {}, []),
    "no cgroups": ({"docker": replace(GOOD.docker, cgroup="none")}, {}, ["host-docker-cgroup"]),
    "directory full": ({"free": {"/etc/pd_rollout/pd": 0}}, {}, ["host-disk-full"]),
    "directory read-only": ({"free": {"/etc/pd_rollout/pd": None}}, {}, ["host-disk-full"]),
    "little shared memory": ({"memory": {"MemTotal": 10**12, "MemAvailable": 1000}}, {}, ["host-memory"]),
    "no /dev/shm": ({"shm_bytes": None}, {}, ["host-shm"]),
    "huge pages off": ({"kernel": {"thp": "never"}}, {}, ["host-thp"]),
    "governor": ({"kernel": {"governor": "powersave"}}, {}, ["host-governor"]),
    "swappiness": ({"kernel": {"swappiness": "60"}}, {}, ["host-swappiness"]),
    "NUMA": ({"kernel": {"numa_balancing": "1"}}, {}, ["host-numa-balancing"]),
    "a kernel that says nothing": ({"kernel": {}}, {}, []),
}


CASES["directory open to others"] = (
    {"directory_open": "/etc/pd_rollout can be written by every user"},
    {},
    ["host-directory-open"],
)


@pytest.mark.parametrize(("state", "wants", "codes"), CASES.values(), ids=CASES.keys())
def test_state_gives_its_finding(state: dict, wants: dict, codes: list[str]) -> None:
    found = v.judge({**WANTS, **wants}, replace(GOOD, **state), v.Limits())
    assert [one["code"] for one in found] == codes
    for one in found:
        assert one["severity"] == HOST_CHECKS[one["code"]].severity
        assert "{" not in one["cure"].replace("{{.", "").replace("{storage-driver", "").replace(
            "{VLLM_HOST", ""
        )


def test_one_line_for_ports_of_one_process() -> None:
    state = replace(GOOD, holders=(holder(36101), holder(36100), holder(8004)))
    assert [one["message"] for one in v.judge(WANTS, state, v.Limits())] == [
        "port 8004 (API) is taken: python3 app.py (pid 4242)",
        "ports 36100-36101 (KV handshake) are taken: python3 app.py (pid 4242)",
    ]


NO_IMAGE = replace(GOOD.docker, has_image=False, image_architecture=None)


@pytest.mark.parametrize(
    ("state", "limits", "codes"),
    [
        ({"docker": NO_IMAGE}, {"image_gigabytes": 20}, []),
        ({"docker": NO_IMAGE, "archive_bytes": 90 * GIGA}, {"image_gigabytes": 20}, ["host-disk-image"]),
        ({"docker": NO_IMAGE, "archive_bytes": 10**6}, {"image_gigabytes": 200}, []),
        ({"docker": NO_IMAGE}, {"image_gigabytes": 200}, ["host-disk-image"]),
        ({}, {"image_gigabytes": 200}, []),
        ({}, {"memory_gigabytes": 3000}, ["host-memory"]),
        ({}, {"firmware_minimum": "7.9"}, ["host-firmware-older"]),
        ({}, {"firmware_minimum": "7.8"}, []),
        (
            {"weights_there": False, "free": {"/w": GIGA}},
            {"weights_gigabytes": 700, "weights_path": "/w"},
            ["host-disk-weights"],
        ),
        (
            {"weights_there": False, "free": {"/w": 800 * GIGA}},
            {"weights_gigabytes": 700, "weights_path": "/w"},
            [],
        ),
    ],
)
def test_space(state: dict, limits: dict, codes: list[str]) -> None:
    found = v.judge(WANTS, replace(GOOD, **state), v.Limits(**limits))
    assert [one["code"] for one in found] == codes


@pytest.mark.parametrize(
    ("docker", "archive", "facts"),
    [
        (GOOD.docker, "", (True, None)),
        (NO_IMAGE, "/opt/image.tar", (False, False)),
        (Docker(True, "no socket"), "", (None, None)),
        (Docker(False), "", (None, None)),
    ],
)
def test_facts_tell_whether_the_image_is_there(docker: Docker, archive: str, facts: tuple) -> None:
    found = v.facts(WANTS, replace(GOOD, docker=docker), v.Limits(image_archive=archive))
    assert (found["image"], found["image_archive"]) == facts


def test_the_listener_leaves_out_what_is_taken_and_what_nobody_binds() -> None:
    state = replace(GOOD, holders=(holder(8004),))
    assert v.samples(WANTS, state) == [15000, 17000, 36100, 36101, 36102, 36103, 60000, 60031]


def test_reserving_keeps_what_is_reserved() -> None:
    (one,) = v.judge(WANTS, replace(GOOD, reserved=((9000, 9001),)), v.Limits())
    assert "=8004,9000-9001,36100-36103,60000-60031" in one["cure"]
