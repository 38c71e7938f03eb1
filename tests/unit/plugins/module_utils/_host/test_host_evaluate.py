# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Each bad state of a server gives exactly its finding; a good one gives none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.parsers import (
    NpuChip,
    NpuInfo,
    NpuProcess,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.catalogue import HOST_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.chip_holders import ChipHolder
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.evaluate import result as v
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query.docker import Docker
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query.front import Front
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query.network import Nic, PeerRoute
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query.processes import PortHolder
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.query.server import HostState
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import (
    HostRequirements,
    Limits,
    PlannedFront,
    PlannedPorts,
)

GIGA = 10**9
REQUIREMENTS = HostRequirements(
    name="prefill1",
    address="10.0.0.11",
    directory="/etc/pd_rollout/pd",
    deployment="pd",
    image="ascend/vllm-ascend:v0.13.0-a3",
    driver="25.5.0",
    chips=(0, 1, 2, 3),
    devices=(*(f"/dev/davinci{chip}" for chip in range(4)), "/dev/davinci_manager"),
    paths=("/usr/local/dcmi",),
    ports=(
        PlannedPorts(8004, 8004, "API", "p", bound=True),
        PlannedPorts(36100, 36103, "KV handshake", "p", bound=True),
        PlannedPorts(36300, 36303, "KV handshake", "d"),
        PlannedPorts(15000, 17000, "Mooncake RPC"),
        PlannedPorts(60000, 60031, "HCCL"),
    ),
    peers={"decode1": "10.0.0.13"},
    shm=2**30,
    advertise=("10.0.0.11",),
)


