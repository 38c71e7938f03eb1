# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Parsers of what Linux says of a server: recorded forms, and junk."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import parsers as p

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B4DD50A:1F44 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0
   1: 0100007F:8D04 0B4DD50A:0016 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30
   2: garbage
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx tr retr uid inode
   0: 00000000000000000000000000000000:1F45 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1 0
   1: 0000000000000000FFFF00000B4DD50A:1F46 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 98 1 0
"""
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t01C8A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t004DD50A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth2\t004DD50A\t00000000\t0001\t0\t0\t50\t00FFFFFF\t0\t0\t0
eth3\t0B4DD50A\t00000000\t0000\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""
ONE, TWO = "a" * 64, "0123456789abcdef" * 4


def test_sockets() -> None:
    listening, connected = p.parse_sockets(TCP)
    assert (listening.address, listening.port, listening.listens, listening.inode) == (
        "10.213.77.11",
        8004,
        True,
        4711,
    )
    assert (connected.address, connected.port, connected.listens) == ("127.0.0.1", 36100, False)
    assert [(sock.address, sock.port) for sock in p.parse_sockets(TCP6)] == [
        ("::", 8005),
        ("10.213.77.11", 8006),
    ]
    assert p.parse_sockets("") == p.parse_sockets("no table\nat all") == []


@pytest.mark.parametrize(
    ("address", "nic"),
    [("10.213.77.11", "eth2"), ("8.8.8.8", "eth1"), ("nonsense", None)],
    ids=["lowest metric, not a route that is down", "default", "no address"],
)
def test_route(address: str, nic: str | None) -> None:
    assert p.route_to(p.parse_routes(ROUTES), address) == nic


def test_no_route() -> None:
    assert p.route_to([], "10.0.0.1") is None


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", []),
        ("\n", []),
        ("8004", [(8004, 8004)]),
        ("7001,36100-36115\n", [(7001, 7001), (36100, 36115)]),
        ("8004 8005-8006", [(8004, 8004), (8005, 8006)]),
        ("x,1-y", []),
    ],
)
def test_ranges(text: str, ranges: list[tuple[int, int]]) -> None:
    assert p.parse_ranges(text) == ranges


@pytest.mark.parametrize(
    ("wanted", "have", "left"),
    [
        ([(1, 10)], [], [(1, 10)]),
        ([(1, 10)], [(1, 10)], []),
        ([(1, 10)], [(4, 5)], [(1, 3), (6, 10)]),
        ([(1, 10), (20, 20)], [(0, 4), (10, 30)], [(5, 9)]),
        ([(5, 5), (6, 7)], [(1, 4)], [(5, 7)]),
    ],
)
def test_uncovered(wanted: list, have: list, left: list) -> None:
    assert p.uncovered(wanted, have) == left


def test_range_text() -> None:
    merged = p.merged_ranges([(8005, 8005), (8004, 8004), (7001, 7001), (36100, 36115)])
    assert p.range_text(merged) == "7001,8004-8005,36100-36115"
    assert p.within(merged, (8005, 36101)) == [(8005, 8005), (36100, 36101)]
    assert p.parse_port_range("32768\t60999\n") == (32768, 60999)
    assert p.parse_port_range("") is None


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0::/system.slice/ssh.service\n", []),
        (f"0::/system.slice/docker-{ONE}.scope\n", [ONE]),
        (f"12:cpu:/docker/{ONE}\n11:pids:/docker/{ONE}\n", [ONE]),
        (f"0::/docker/{ONE}/pd-sim/{TWO}\n", [TWO]),
        ("0::/kubepods/pod1/abc\n", []),
    ],
    ids=["no container", "systemd", "cgroup 1", "a container in a server that is one", "short id"],
)
def test_cgroup(text: str, ids: list[str]) -> None:
    assert p.parse_cgroup(text) == ids


def test_small_ones() -> None:
    assert p.parse_meminfo("MemTotal:  16 kB\nMemAvailable: 8 kB\nHugePages_Total: 0\n") == {
        "MemTotal": 16384,
        "MemAvailable": 8192,
    }
    assert p.parse_choice("always [madvise] never") == "madvise"
    assert p.parse_choice("") is None
    board = "\tSoftware Version  : 25.5.0\r\n\tFirmware Version               : 7.8.0.2.212\r\n"
    assert p.parse_firmware(board) == "7.8.0.2.212"
    assert p.parse_firmware("This device does not support it.") is None
    assert p.architecture("aarch64") == "arm64"
    assert p.architecture("riscv64") is None


IPTABLES = """\
-P INPUT DROP
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-A INPUT -p tcp -m tcp --dport 8004 -j DROP
-A INPUT -p tcp -m multiport --dports 7001,36100:36115 -j REJECT --reject-with icmp-port-unreachable
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
"""
NFT = """\
table inet filter {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\ttcp dport { 22, 443 } accept
\t\ttcp dport 8004 reject
\t}
\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}
"""


def test_firewalls() -> None:
    rules = p.parse_iptables(IPTABLES)
    assert [rule.split(" --reject")[0] for rule in rules] == [
        "-P INPUT DROP",
        "-A INPUT -p tcp -m tcp --dport 8004 -j DROP",
        "-A INPUT -p tcp -m multiport --dports 7001,36100:36115 -j REJECT",
    ]
    assert p.parse_nft(NFT) == ["chain input: policy drop", "chain input: tcp dport 8004 reject"]
    assert p.parse_iptables("") == p.parse_nft("") == []
    assert [p.closes(rule, 36101) for rule in rules] == [True, False, True]
    assert p.closes(p.parse_nft(NFT)[1], 8004)


@pytest.mark.parametrize(
    ("rule", "concerned"),
    [
        ("-A INPUT -p tcp -j DROP", True),
        ("-A INPUT -s 10.0.0.11/32 -j DROP", True),
        ("-A OUTPUT -d 10.0.0.0/24 -j DROP", True),
        ("-A INPUT -s 10.0.0.12/32 -d 10.0.0.11/32 -j DROP", False),
        ("-A INPUT -s 10.0.0.12/32 -j DROP", False),
        ("-A INPUT ! -s 10.0.0.12/32 -j DROP", True),
        ("ip saddr { 10.0.0.12, 10.0.0.13 } tcp dport 8004 drop", True),
        ("ip saddr 10.0.0.12 tcp dport 8004 drop", False),
        ("ip saddr != 10.0.0.12 drop", True),
        ("-A INPUT -s somewhere.example -j DROP", True),
    ],
)
def test_rules_of_other_servers_are_not_blamed(rule: str, concerned: bool) -> None:
    assert p.concerns(rule, ["10.0.0.11", "10.0.0.13"]) is concerned


@pytest.mark.parametrize(
    ("image", "hardware"),
    [
        ("ascend/vllm-ascend:v0.13.0-a3", "a3"),
        ("reg.example:5000/ascend/vllm-ascend:v0.13.0-a3-openeuler", "a3"),
        ("ascend/vllm-ascend:v0.13.0", "a2"),
        ("ascend/vllm-ascend:v0.13.0-310p", "other"),
        ("ascend/vllm-ascend@sha256:" + ONE, None),
        ("mine/engine:2026-01", None),
        ("reg.example:5000/ascend/vllm-ascend", None),
        ("", None),
    ],
)
def test_image_hardware(image: str, hardware: str | None) -> None:
    assert p.image_hardware(image) == hardware


@pytest.mark.parametrize(
    ("names", "per_npu", "hardware"),
    [
        (["Ascend910"], 2, "a3"),
        (["910_9391"], 2, "a3"),
        (["910B3", "910B3"], 1, "a2"),
        (["310P3"], 1, None),
        (["Ascend910"], 1, None),
        ([], 0, None),
    ],
)
def test_hardware(names: list[str], per_npu: int, hardware: str | None) -> None:
    assert p.hardware(names, per_npu) == hardware
