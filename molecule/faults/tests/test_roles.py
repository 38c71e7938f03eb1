"""What the checks do beside finding faults: on healthy servers, as a role of its own, in check mode, with
waivers and with reserved ports. These tests run after the faults, when the servers have been cured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests drive the controller; one server is enough to run them once.
testinfra_hosts = ["prefill1"]

ROLE = "molecule/faults/hccn_check.yml"
# What the machine under the simulated servers decides.
OF_THE_MACHINE = {"host-swappiness", "host-numa-balancing", "host-thp", "host-governor"}
SERVERS = ("decode1", "prefill1", "prefill2")

Check = Callable[..., dict[str, Any]]
Rehearse = Callable[..., None]


def codes(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Code and place of every finding, but what the machine decides."""
    return sorted(
        (one["code"], one["host"] or "") for one in found["findings"] if one["code"] not in OF_THE_MACHINE
    )


def test_after_the_cure_the_check_is_clean_and_has_changed_nothing(
    check: Check, rehearse: Rehearse, server: Callable[[str], Any], tmp_path: Path
) -> None:
    rehearse({}, [])
    found = check({"pd_weights_verify": "full", "hccn_check_mesh": "ring"}, {})
    assert codes(found) == [], found["said"]
    assert found["code"] == 0
    assert "changed=0" in found["said"]
    assert "changed=1" not in found["said"]
    # All at once: while the servers connect.
    assert "Ping the chips of the other servers" not in found["said"]
    assert ", 96 pings, " in found["said"]
    assert (tmp_path / "plan" / "check.md").exists()
    for name in SERVERS:
        # The listener has gone, and with it every port of the plan.
        listening = server(name).check_output("ss -Hltn")
        assert not any(f":{port} " in listening for port in (8004, 8005, 7001, 36100, 36115, 60000)), (
            listening
        )


def test_with_fewer_forks_than_servers_the_chips_ping_before_the_servers_connect(check: Check) -> None:
    """A listener waits two minutes for its clients, which may not spend them pinging."""
    found = check({"hccn_check_mesh": "ring"}, {}, "--forks", "2")
    assert (found["code"], codes(found)) == (0, []), found["said"]
    assert "Ping the chips of the other servers" in found["said"]
    assert ", 96 pings, " in found["said"]


def test_other_forms_of_good_answers_are_no_findings(check: Check, rehearse: Rehearse) -> None:
    """White space, chips without a TLS switch, and a default route that does not matter, as the recommended
    profile sets VLLM_HOST_IP."""
    rehearse(
        {
            "prefill1": {"tool_format": {"value": "tabs"}, "tls_missing": {}},
            "prefill2": {"tool_format": {"value": "crlf"}},
            "decode1": {"tool_format": {"value": "bare"}, "second_network": {}},
        },
        [],
    )
    found = check({}, {})
    assert codes(found) == [], found["said"]


def test_what_roce_carries_weighs_more_over_roce(check: Check, rehearse: Rehearse) -> None:
    rehearse(
        {
            "prefill1": {"link_down": {"chips": [3]}},
            "prefill2": {"ip_unset": {"chips": [4]}},
            "decode1": {"vnic_down": {}},
        },
        [],
    )
    found = check({"hccn_check_fabric": "roce"}, {})
    weights = {(one["code"], one["host"]): one["severity"] for one in found["findings"]}
    assert weights["hccn-link-down", "prefill1"] == "error"
    assert weights["hccn-ip-unset", "prefill2"] == "error"
    assert weights["hccn-vnic-down", "decode1"] == "hint"


def test_the_role_alone_stops_the_play_and_says_why(rehearse: Rehearse, play: Callable[..., Any]) -> None:
    rehearse({"decode1": {"vnic_down": {}}}, [])
    done = play(ROLE, "--extra-vars", "hccn_check_mesh=none hccn_check_timeout=30")
    assert done.returncode != 0
    assert "ERROR hccn-vnic-down" in done.stdout
    assert "16 chips (0-15): vNIC DOWN" in done.stdout
    assert "(hccn-vnic-down at decode1)" in " ".join(done.stdout.split())


def test_the_role_alone_checks_in_check_mode_as_well(rehearse: Rehearse, play: Callable[..., Any]) -> None:
    rehearse({}, [])
    given = "hccn_check_mesh=ring hccn_check_timeout=30 hccn_check_ping_timeout=30"
    done = play(ROLE, "--check", "--diff", "--extra-vars", given)
    assert done.returncode == 0, done.stdout
    assert "HCCN check: 3 servers, 48 chips, HCCS, 96 pings: all good" in done.stdout


def test_a_fault_of_all_servers_is_one_line(check: Check) -> None:
    found = check({"pd_interface": "bond7"}, {})
    assert codes(found) == [("host-nic-missing", name) for name in SERVERS]
    assert found["said"].count("ERROR host-nic-missing") == 1


def test_waivers(check: Check, rehearse: Rehearse) -> None:
    """A fault that is waived does not stop, unless the waiver has expired."""
    rehearse({"prefill1": {"port_taken": {"port": 8004}}, "decode1": {"device_missing": {"chip": 3}}}, [])
    waiver = {"code": "host-port-taken", "place": "prefill1", "reason": "goes away", "expires": "2999-12-31"}
    expired = {**waiver, "code": "host-device-missing", "place": "decode1", "expires": "2020-01-01"}
    found = check({"check_report_waivers": [waiver, expired]}, {})
    assert codes(found) == [("check-waiver-expired", ""), ("host-device-missing", "decode1")]
    assert [one["code"] for one in found["waived"]] == ["host-port-taken"]
    assert found["code"] != 0
    rehearse({"prefill1": {"port_taken": {"port": 8004}}}, [])
    found = check({"check_report_waivers": [waiver]}, {})
    assert codes(found) == []
    assert found["code"] == 0


@pytest.fixture
def taking_any_port(server: Callable[[str], Any]) -> Iterator[None]:
    """Outgoing connections take ports from Linux's default range; simulated servers have another one."""
    key = "net.ipv4.ip_local_port_range"
    before = {name: server(name).check_output(f"{root(name)} sysctl -n {key}") for name in SERVERS}
    for name in SERVERS:
        server(name).check_output(f"{root(name)} sysctl -w {key}='32768 60999'")
    yield
    for name in SERVERS:
        server(name).check_output(f"{root(name)} sysctl -w {key}='{before[name]}'")


def root(name: str) -> str:
    """How to become root there: one server is reached as another user."""
    return "sudo" if name == "prefill2" else "env"


@pytest.mark.usefixtures("taking_any_port")
def test_reserved_ports(check: Check, rehearse: Rehearse, server: Callable[[str], Any]) -> None:
    def unreserved(found: dict[str, Any]) -> list[str]:
        return [one["host"] for one in found["findings"] if one["code"] == "host-ports-not-reserved"]

    rehearse({}, [])
    assert unreserved(check({}, {})) == list(SERVERS)
    server("prefill1").check_output("sysctl -w net.ipv4.ip_local_reserved_ports=9000")
    assert unreserved(check({"host_check_reserve_ports": True}, {})) == []
    text = server("prefill1").file("/etc/sysctl.d/90-pd-rollout.conf").content_string
    assert "= 7001,8004-8005,8406,9000,36100-36115,60000-60031\n" in text
    again = check({"host_check_reserve_ports": True}, {})
    assert "changed=0" in again["said"]
    assert "changed=1" not in again["said"]