def chips(**changes) -> NpuInfo:
    healthy = [
        NpuChip(number // 2, number % 2, number, "Ascend910", "OK", "0000:9D:00.0", 3100, 65536)
        for number in range(4)
    ]
    return NpuInfo(
        "25.5.0", tuple(replace(chip, **changes) if chip.phy_id == 3 else chip for chip in healthy), ()
    )


GOOD = HostState(
    npu=chips(),
    driver="25.5.0",
    firmware=("7.8.0.2.212",),
    ephemeral=(32768, 60999),
    reserved=((36100, 36103), (60000, 60031)),
    nics=(Nic("lo", True, 65536, ("127.0.0.1",)), Nic("eth0", True, 1500, ("10.0.0.11",))),
    default_address="10.0.0.11",
    routes={"decode1": PeerRoute("10.0.0.11", "eth0")},
    docker=Docker(True, None, "24.0", "overlay2", "systemd", "/var/lib/docker", "arm64", True),
    free_space={"/etc/pd_rollout/pd": GIGA, "/var/lib/docker": 100 * GIGA},
    memory={"MemTotal": 2000 * GIGA, "MemAvailable": 1500 * GIGA},
    shm_bytes=GIGA,
    machine="aarch64",
    kernel={"thp": "madvise", "governor": "performance", "swappiness": "0", "numa_balancing": "0"},
)


def holder(port: int, listens: bool = True, own: bool = False) -> PortHolder:
    return PortHolder(port, "0.0.0.0", listens, 4242, "python3 app.py (pid 4242)", own)


def process(pid: int) -> NpuInfo:
    return replace(
        chips(), processes=(NpuProcess(1, 0, pid, "python3", 1024), NpuProcess(1, 1, pid, "python3"))
    )


def old_engine(version: str, **more) -> dict:
    return {"docker": replace(GOOD.docker, version=version, **more)}


EULER = ("openeuler", "openEuler 22.03 (LTS-SP3)")
OTHER_NIC = Nic("eth1", True, 1500, ("192.168.0.5",))
FRONT = {"front": PlannedFront("/etc/pd_rollout/pd/front", ("pd-front",), ("haproxy",))}
CASES: dict[str, tuple[dict, dict, list[str]]] = {
    # name: changes of the state, changes of the requirements, codes
    "good": ({}, {}, []),
    "a chip's device missing": ({"devices_missing": ("/dev/davinci3",)}, {}, ["host-device-missing"]),
    "no systemd": ({"front": Front("2.6.12", systemd=False)}, FRONT, ["host-systemd-absent"]),
    "no front is planned": ({"front": None}, {}, []),
    "HAProxy is there": ({"front": Front("2.6.12")}, FRONT, []),
    "HAProxy is old": ({"front": Front("2.4.8")}, FRONT, ["host-haproxy-old"]),
    "HAProxy of two digits": ({"front": Front("2.10")}, FRONT, []),
    "HAProxy can be installed": ({"front": Front(offered="2.6.12")}, FRONT, []),
    "an old HAProxy can be installed": ({"front": Front(offered="2.4.8")}, FRONT, ["host-haproxy-old"]),
    "HAProxy cannot be installed": (
        {"front": Front(unknown=("haproxy",))},
        FRONT,
        ["host-package-absent"],
    ),
    "keepalived cannot be installed": (
        {"front": Front("2.6.12", unknown=("keepalived",))},
        FRONT,
        ["host-package-absent"],
    ),
    "unknown whether it can be": ({"front": Front(offered=None)}, FRONT, []),
    "the front is stopped": (
        {"front": Front("2.6.12", stopped=("pd-front",))},
        FRONT,
        ["host-front-stopped"],
    ),
    "the virtual address is stopped": (
        {"front": Front("2.6.12", stopped=("pd-address",))},
        FRONT,
        ["host-front-stopped"],
    ),
    "mount missing": ({"paths_missing": ("/usr/local/dcmi",)}, {}, ["host-mount-missing"]),
    "foreign process": ({"npu": process(9)}, {}, ["host-npu-process"]),
    "own process": ({"npu": process(9), "own_pids": frozenset({9})}, {}, []),
    "process on another chip": ({"npu": process(9)}, {"chips": (0, 1)}, []),
    "memory used": ({"npu": chips(hbm_used=60000)}, {}, ["host-hbm-used"]),
    "an idle chip of 32 GB": ({"npu": chips(hbm_used=3431, hbm_total=32768)}, {}, []),
    "memory used of a chip of 32 GB": ({"npu": chips(hbm_used=4200, hbm_total=32768)}, {}, ["host-hbm-used"]),
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
    "port taken": ({"port_holders": (holder(8004),)}, {}, ["host-port-taken"]),
    "ports of one purpose taken by one": (
        {"port_holders": (holder(36100), holder(36101))},
        {},
        ["host-port-taken"],
    ),
    "port ours": ({"port_holders": (holder(8004, own=True),)}, {}, []),
    "port held by a connection": ({"port_holders": (holder(36100, False),)}, {}, ["host-port-connection"]),
    "connection that ours has accepted": (
        {"port_holders": (holder(8004, own=True), holder(8004, False))},
        {},
        [],
    ),
    "port that nobody binds": ({"port_holders": (holder(36300),)}, {}, []),
    "HCCL port": ({"port_holders": (holder(60000),)}, {}, ["host-port-hccl"]),
    "connection in HCCL's range": ({"port_holders": (holder(60000, False),)}, {}, []),
    "pool on the loopback": ({"port_holders": (replace(holder(15500), address="127.0.0.11"),)}, {}, []),
    "pool": ({"port_holders": (holder(15500),)}, {}, ["host-port-pool"]),
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
    "no address": ({}, {"address": "10.0.0.99", "advertise": ("10.0.0.99",)}, ["host-address-missing"]),
    "VLLM_HOST_IP is another": ({}, {"advertise": ("10.9.9.9",)}, ["host-advertised-address"]),
    "default route elsewhere": (
        {"default_address": "192.168.0.5"},
        {"advertise": (None,)},
        ["host-advertised-address"],
    ),
    "default route elsewhere, address advertised": ({"default_address": "192.168.0.5"}, {}, []),
    "route elsewhere": (
        {"routes": {"decode1": PeerRoute("192.168.0.5", "eth1")}},
        {},
        ["host-route-elsewhere"],
    ),
    "route over another NIC": (
        {"routes": {"decode1": PeerRoute("10.0.0.11", "eth1")}},
        {},
        ["host-route-elsewhere"],
    ),
    "route of another table": ({"routes": {"decode1": PeerRoute("10.0.0.11", None)}}, {}, []),
    "no route": ({"routes": {"decode1": PeerRoute(None, None)}}, {}, ["host-route-elsewhere"]),
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
    "old engine with clone3": (old_engine("18.09.0", clone3=True), {}, []),
    "old engine without seccomp": (old_engine("19.03.15", clone3=False, seccomp=""), {}, []),
    "old engine unconfined": (old_engine("19.03.15", clone3=False, seccomp="unconfined"), {}, []),
    "old engine, builtin list": (
        old_engine("19.03.15", clone3=False, seccomp="builtin"),
        {},
        ["host-docker-old"],
    ),
    "old engine without clone3": (old_engine("19.03.15", clone3=False), {}, ["host-docker-old"]),
    "20.10.9 without clone3, new runc": (
        old_engine("20.10.9", clone3=False, runc="1.0.2"),
        {},
        ["host-docker-old"],
    ),
    "old engine of Debian, not seen": (
        {**old_engine("19.03.15"), "distribution": ("debian", "Debian 11")},
        {},
        ["host-docker-old"],
    ),
    "openEuler without clone3": (
        {**old_engine("18.09.0", clone3=False), "distribution": EULER},
        {},
        ["host-docker-old"],
    ),
    "Podman": (old_engine("4.9.4", product="Podman Engine"), {}, ["host-docker-other"]),
    "npu-smi elsewhere": (
        {"npu_smi": "/usr/local/sbin/npu-smi"},
        {"npu_smi": "/usr/local/bin/npu-smi"},
        ["host-npu-smi-elsewhere"],
    ),
    "a container has a chip": (
        {"chip_holders": (ChipHolder("other", (3, 9), True, "x"),)},
        {},
        ["host-chip-held"],
    ),
    "a container has a chip and its memory": (
        {"npu": chips(hbm_used=60000), "chip_holders": (ChipHolder("other", (3,), True, "x"),)},
        {},
        ["host-chip-held"],
    ),
    "processes not understood": (
        {"npu": replace(chips(), unread=("| 0 | ? |",))},
        {},
        ["host-npu-unread"],
    ),
    "processes not understood, no chips": (
        {"npu": replace(chips(), unread=("| 0 | ? |",))},
        {"chips": ()},
        [],
    ),
    "no cgroups": ({"docker": replace(GOOD.docker, cgroup="none")}, {}, ["host-docker-cgroup"]),
    "directory full": ({"free_space": {"/etc/pd_rollout/pd": 0}}, {}, ["host-disk-full"]),
    "directory read-only": ({"free_space": {"/etc/pd_rollout/pd": None}}, {}, ["host-disk-full"]),
    "little shared memory": ({"memory": {"MemTotal": 10**12, "MemAvailable": 1000}}, {}, ["host-memory"]),
    "no /dev/shm": ({"shm_bytes": None}, {}, ["host-shm"]),
    "huge pages off": ({"kernel": {"thp": "never"}}, {}, ["host-thp"]),
    "governor": ({"kernel": {"governor": "powersave"}}, {}, ["host-governor"]),
    "swappiness": ({"kernel": {"swappiness": "60"}}, {}, ["host-swappiness"]),
    "NUMA": ({"kernel": {"numa_balancing": "1"}}, {}, ["host-numa-balancing"]),
    "a kernel that says nothing": ({"kernel": {}}, {}, []),
}


CASES["directory open to others"] = (
    {"directory_open": "/etc/pd_rollout is writable by every user"},
    {},
    ["host-directory-open"],
)


@pytest.mark.parametrize(("state", "required", "codes"), CASES.values(), ids=CASES.keys())
def test_state_gives_its_finding(state: dict, required: dict, codes: list[str]) -> None:
    found = v.judge(replace(REQUIREMENTS, **required), replace(GOOD, **state), Limits())
    assert [finding.code for finding in found] == codes
    for finding in found:
        assert finding.severity == HOST_CHECKS[finding.code].severity
        assert "{" not in finding.cure.replace("{{.", "").replace("{storage-driver", "").replace(
            "{VLLM_HOST", ""
        )


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({**old_engine("18.09.0"), "distribution": EULER}, "openEuler 22.03 (LTS-SP3) has patched it"),
        ({**old_engine("19.03.15"), "distribution": ("kylin", "Kylin V10")}, "Kylin V10 has patched it"),
        (
            old_engine("19.03.15", clone3=False, seccomp="/etc/docker/seccomp.json"),
            "its seccomp profile /etc/docker/seccomp.json allows clone3 was not checked",
        ),
        (old_engine("19.03.15", clone3=False, runc="1.0.0-rc93"), "its runc 1.0.0-rc93 may"),
        (old_engine("18.09.0", clone3=False, runc="1.1.4"), "its runc 1.1.4 may"),
    ],
)
def test_an_old_engine_that_may_do_is_a_warning(state: dict, says: str) -> None:
    (finding,) = v.judge(REQUIREMENTS, replace(GOOD, **state), Limits())
    assert (finding.code, finding.severity) == ("host-docker-old", "warning")
    assert says in finding.message
    assert finding.cure.startswith("docker run --rm IMAGE python3")


