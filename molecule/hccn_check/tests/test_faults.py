"""Each fault of a server gives exactly its finding, and after the cure the check is clean."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests drive the controller; one server is enough to run them once.
testinfra_hosts = ["server1"]

CONVERGE = "molecule/hccn_check/converge.yml"
FINDINGS = "molecule/hccn_check/findings.yml"
ALL = list(range(16))
# Seconds, long ones: a busy machine is no fault of the servers.
USUAL = {"hccn_check_timeout": 30, "hccn_check_ping_timeout": 30}

Verdict = Callable[..., dict[str, Any]]
Code = tuple[str, str, str, list[int]]


@pytest.fixture
def verdict(play: Callable[..., Any], tmp_path: Path) -> Verdict:
    """Run the role and return what it found."""

    def run(*arguments: str, mesh: str = "none", **options: object) -> dict[str, Any]:
        kept = tmp_path / "verdict.json"
        kept.unlink(missing_ok=True)
        extra = {"verdict": str(kept), "hccn_check_mesh": mesh, **USUAL, **options}
        done = play(FINDINGS, "--extra-vars", json.dumps(extra), *arguments)
        assert kept.exists(), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(kept.read_text())
        return found

    return run


@pytest.fixture
def fault(sim: Callable[..., str]) -> Iterator[Callable[..., None]]:
    """Switch on faults that the test's end heals."""
    hosts: set[str] = set()

    def on(host: str, name: str, **parameters: object) -> None:
        hosts.add(host)
        sim("fault", host, name, *(f"{key}={json.dumps(value)}" for key, value in parameters.items()))

    yield on
    for host in hosts:
        sim("heal", host, "--all")


def codes(found: dict[str, Any]) -> list[Code]:
    return [(one["code"], one["severity"], one["host"], one["chips"]) for one in found["findings"]]


def test_healthy_servers_have_no_findings(verdict: Verdict) -> None:
    found = verdict(mesh="pairs")
    assert found["findings"] == []
    assert found["msg"] == "HCCN check: 3 servers, 48 chips, HCCS, 96 pings: all good"


