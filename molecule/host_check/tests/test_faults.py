"""Faults of servers and of the network between them: exactly the right findings, and none after the cure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests drive the controller; one server is enough to run them once.
testinfra_hosts = ["prefill1"]

CHECK = "playbooks/check.yml"
# What the machine under the simulated servers decides.
OF_THE_MACHINE = {"host-swappiness", "host-numa-balancing", "host-thp", "host-governor"}
SERVERS = ("decode1", "prefill1", "prefill2")
# Seconds, long ones: a busy machine is no fault of the servers.
USUAL = {"hccn_check_timeout": 30, "host_check_timeout": 30, "host_check_connect_timeout": 8}

Report = Callable[..., dict[str, Any]]


@pytest.fixture
def report(play: Callable[..., Any], tmp_path: Path) -> Report:
    """Run all checks, without pings; the written report, with the exit code and what was printed."""

    def run(*arguments: str, **variables: object) -> dict[str, Any]:
        extra = {"pd_plan_dir": str(tmp_path), "hccn_check_mesh": "none", **USUAL, **variables}
        done = play(CHECK, "--extra-vars", json.dumps(extra), *arguments)
        said = done.stdout + done.stderr
        written = tmp_path / "check.json"
        assert written.exists(), said
        assert (tmp_path / "check.md").exists()
        found: dict[str, Any] = json.loads(written.read_text())
        written.unlink()
        found.update(code=done.returncode, said=said)
        return found

    return run


@pytest.fixture
def fault(sim: Callable[..., str]) -> Iterator[Callable[..., None]]:
    """Switch on faults that the test's end heals."""
    hosts: list[str] = []

    def on(host: str, name: str, *parameters: str) -> None:
        hosts.append(host)
        sim("fault", host, name, *parameters)

    yield on
    for host in dict.fromkeys(hosts):
        sim("heal", host, "--all")