@pytest.mark.parametrize("runc", [None, "1.0.0-rc92", "1.0.0-rc10", "no version"])
def test_an_old_runc_does_not_help(runc: str | None) -> None:
    state = old_engine("19.03.15", clone3=False, runc=runc)
    (finding,) = v.judge(REQUIREMENTS, replace(GOOD, **state), Limits())
    assert (finding.code, finding.severity) == ("host-docker-old", "error")


@pytest.mark.parametrize(
    ("held", "shared", "severity"),
    [
        (ChipHolder("other", (2, 3), True, "--device /dev/davinci{2,3}"), frozenset(), "error"),
        (ChipHolder("other", (2, 3), True, "--device /dev/davinci{2,3}"), frozenset({1}), "warning"),
        (ChipHolder("other", (0, 3), True, "--device /dev/davinci{0,3}"), frozenset({1}), "error"),
        (ChipHolder("other", (2, 3), False, "--privileged"), frozenset(), "warning"),
        (ChipHolder("other", (4, 5), True, "--device /dev/davinci{4,5}"), frozenset(), None),
    ],
    ids=["alone", "may be shared", "one may be shared", "privileged", "other chips"],
)
def test_containers_of_others_on_chips_of_the_plan(held, shared, severity) -> None:
    state = replace(GOOD, chip_holders=(held,), shared_npus=shared)
    found = [
        finding for finding in v.judge(REQUIREMENTS, state, Limits()) if set(finding.chips) & {0, 1, 2, 3}
    ]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    for finding in found:
        assert "container other" in finding.message
        assert "docker stop other" in finding.cure