# Faults that do not touch each other share a run: faults by server, what is declared, and all findings.
RUNS: dict[str, tuple[dict[str, dict[str, dict[str, object]]], dict[str, object], list[Code]]] = {
    "ports": (
        {
            "server1": {
                "link_down": {"chips": [0]},
                "net_health": {"chips": [1], "value": "Socket fail"},
                "netdetect_unset": {"chips": [2]},
                "gateway_unset": {"chips": [3]},
                "gateway": {"chips": [4], "value": "11.12.9.9"},
                "lldp_missing": {"chips": [5]},
                "ip_unset": {"chips": [6]},
                "ip": {"chips": [7], "value": "11.12.9.9"},
            },
            "server2": {"link_down": {}},
        },
        {},
        [
            ("hccn-conf-disagrees", "error", "server1", [7]),
            ("hccn-conf-disagrees", "warning", "server1", [4]),
            ("hccn-link-down", "warning", "server1", [0]),
            ("hccn-link-down", "warning", "server2", ALL),
            ("hccn-net-health", "warning", "server1", [1]),
            ("hccn-gateway-unset", "hint", "server1", [3]),
            ("hccn-ip-unset", "hint", "server1", [6]),
            ("hccn-lldp-missing", "hint", "server1", [5]),
            ("hccn-netdetect-unset", "hint", "server1", [2]),
        ],
    ),
    "over RoCE": (
        {"server1": {"link_down": {"chips": [3]}, "ip_unset": {"chips": [4]}}, "server2": {"vnic_down": {}}},
        {"hccn_check_fabric": "roce"},
        [
            ("hccn-ip-unset", "error", "server1", [4]),
            ("hccn-link-down", "error", "server1", [3]),
            ("hccn-vnic-down", "hint", "server2", ALL),
        ],
    ),
    "HCCS and NPUs": (
        {
            "server1": {
                "vnic_down": {"chips": [3, 4]},
                "vnic_missing": {"chips": [5]},
                "spod_unsupported": {"chips": [6]},
            },
            "server2": {"super_pod": {"id": 7, "chips": [3]}, "server_index": {"value": 99, "chips": [4]}},
            "server3": {"npu_missing": {"chips": [3]}, "npu_health": {"chips": [4], "value": "Alarm"}},
        },
        {},
        [
            ("hccn-server-index-mixed", "error", "server2", [4]),
            ("hccn-spod-unknown", "error", "server1", [6]),
            ("hccn-super-pod-mixed", "error", "server2", [3]),
            ("hccn-vnic-down", "error", "server1", [3, 4]),
            ("hccn-vnic-missing", "error", "server1", [5]),
            ("npu-missing", "error", "server3", [3]),
            ("npu-unhealthy", "error", "server3", [4]),
        ],
    ),
    "another super pod": (
        {"server3": {"super_pod": {"id": 7}}},
        {},
        [("hccn-super-pod-differs", "warning", "server3", [])],
    ),
    "TLS of one chip": (
        {
            "server1": {"tls_on": {"chips": [3]}},
            "server2": {"tls_missing": {}},
            "server3": {"npu_health": {"value": "Warning"}},
        },
        {},
        [("hccn-tls-mixed", "error", "server1", [3]), ("npu-warning", "warning", "server3", ALL)],
    ),
    "TLS of one server": (
        {"server3": {"tls_on": {}}},
        {},
        [("hccn-tls-differs", "error", "server3", ALL)],
    ),
    "not as declared": (
        {
            "server2": {"tls_on": {}},
            "server3": {"super_pod": {"id": 7}, "driver_version": {"value": "24.1.0"}},
        },
        {"hccn_check_tls": "off", "hccn_check_super_pod": 0, "hccn_check_driver_minimum": "25.0.0"},
        [
            ("hccn-super-pod-unexpected", "error", "server3", ALL),
            ("hccn-tls-unexpected", "error", "server2", ALL),
            ("npu-driver-old", "error", "server3", []),
            ("npu-driver-differs", "warning", "server3", []),
        ],
    ),
    "tools": (
        {
            "server1": {"tool_missing": {"tool": "hccn_tool"}},
            "server2": {"tool_not_executable": {"tool": "hccn_tool"}},
            "server3": {"tool_hang": {"tool": "hccn_tool", "chips": [3]}},
        },
        {"hccn_check_timeout": 8},
        [
            ("hccn-tool-hangs", "error", "server3", [3]),
            ("hccn-tool-missing", "error", "server1", []),
            ("hccn-tool-not-executable", "error", "server2", []),
        ],
    ),
    "answers that are none": (
        {
            "server1": {"tool_error": {"query": "vnic"}},
            "server2": {"tool_empty": {"query": "link", "chips": [3]}},
        },
        {},
        [
            ("hccn-query-failed", "error", "server1", ALL),
            ("hccn-answer-unreadable", "warning", "server2", [3]),
        ],
    ),
    "hccn.conf": (
        {"server1": {"hccn_conf_missing": {}}, "server2": {"hccn_conf_empty": {}}},
        {},
        [
            ("hccn-conf-empty", "error", "server2", ALL),
            ("hccn-conf-missing", "error", "server1", ALL),
        ],
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_each_fault_is_one_finding(verdict: Verdict, fault: Callable[..., None], name: str) -> None:
    faults, declared, expected = RUNS[name]
    for server, of_server in faults.items():
        for one, parameters in of_server.items():
            fault(server, one, **parameters)
    assert codes(verdict(**declared)) == expected


def test_other_white_space_is_no_finding(verdict: Verdict, fault: Callable[..., None]) -> None:
    for server, form in (("server1", "tabs"), ("server2", "crlf"), ("server3", "bare")):
        fault(server, "tool_format", value=form)
    assert verdict()["findings"] == []


def test_values_that_two_servers_share(
    verdict: Verdict, fault: Callable[..., None], servers: dict[str, Any], host: Any
) -> None:
    state = json.loads(host.file("/usr/local/dcmi/pd-sim/server.json").content_string)
    first = state["chip"][3]
    fault("server3", "sdid", chips=[5], value=first["sdid"])
    fault("server3", "vnic_address", chips=[5], value=first["vnic_ip"])
    assert [one[:3] for one in codes(verdict())] == [
        ("hccn-sdid-duplicate", "error", "server1, server3"),
        ("hccn-vnic-duplicate", "error", "server1, server3"),
    ]
    fault("server2", "server_index", value=state["server_index"])
    assert ("hccn-server-index-duplicate", "error", "server1, server2", []) in codes(verdict())


def test_a_tool_that_needs_root_says_so_to_others(
    verdict: Verdict, fault: Callable[..., None], tmp_path: Path
) -> None:
    fault("server3", "tool_needs_root")
    as_nobody = {"become": True, "become_user": "nobody", "become_method": "su", "become_flags": "-s /bin/sh"}
    variables = {f"ansible_{key}": value for key, value in as_nobody.items()}
    # A second inventory whose host_vars come after those that lead to the simulated server.
    (tmp_path / "more" / "host_vars").mkdir(parents=True)
    (tmp_path / "more" / "hosts").write_text("server3\n")
    (tmp_path / "more" / "host_vars" / "server3.json").write_text(json.dumps(variables))
    found = verdict("--inventory", str(tmp_path / "more"))
    assert {one[:3] for one in codes(found)} == {("hccn-tool-needs-root", "error", "server3")}
    assert {one["message"] for one in found["findings"]} == {"hccn_tool needs root", "npu-smi needs root"}


def test_a_pair_that_fails_in_one_direction_only(
    verdict: Verdict, fault: Callable[..., None], host: Any
) -> None:
    state = json.loads(host.file("/usr/local/dcmi/pd-sim/server.json").content_string)
    fault("server3", "hccs_ping_fail", chips=[4], to=[state["chip"][4]["vnic_ip"]])
    found = verdict(mesh="ring")
    assert codes(found) == [("hccn-ping-failed", "error", "server3", [4])]
    assert found["findings"][0]["message"] == (
        "server3 chip 4 → server1: 1 of 16 pings fail; the other direction works"
    )


def test_a_ping_that_hangs_is_a_finding_and_the_rest_is_pinged(
    verdict: Verdict, fault: Callable[..., None]
) -> None:
    fault("server3", "hccs_ping_hang", chips=[4])
    found = verdict(mesh="ring", hccn_check_ping_timeout=10)
    assert [(one["code"], one["host"], one["chips"]) for one in found["findings"]] == [
        ("hccn-ping-failed", "server3", [4]),
        ("hccn-ping-failed", "server3", [4]),
    ]
    assert all("no answer within 10 s" in one["seen"] for one in found["findings"])


def test_hanging_tools_do_not_hang_the_run(verdict: Verdict, fault: Callable[..., None]) -> None:
    fault("server2", "tool_hang")
    begin = time.monotonic()
    found = verdict(hccn_check_timeout=8)
    # Two time-outs a chip, and the start of the playbook on a busy machine.
    assert time.monotonic() - begin < 90
    assert {(one["code"], one["host"]) for one in found["findings"]} == {("hccn-tool-hangs", "server2")}


def test_a_server_that_is_off_does_not_hide_the_others(
    verdict: Verdict, fault: Callable[..., None], sim: Callable[..., str]
) -> None:
    fault("server3", "vnic_down", chips=[3])
    sim("stop", "server2")
    try:
        found = verdict(mesh="pairs")
    finally:
        sim("start", "server2")
    assert codes(found) == [
        ("hccn-not-checked", "error", "server2", []),
        ("hccn-vnic-down", "error", "server3", [3]),
    ]


def test_errors_stop_the_play_and_say_why(fault: Callable[..., None], play: Callable[..., Any]) -> None:
    fault("server3", "vnic_down")
    done = play(CONVERGE, "--extra-vars", "hccn_check_mesh=none")
    assert done.returncode != 0
    assert "ERROR hccn-vnic-down" in done.stdout
    assert "16 chips (0-15): vNIC DOWN" in done.stdout
    assert "(hccn-vnic-down at server3)" in " ".join(done.stdout.split())


def test_check_mode_checks_as_well(play: Callable[..., Any]) -> None:
    done = play(CONVERGE, "--check", "--diff", "--extra-vars", "hccn_check_mesh=ring")
    assert done.returncode == 0, done.stdout
    assert "HCCN check: 3 servers, 48 chips, HCCS, 96 pings: all good" in done.stdout
