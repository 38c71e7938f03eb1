# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated hccn_tool and npu-smi: real formats, faults, pings that reach the peer, what they cost."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn import parsers

TOOLS = Path(__file__).resolve().parents[3] / "simulator" / "tools"


class SimulatedServer:
    """A state folder, and the tools run against it."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.cache = place / "cache"
        self.state.mkdir()
        for name in ("tool.sh", "render.py"):
            shutil.copy(TOOLS / name, self.state)
        self.describe()

    def describe(self, **more) -> None:
        state = {
            "name": "prefill1",
            "address": "127.0.0.1",
            "chips": 16,
            "super_pod_id": 0,
            "super_pod_size": 384,
            "server_index": 4,
            "driver": "25.5.0",
            "timing": {"query_seconds": 0, "ping_seconds": 0},
            **more,
        }
        (self.state / "server.json").write_text(json.dumps(state))

    def fault(self, **faults) -> None:
        (self.state / "faults.json").write_text(json.dumps(faults))

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PD_SIM_STATE": str(self.state), "PD_SIM_CACHE": str(self.cache)}

    def run(self, tool: str, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TOOLS / tool, *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def hccn(self, chip: int, query: str, *more: str) -> str:
        return self.run("hccn_tool", "-i", str(chip), f"-{query}", "-g", *more).stdout

    def smi(self, *arguments: str) -> str:
        return self.run("npu-smi", "info", *arguments).stdout


@pytest.fixture
def server(tmp_path: Path) -> SimulatedServer:
    return SimulatedServer(tmp_path)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("link", "link status: UP\n"),
        ("net_health", "net health status: Success\n"),
        ("netdetect", "netdetect addr: 11.12.4.254\n"),
        ("gateway", "default gateway:11.12.4.254, Iface:eth0\n"),
        ("ip", "ipaddr:11.12.4.4\nnetmask:255.255.255.0\n"),
        ("vnic", "vnic link status: UP\nvnic ipaddr: 192.168.4.4\nvnic netmask: 255.255.255.0\n"),
        (
            "tls",
            "dev_id:3, tls switch[0](0:disable, 1:enable), tls preconfigured[1](0:non-preset, 1:preset), "
            "tls alarm time threshold[60]days\n"
            "dev_id:3, [pub cert] info:\n\t subject[/C=CN/O=Huawei/CN=npu]\n"
            "\t issuer[/C=CN/O=Huawei/CN=Huawei IT Product CA]\n"
            "\t start_time[Sat Jan 31 03:10:27 2015 GMT]\n\t end_time[Wed Jun 18 03:10:27 2053 GMT]\n"
            "\t tls expiration status[0](0:normal, 1:near expiration, 2:has expired)\n",
        ),
    ],
)
def test_formats(server, query, text) -> None:
    assert server.hccn(3, query) == text


def test_lldp_names_the_switch_port(server) -> None:
    assert "\n\tIfname: 400GE1/4/1:1\n" in server.hccn(0, "lldp")


def test_spod_info(server) -> None:
    text = server.smi("-t", "spod-info", "-i", "0", "-c", "0")
    assert text.splitlines() == [
        f"\t{name:<30} : {value}"
        for name, value in (
            ("SDID", 16777216),
            ("Super Pod Size", 384),
            ("Super Pod ID", 0),
            ("Server Index", 4),
        )
    ]


def test_an_a2_server_has_one_chip_an_npu_and_no_super_pod(server) -> None:
    server.describe(chips=8, soc="Ascend910B3")
    table = parsers.parse_npu_info(server.smi())
    assert [(chip.npu, chip.chip, chip.phy_id) for chip in table.chips] == [(n, 0, n) for n in range(8)]
    assert {chip.name for chip in table.chips} == {"910B3"}
    assert "does not support" in server.smi("-t", "spod-info", "-i", "7", "-c", "0")
    # It has the interface, with an address that is the same on every server, but no ping over HCCS.
    assert parsers.parse_vnic(server.hccn(7, "vnic")) == parsers.Vnic("UP", "192.168.2.192", "255.255.255.0")
    refused = server.run("hccn_tool", "-i", "7", "-hccs_ping", "-g", "address", "192.168.2.199")
    assert (refused.stdout, refused.returncode) == ("The command is not supported on this product.\n", 13)
    assert parsers.parse_ip(server.hccn(7, "ip")).address == "11.12.4.8"
    server.fault(npu_process={"chips": [5]})
    (busy,) = parsers.parse_npu_info(server.smi()).processes
    assert (busy.npu, busy.chip) == (5, 0)


def test_unknown_chip_and_usage(server) -> None:
    unknown = server.run("hccn_tool", "-i", "16", "-link", "-g")
    assert (unknown.stdout, unknown.returncode) == ("Get invalid device id.\n", 4)
    unknown = server.run("hccn_tool", "-i", "0", "-nothing", "-g")
    assert unknown.stdout == "Get invalid major cmd.\nEnter [ hccn_tool -h ] for more details.\n"
    assert unknown.returncode == 3
    assert "Get invalid major cmd number" in server.run("hccn_tool", "-link").stdout
    assert "Usage" in server.run("npu-smi").stdout


def test_no_driver(server) -> None:
    (server.state / "server.json").unlink()
    done = server.run("npu-smi", "info")
    assert done.returncode != 0
    assert "dcmi module initialize failed" in done.stdout


@pytest.mark.parametrize(
    ("fault", "query", "bad"),
    [
        ({"link_down": {"chips": [3]}}, "link", "link status: DOWN\n"),
        ({"link_down": {"chips": [3]}}, "net_health", "net health status: Fault\n"),
        (
            {"net_health": {"chips": [3], "value": "Receive timeout"}},
            "net_health",
            "net health status: Receive timeout\n",
        ),
        ({"netdetect_unset": {"chips": [3]}}, "netdetect", "netdetect addr: 0.0.0.0\n"),
        ({"netdetect_unset": {"chips": [3]}}, "net_health", "net health status: Init\n"),
        ({"vnic_missing": {"chips": [3]}}, "vnic", "vnic link status: DOWN\n"),
        ({"tls_missing": {"chips": [3]}}, "tls", "No certificate found, please set certs firstly!\n"),
        ({"ip_unset": {"chips": [3]}}, "ip", "Get ipconf failed, because no ip was preset there!\n"),
        (
            {"gateway_unset": {"chips": [3]}},
            "gateway",
            "Get gateway failed, because no gateway was preset there!\n",
        ),
        ({"roce_unused": {"chips": [3]}}, "ip", "Get ipconf failed, because no ip was preset there!\n"),
        ({"roce_unused": {"chips": [3]}}, "net_health", "net health status: Init\n"),
        ({"roce_unused": {"chips": [3]}}, "lldp", "\n"),
        ({"tool_empty": {"tool": "hccn_tool", "chips": [3]}}, "link", ""),
        ({"tool_error": {"chips": [3], "query": "link", "message": "Error: busy"}}, "link", "Error: busy\n"),
        ({"tool_format": {"value": "crlf"}}, "link", "link status: UP\r\n"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_faults_come_and_go(server, fault, query, bad) -> None:
    good = server.run("hccn_tool", "-i", "3", f"-{query}", "-g")
    server.fault(**fault)
    chip3 = subprocess.run(
        [TOOLS / "hccn_tool", "-i", "3", f"-{query}", "-g"], env=server.env, capture_output=True, check=False
    )
    assert chip3.stdout.decode() == bad
    if "chips" in next(iter(fault.values())):
        assert "DOWN" not in server.hccn(4, query)
    server.fault()
    assert server.hccn(3, query) == good.stdout


def test_every_fault_is_listed_and_accepted(server) -> None:
    listed = json.loads(subprocess.check_output(["python3", TOOLS / "render.py", "--faults"], text=True))
    assert len(listed) > 25
    for name in listed:
        server.fault(**{name: {"seconds": 0} if name == "tool_slow" else {}})
        if name != "tool_hang":
            assert server.run("npu-smi", "-v").returncode == 0, name


def test_hanging_tool_ignores_sigterm(server) -> None:
    server.fault(tool_hang={"query": "link"})
    begin = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        server.run("hccn_tool", "-i", "0", "-link", "-g", timeout=0.5)
    assert time.monotonic() - begin < 60
    assert server.hccn(0, "tls") != ""


def test_ping_reaches_the_server_that_holds_the_address(server) -> None:
    # 127.0.0.2 answers, or refuses, which shows as much; 256.0.0.1 is no address, so nothing answers there.
    server.describe(peers={"192.168.5.1": "127.0.0.2", "192.168.6.1": "256.0.0.1"})
    assert "This pkt ping success" in server.hccn(0, "hccs_ping", "address", "192.168.5.1")
    assert "3 packets transmitted, 3 received, 0.00% packet loss" in server.hccn(
        0, "ping", "address", "192.168.5.1"
    )
    for nobody in ("192.168.6.1", "192.168.7.1"):
        text = server.hccn(0, "hccs_ping", "address", nobody)
        assert text.startswith(f"device 0 PING {nobody}\n\nThis pkt send fail!\nrecv seq 0, time = 0.000us")
        assert "This pkt ping not start to send!" in text
        assert "3 packets transmitted, 0 received, 100.00% packets loss\nmax time 0.000us\n" in text
        # It was executed, whatever came of it.
        assert text.endswith("TP95 time 0.000us\nCmd executed successfully!\n")
    lost = server.run("hccn_tool", "-i", "0", "-ping", "-g", "address", "192.168.6.1")
    assert lost.stdout.splitlines()[-3:] == [
        "recv time out seq=2",
        "3 packets transmitted, 0 received, 100.00% packet loss",
        "Command execute failed!",
    ]
    assert lost.returncode == 1


def test_ping_faults(server) -> None:
    server.describe(peers={"192.168.5.1": "127.0.0.2", "192.168.5.2": "127.0.0.2"})
    server.fault(hccs_ping_fail={"chips": [0], "to": ["192.168.5.1"]}, hccs_ping_form={"value": "packets"})
    assert "3 transmitted" not in server.hccn(0, "hccs_ping", "address", "192.168.5.1")
    assert "3 packets transmitted, 0 received, 100.00%" in server.hccn(
        0, "hccs_ping", "address", "192.168.5.1"
    )
    assert "3 packets transmitted, 3 received" in server.hccn(0, "hccs_ping", "address", "192.168.5.2")
    assert "3 packets transmitted, 3 received" in server.hccn(1, "hccs_ping", "address", "192.168.5.1")
    server.fault(super_pod={"id": 7}, hccs_ping_form={"value": "success"})
    assert "ping failed" in server.hccn(0, "hccs_ping", "address", "192.168.5.1")
    server.fault(ping_busy={})
    busy = server.run("hccn_tool", "-i", "0", "-hccs_ping", "-g", "address", "192.168.5.1")
    assert (busy.stdout, busy.returncode) == ("The device is occupied. Please try again later.\n", 31)


@pytest.mark.parametrize(
    ("fault", "query", "status"),
    [("ip_unset", "ip", 13), ("gateway_unset", "gateway", 2), ("tls_missing", "tls", 14)],
)
def test_what_is_not_configured_has_an_exit_status(server, fault, query, status) -> None:
    server.fault(**{fault: {"chips": [3]}})
    assert server.run("hccn_tool", "-i", "3", f"-{query}", "-g").returncode == status
    assert server.run("hccn_tool", "-i", "4", f"-{query}", "-g").returncode == 0


@pytest.mark.parametrize("status", [1, 2])
def test_a_certificate_expires(server, status) -> None:
    server.fault(tls_on={}, tls_expired={"status": status})
    tls = parsers.parse_tls(server.hccn(3, "tls"))
    assert (tls.switch, tls.expiration) == (1, status)
    assert [kind for kind, _end in tls.certificates] == ["pub cert"]


def test_one_ping_at_a_time_per_chip(server) -> None:
    server.describe(peers={"192.168.5.1": "127.0.0.2"})
    ping = ("hccs_ping", "address", "192.168.5.1")
    assert "success" in server.hccn(0, *ping)
    with (server.cache / "ping.0.lock").open() as of_the_ping_before:
        fcntl.flock(of_the_ping_before, fcntl.LOCK_EX)
        assert "success" in server.hccn(1, *ping), "another chip does not wait"
        with pytest.raises(subprocess.TimeoutExpired):
            server.run("hccn_tool", "-i", "0", "-hccs_ping", "-g", *ping[1:], timeout=0.5)
    assert "success" in server.hccn(0, *ping)


def test_a_query_costs_next_to_no_cpu(server) -> None:
    server.hccn(0, "link")

    def of_all_chips() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for chip in range(16):
            server.hccn(chip, "link")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # About 3 ms each where it was written; a Python that only starts takes ten times as long. The least of
    # three: what else the machine does makes a program dearer, never cheaper.
    assert min(of_all_chips() for _round in range(3)) / 16 < 0.02