def test_a_container_that_the_docker_engine_does_not_know_is_named_by_its_process() -> None:
    held = ChipHolder("dddddddddddd (python3, pid 14)", (3,), True, "/dev/davinci3 in it", 14)
    (finding,) = v.judge(REQUIREMENTS, replace(GOOD, chip_holders=(held,)), Limits())
    assert (finding.code, finding.severity) == ("host-chip-held", "error")
    assert finding.cure.startswith("ps -fp 14; cat /proc/14/cgroup")
    assert "docker" not in finding.cure


def test_memory_is_missing_whoever_may_have_the_chip_too() -> None:
    idle = ChipHolder("other", (3,), False, "--privileged")
    state = replace(GOOD, npu=chips(hbm_used=60000), chip_holders=(idle,))
    found = v.judge(REQUIREMENTS, state, Limits())
    assert [(finding.code, finding.severity) for finding in found] == [
        ("host-hbm-used", "error"),
        ("host-chip-held", "warning"),
    ]
    assert "container other" in found[0].cure


RESET = "npu-smi set -t reset"


@pytest.mark.parametrize(
    ("state", "says", "reset"),
    [
        ({}, "no process is listed", True),
        (
            {"npu": replace(chips(hbm_used=60000), processes_listed=False)},
            "the processes that use it could not be read",
            False,
        ),
        (
            {"npu": replace(chips(hbm_used=60000), unread=("| ? |",))},
            "the processes that use it could not be read",
            False,
        ),
        ({"root": False}, "the processes that use it could not be read", False),
        (
            {"openers": {3: (77,)}, "commands": {77: "python3 serve.py in container other"}},
            "the device is open in python3 serve.py in container other (pid 77)",
            False,
        ),
        # npu-smi resets all chips of the server, also those that are not of the plan.
        ({"openers": {9: (77,)}}, "no process is listed", False),
        (
            {"npu": replace(chips(hbm_used=60000), processes=(NpuProcess(7, 1, 77, "python3", 100),))},
            "no process is listed",
            False,
        ),
        ({"chip_holders": (ChipHolder("other", (0,), True, "x"),)}, "no process is listed", False),
    ],
    ids=[
        "nobody there",
        "no table",
        "unread rows",
        "not root",
        "an open device",
        "an open device of another chip",
        "a process on another chip",
        "a container with another chip",
    ],
)
def test_a_reset_is_advised_only_where_nobody_is_there(state: dict, says: str, reset: bool) -> None:
    found = v.judge(REQUIREMENTS, replace(GOOD, **{"npu": chips(hbm_used=60000), **state}), Limits())
    (finding,) = [finding for finding in found if finding.code == "host-hbm-used"]
    assert says in finding.message
    assert (RESET in finding.cure) is reset
    assert all(RESET not in other.cure for other in found if other is not finding)