def codes(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Code and place of every finding, but what the machine decides."""
    return sorted(
        (one["code"], one["host"] or "") for one in found["findings"] if one["code"] not in OF_THE_MACHINE
    )


def test_healthy_servers(report: Report, server: Callable[[str], Any]) -> None:
    found = report()
    assert codes(found) == [], found["said"]
    assert found["code"] == 0
    for name in SERVERS:
        # The listener has gone, and with it every port of the plan.
        listening = server(name).check_output("ss -Hltn")
        assert not any(f":{port} " in listening for port in (8004, 8005, 7001, 36100, 36115, 60000)), (
            listening
        )


RUNS: dict[str, tuple[dict[str, list[tuple[str, ...]]], list[tuple[str, str]]]] = {
    "servers": (
        {
            "prefill1": [("port_taken", "port=8004"), ("device_missing", "chip=3")],
            "prefill2": [("npu_process", "chips=[3,4]"), ("mtu_small",)],
            "decode1": [("disk_full",), ("docker_stopped",)],
        },
        [
            ("host-device-missing", "prefill1"),
            ("host-disk-full", "decode1"),
            ("host-docker-silent", "decode1"),
            ("host-mtu-differs", "prefill2"),
            ("host-npu-process", "prefill2"),
            ("host-port-taken", "prefill1"),
        ],
    ),
    "ports and NPUs": (
        {
            "prefill1": [("port_blocked", "port=36103")],
            "prefill2": [("hbm_used", "chips=[0]"), ("driver_version",)],
            "decode1": [("port_taken", "port=60005")],
        },
        [
            ("host-driver-older", "prefill2"),
            ("host-hbm-used", "prefill2"),
            ("host-port-hccl", "decode1"),
            ("host-port-unreachable", "prefill1"),
            ("npu-driver-differs", "prefill2"),
        ],
    ),
    "no Docker": (
        {"prefill2": [("docker_absent",)], "prefill1": [("port_taken", "port=16000")]},
        [("host-docker-absent", "prefill2"), ("host-port-pool", "prefill1")],
    ),
}


@pytest.mark.parametrize(("faults", "expected"), RUNS.values(), ids=RUNS.keys())
def test_faults_give_their_findings(
    report: Report, fault: Callable[..., None], faults: dict, expected: list[tuple[str, str]]
) -> None:
    for host, several in faults.items():
        for one in several:
            fault(host, *one)
    found = report()
    assert codes(found) == expected, found["said"]
    wanted = 0 if all(one["severity"] != "error" for one in found["findings"]) else 2
    assert found["code"] == wanted, found["said"]


def test_after_the_cure_the_check_is_clean(report: Report) -> None:
    assert codes(report()) == []


def test_a_blocked_port_names_the_rule(report: Report, fault: Callable[..., None]) -> None:
    fault("prefill1", "port_blocked", "port=7001", "action=REJECT")
    found = report()
    assert codes(found) == [("host-port-unreachable", "prefill1")], found["said"]
    (one,) = [one for one in found["findings"] if one["code"] == "host-port-unreachable"]
    assert one["message"] == "port 7001 of prefill1 cannot be reached from prefill2"
    assert "firewall on prefill1: iptables: -A INPUT" in one["seen"]


def test_servers_that_are_cut_off_from_each_other(
    report: Report, fault: Callable[..., None], servers: dict[str, Any]
) -> None:
    fault("decode1", "network_cut", f"to={json.dumps(servers['prefill1']['address'])}")
    found = report()
    assert codes(found) == [("host-port-unreachable", "decode1"), ("host-port-unreachable", "prefill1")]
    assert "no port of prefill1 can be reached from decode1" not in found["said"]
    assert "cannot be reached from decode1" in found["said"]


def test_the_default_route_leaves_by_another_network(report: Report, fault: Callable[..., None]) -> None:
    fault("decode1", "second_network")
    # The recommended profile sets VLLM_HOST_IP; the guide's does not.
    assert codes(report()) == []
    found = report(pd_profile="deepseek-v3.1-w8a8-guide")
    assert codes(found) == [("host-advertised-address", "decode1")], found["said"]


def test_a_nic_that_is_not_there(report: Report) -> None:
    found = report(pd_interface="bond7")
    assert codes(found) == [("host-nic-missing", name) for name in ("decode1", "prefill1", "prefill2")]
    # One line for all of them.
    assert found["said"].count("ERROR host-nic-missing") == 1


@pytest.mark.parametrize("down", ["prefill1", "decode1"], ids=["the first", "the last"])
def test_a_server_that_is_down_does_not_hide_the_others(
    report: Report, fault: Callable[..., None], sim: Callable[..., str], down: str
) -> None:
    fault("prefill2", "device_missing", "chip=3")
    sim("stop", down)
    try:
        found = report("--timeout", "15")
    finally:
        sim("start", down)
    assert codes(found) == [("hccn-not-checked", down), ("host-device-missing", "prefill2")], found["said"]
    assert found["code"] != 0


def test_waivers(report: Report, fault: Callable[..., None]) -> None:
    fault("prefill1", "port_taken", "port=8004")
    waiver = {"code": "host-port-taken", "place": "prefill1", "reason": "goes away", "expires": "2999-12-31"}
    found = report(check_waivers=[waiver])
    assert codes(found) == []
    assert found["code"] == 0
    assert [one["code"] for one in found["waived"]] == ["host-port-taken"]
    found = report(check_waivers=[{**waiver, "expires": "2020-01-01"}])
    assert codes(found) == [("check-waiver-expired", ""), ("host-port-taken", "prefill1")]
    assert found["code"] != 0


@pytest.fixture
def taking_any_port(server: Callable[[str], Any]) -> Iterator[None]:
    """Outgoing connections take ports from Linux's default range; simulated servers have another one."""
    key = "net.ipv4.ip_local_port_range"
    before = {name: server(name).check_output(f"sysctl -n {key}") for name in SERVERS}
    for name in SERVERS:
        server(name).check_output(f"sysctl -w {key}='32768 60999'")
    yield
    for name in SERVERS:
        server(name).check_output(f"sysctl -w {key}='{before[name]}'")


@pytest.mark.usefixtures("taking_any_port")
def test_reserved_ports(report: Report, server: Callable[[str], Any]) -> None:
    def unreserved(found: dict[str, Any]) -> list[str]:
        return [one["host"] for one in found["findings"] if one["code"] == "host-ports-not-reserved"]

    assert unreserved(report()) == list(SERVERS)
    server("prefill1").check_output("sysctl -w net.ipv4.ip_local_reserved_ports=9000")
    assert unreserved(report(host_check_reserve_ports=True)) == []
    text = server("prefill1").file("/etc/sysctl.d/90-pd-rollout.conf").content_string
    assert "= 7001,8004-8005,9000,36100-36115,60000-60031\n" in text
    again = report(host_check_reserve_ports=True)
    assert "changed=0" in again["said"]
    assert "changed=1" not in again["said"]
