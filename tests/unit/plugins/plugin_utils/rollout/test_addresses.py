# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Addresses and NICs set by hand: an error where nobody can reach them, a warning where they may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.findings import Finding
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.rules.network import hccl_takes
from planner_inventories import findings, many, small

CODES = {"PD125", "PD126", "PD127"}
# p1 and p2 are one prefiller, d1 a decoder.
P1, P2, D1, OTHER = "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.77"


def found(env: Mapping[str, Any], **variables: Any) -> list[Finding]:
    raw = small({"pd_engine_env": dict(env), **variables})
    return [f for f in findings(raw) if f.code in CODES]


def by_host(env: Mapping[str, Any], **variables: Any) -> dict[str, set[str]]:
    """Codes by host."""
    result: dict[str, set[str]] = {}
    for f in found(env, **variables):
        result.setdefault(f.host or "", set()).add(f.code)
    return result


def everywhere(code: str) -> dict[str, set[str]]:
    return {host: {code} for host in ("p1", "p2", "d1")}


PREFILLER = {"p1": {"PD126"}, "p2": {"PD126"}}


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("$local_ip", {}),
        ("${local_ip}", {}),
        ("$ANOTHER", {}),
        # The decoder listens to nobody.
        ("localhost", {**PREFILLER, "d1": {"PD125"}}),
        ("127.0.0.1", {**PREFILLER, "d1": {"PD125"}}),
        ("127.9.9.9", {**PREFILLER, "d1": {"PD125"}}),
        # Mooncake's transport refuses it on both sides.
        ("::1", everywhere("PD126")),
        ("0.0.0.0", {**PREFILLER, "d1": {"PD125"}}),
        (P1, {"p2": {"PD126"}, "d1": {"PD125"}}),
        (D1, PREFILLER),
        # One of p1 and p2 at most has it.
        (OTHER, {**PREFILLER, "d1": {"PD125"}}),
        ("server.example", everywhere("PD125")),
        ("2001:db8::7", everywhere("PD126")),
        (None, everywhere("PD125")),
        ("", everywhere("PD125")),
    ],
)
def test_what_the_engine_advertises(value: str | None, hosts: dict[str, set[str]]) -> None:
    assert by_host({"VLLM_HOST_IP": value}) == hosts


def test_a_server_may_advertise_another_of_its_addresses() -> None:
    own = {host: {"pd_engine_env": {"VLLM_HOST_IP": f"203.0.113.{i}"}} for i, host in enumerate(("p1", "p2"))}
    assert {f.code for f in findings(small(hosts=own)) if f.code in CODES} == {"PD125"}


@pytest.mark.parametrize(
    ("release", "code"), [("v0.13.0", "PD126"), ("v0.18.0", "PD125"), ("v0.23.0", "PD125")]
)
def test_an_ipv6_address_is_refused_where_the_release_refuses_it(release: str, code: str) -> None:
    raw = small({"pd_release": release}, hosts={"d1": {"pd_engine_env": {"VLLM_HOST_IP": "2001:db8::7"}}})
    assert {f.code for f in findings(raw) if f.code in CODES} == {code}


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("$local_ip", {}),
        ("", {}),
        (None, {}),
        ("localhost", {**PREFILLER, "d1": {"PD125"}}),
        ("127.0.0.1", {**PREFILLER, "d1": {"PD125"}}),
        ("0.0.0.0", {**PREFILLER, "d1": {"PD125"}}),
        ("server.example", {**PREFILLER, "d1": {"PD125"}}),
        # HCCL looks for an interface of the server that has it.
        (P1, {"p2": {"PD126"}, "d1": {"PD126"}}),
        (OTHER, everywhere("PD125")),
        (f"{OTHER}%eth0", everywhere("PD125")),
    ],
)
def test_where_hccl_meets(value: str | None, hosts: dict[str, set[str]]) -> None:
    assert by_host({"HCCL_IF_IP": value}) == hosts


@pytest.mark.parametrize(
    ("env", "hosts"),
    [
        ({"MASTER_ADDR": "$master_addr"}, {}),
        ({"MASTER_ADDR": P1}, {}),
        # It is the decoder's own business: it has one node.
        ({"MASTER_ADDR": "127.0.0.1"}, {"p1": {"PD125"}, "p2": {"PD125"}}),
        ({"VLLM_DP_MASTER_IP": P2}, {"p1": {"PD125"}, "p2": {"PD125"}}),
        ({"VLLM_LOOPBACK_IP": "127.0.0.1"}, {}),
        ({"VLLM_LOOPBACK_IP": P1}, {"d1": {"PD126"}}),
        ({"VLLM_LOOPBACK_IP": OTHER}, {}),
    ],
)
def test_other_addresses(env: dict[str, str], hosts: dict[str, set[str]]) -> None:
    assert by_host(env) == hosts