def test_one_line_for_ports_of_one_process() -> None:
    state = replace(GOOD, port_holders=(holder(36101), holder(36100), holder(8004)))
    assert [finding.message for finding in v.judge(REQUIREMENTS, state, Limits())] == [
        "port 8004 (API) is in use: python3 app.py (pid 4242)",
        "ports 36100-36101 (KV handshake) are in use: python3 app.py (pid 4242)",
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
            {"weights_present": False, "free_space": {"/w": GIGA}},
            {"weights_gigabytes": 700, "weights_path": "/w"},
            ["host-disk-weights"],
        ),
        (
            {"weights_present": False, "free_space": {"/w": 800 * GIGA}},
            {"weights_gigabytes": 700, "weights_path": "/w"},
            [],
        ),
    ],
)
def test_space(state: dict, limits: dict, codes: list[str]) -> None:
    found = v.judge(REQUIREMENTS, replace(GOOD, **state), Limits(**limits))
    assert [finding.code for finding in found] == codes


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
    found = v.facts(REQUIREMENTS, replace(GOOD, docker=docker), Limits(image_archive=archive))
    assert (found["image"], found["image_archive"]) == facts


def test_the_listener_leaves_out_what_is_taken_and_what_nobody_binds() -> None:
    state = replace(GOOD, port_holders=(holder(8004),))
    assert v.sample_ports(REQUIREMENTS, state) == [15000, 17000, 36100, 36101, 36102, 36103, 60000, 60031]


def test_reserving_keeps_what_is_reserved() -> None:
    (finding,) = v.judge(REQUIREMENTS, replace(GOOD, reserved=((9000, 9001),)), Limits())
    assert "=8004,9000-9001,36100-36103,60000-60031" in finding.cure