@pytest.mark.parametrize(
    ("env", "code", "hosts"),
    [
        ({"GLOO_SOCKET_IFNAME": "bond0"}, None, ""),
        ({"GLOO_SOCKET_IFNAME": "$nic_name"}, None, ""),
        ({"GLOO_SOCKET_IFNAME": "bond0,eth0"}, None, ""),
        ({"GLOO_SOCKET_IFNAME": None}, None, ""),
        ({"GLOO_SOCKET_IFNAME": "eth0"}, "PD127", "p1 p2 d1"),
        ({"GLOO_SOCKET_IFNAME": "bond"}, "PD127", "p1 p2 d1"),
        ({"GLOO_SOCKET_IFNAME": "lo"}, "PD126", "p1 p2"),
        ({"GLOO_SOCKET_IFNAME": "=bond0"}, "PD126", "p1 p2 d1"),
        ({"GLOO_SOCKET_IFNAME": "^docker"}, "PD126", "p1 p2 d1"),
        # PyTorch cuts at commas only.
        ({"GLOO_SOCKET_IFNAME": "bond0, eth0"}, "PD126", "p1 p2 d1"),
        ({"GLOO_SOCKET_IFNAME": "bond*"}, "PD126", "p1 p2 d1"),
        ({"TP_SOCKET_IFNAME": "bond0 "}, "PD127", "p1 p2 d1"),
        ({"TP_SOCKET_IFNAME": "eth0"}, "PD127", "p1 p2 d1"),
        ({"TP_SOCKET_IFNAME": "lo"}, "PD127", "p1 p2"),
        ({"TP_SOCKET_IFNAME": "=bond0"}, "PD127", "p1 p2 d1"),
        ({"HCCL_SOCKET_IFNAME": "bond"}, None, ""),
        ({"HCCL_SOCKET_IFNAME": "=bond0"}, None, ""),
        ({"HCCL_SOCKET_IFNAME": "^docker,lo"}, None, ""),
        ({"HCCL_SOCKET_IFNAME": "=bond"}, "PD127", "p1 p2 d1"),
        ({"HCCL_SOCKET_IFNAME": "^bond"}, "PD127", "p1 p2 d1"),
        ({"HCCL_SOCKET_FAMILY": "AF_INET"}, None, ""),
        ({"HCCL_SOCKET_FAMILY": "AF_INET6"}, "PD127", "p1 p2 d1"),
        ({"HCCL_SOCKET_FAMILY": "inet"}, "PD126", "p1 p2 d1"),
        # HCCL_IF_IP goes before it.
        ({"HCCL_SOCKET_IFNAME": "lo"}, "PD127", "p1 p2"),
        ({"HCCL_SOCKET_IFNAME": "lo", "HCCL_IF_IP": None}, "PD126", "p1 p2"),
    ],
)
def test_nics_against_the_planned_one(env: dict[str, Any], code: str | None, hosts: str) -> None:
    wanted = {host: {code} for host in hosts.split()}
    assert by_host(env, pd_interface="bond0") == wanted


@pytest.mark.parametrize(
    ("env", "differ"),
    [
        ({"GLOO_SOCKET_IFNAME": "eth0", "HCCL_SOCKET_IFNAME": "eth1"}, True),
        ({"GLOO_SOCKET_IFNAME": "eth0", "HCCL_SOCKET_IFNAME": "eth"}, False),
        ({"GLOO_SOCKET_IFNAME": "eth0", "HCCL_SOCKET_IFNAME": "=eth0", "TP_SOCKET_IFNAME": "eth0"}, False),
        ({"GLOO_SOCKET_IFNAME": "eth0", "TP_SOCKET_IFNAME": "eth1"}, True),
        ({"GLOO_SOCKET_IFNAME": "eth0"}, False),
        ({"nic_name": "eth0"}, False),
    ],
)
def test_nics_among_each_other(env: dict[str, str], differ: bool) -> None:
    assert by_host(env) == (everywhere("PD127") if differ else {})


def test_the_planned_nic_is_not_doubted_here() -> None:
    """A server may have its service address at lo, routed there."""
    assert by_host({}, pd_interface="lo") == {}


def test_a_nic_set_as_the_script_names_it_is_compared_as_well() -> None:
    assert by_host({"nic_name": "eth0"}, pd_interface="bond0") == everywhere("PD127")


@pytest.mark.parametrize(
    ("args", "hosts"),
    [
        ({"host": "0.0.0.0"}, {}),
        ({"host": "::"}, {}),
        ({"host": None}, {}),
        ({"host": "server.example"}, {}),
        # p2 is headless and serves nothing.
        ({"host": "127.0.0.1"}, {"p1": {"PD126"}, "d1": {"PD126"}}),
        ({"host": "localhost"}, {"p1": {"PD126"}, "d1": {"PD126"}}),
        ({"host": P1}, {"d1": {"PD126"}}),
        ({"host": OTHER}, {"p1": {"PD125"}, "d1": {"PD125"}}),
        ({"uds": "/run/vllm.sock"}, {"p1": {"PD126"}, "d1": {"PD126"}}),
        # The proxy asks in plain HTTP.
        ({"ssl-certfile": "/c", "ssl_keyfile": "/k"}, {"p1": {"PD126"}, "d1": {"PD126"}}),
        ({"ssl-ca-certs": "/c"}, {}),
    ],
)
def test_where_the_api_listens(args: dict[str, Any], hosts: dict[str, set[str]]) -> None:
    assert by_host({}, pd_engine_args=args) == hosts


@pytest.mark.parametrize(
    ("value", "data", "broken"),
    [
        ("2", 1, True),
        ("1", 1, False),
        ("x", 1, True),
        ("$OF_THE_IMAGE", 1, False),
        ("2", 2, False),
        ("4", 2, False),
    ],
)
def test_data_parallel_ranks_of_the_environment(value: str, data: int, broken: bool) -> None:
    own = {"pd_parallel": {"tensor": 8, "data": data}, "pd_chips": "0-7" if data == 1 else "0-15"}
    raw = many(
        {"prefiller": [("p", ["a"], own)], "decoder": [("d", ["b"], own)]},
        everywhere={"pd_engine_env": {"VLLM_DP_SIZE": value}, "pd_profile": "generic"},
    )
    assert ("PD128" in {f.code for f in findings(raw)}) is broken


def test_one_chip_alone_and_one_server_alone_may_do_as_they_like() -> None:
    """Nobody meets there, and nobody asks."""
    raw = many(
        {"decoder": [("d", ["a"], {"pd_parallel": {"tensor": 1}, "pd_chips": "0", "pd_profile": "generic"})]},
        everywhere={
            "pd_mode": "colocated",
            "pd_engine_env": {
                "VLLM_HOST_IP": "127.0.0.1",
                "HCCL_IF_IP": "localhost",
                "GLOO_SOCKET_IFNAME": "lo",
                "MASTER_ADDR": "localhost",
            },
        },
        proxy=False,
    )
    assert {f.severity for f in findings(raw) if f.code in CODES} == {"warning"}


def test_a_finding_names_the_variable_and_what_it_is() -> None:
    (first, *_) = [f for f in found({"HCCL_IF_IP": "localhost"}) if f.code == "PD126"]
    assert first.seen == "HCCL_IF_IP=localhost"
    assert first.expected in (f"HCCL_IF_IP={P1}", f"HCCL_IF_IP={P2}")
    assert "HCCL" in first.message


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("eth,enp", {"eth0", "enp1"}),
        ("=eth0,enp1", {"eth0", "enp1"}),
        ("=eth,enp1", {"enp1"}),
        ("^eth,enp", {"docker0"}),
        ("^=eth0,enp", {"enp1", "docker0"}),
        ("", set()),
    ],
)
def test_interfaces_as_hccl_chooses_them(selector: str, taken: set[str]) -> None:
    assert {name for name in ("eth0", "enp1", "docker0") if hccl_takes(selector, name)} == taken


@pytest.mark.parametrize(
    ("env", "broken"),
    [
        ({"http_proxy": "http://proxy.example:3128"}, True),
        ({"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost,198.51.100.0/24"}, True),
        ({"ALL_PROXY": "http://proxy.example:3128"}, True),
        ({"http_proxy": "http://proxy.example:3128", "no_proxy": f"localhost, {P1}"}, False),
        ({"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "*"}, False),
        ({"HTTP_PROXY": "http://proxy.example:3128", "http_proxy": ""}, False),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, False),
        ({"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "$NO_PROXY_OF_THE_IMAGE"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("connector", ["MooncakeLayerwiseConnector", "MooncakeConnectorV1"])
def test_a_decoder_asks_the_proxy_itself(connector: str, env: dict[str, str], broken: bool) -> None:
    """Only those that push ask it at all."""
    raw = small({"pd_kv_connector": connector, "pd_engine_env": env})
    hosts = [f.host for f in findings(raw) if f.code == "PD129"]
    assert hosts == (["d1"] if broken and connector == "MooncakeLayerwiseConnector" else [])
