# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What only shows between servers, the mesh and its verdict, and the report."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import Finding
from ansible_collections.ascend.pd_rollout.plugins.module_utils._hccn.catalogue import HCCN_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import hccn_cluster as b
from hypothesis import given
from hypothesis import strategies as st


def result(index: int, chips: int = 16, **changes) -> dict:
    """The result of hccn_check of a good server, with some values changed on all chips or, by id, on one."""
    made = {"fabric": "hccs", "driver": "25.5.0", "findings": [], "chips": []}
    made.update({key: changes.pop(key) for key in ("fabric", "driver", "findings") if key in changes})
    for chip in range(chips):
        values = {
            "chip": chip,
            "link": "UP",
            "ip": f"11.12.{index}.{chip}",
            "vnic": f"192.168.{index}.{chip}",
            "vnic_status": "UP",
            "tls": 0,
            "sdid": index * 1000 + chip,
            "super_pod": 0,
            "server_index": index,
            "npu_health": "OK",
        }
        for key, value in changes.items():
            values[key] = value.get(chip, values[key]) if isinstance(value, dict) else value
        made["chips"].append(values)
    return made


def servers(*results: dict) -> list[b.Server]:
    return [b.Server.of(f"s{number}", one) for number, one in enumerate(results)]


def codes(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.code, one.severity, one.host) for one in findings]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([result(0), result(1), result(2)], []),
        ([result(0)], []),
        ([], []),
        ([result(0), result(1), result(2, tls=1)], [("hccn-tls-differs", "error", "s2")]),
        ([result(0, tls=1), result(1), result(2, tls=1)], [("hccn-tls-differs", "error", "s1")]),
        ([result(0, tls=1), result(1, tls=1)], []),
        # Between super pods HCCL takes RoCE, if it is there.
        ([result(0), result(1, super_pod=1), result(2)], [("hccn-super-pod-differs", "warning", "s1")]),
        (
            [result(0), result(1, super_pod=1, ip={3: "11.12.0.9"})],
            [("hccn-ip-duplicate", "error", "s0, s1"), ("hccn-super-pod-differs", "warning", "s1")],
        ),
        (
            [result(0, ip={3: None}), result(1, super_pod=1)],
            [("hccn-super-pod-differs", "error", "s1")],
        ),
        (
            [result(0), result(1, super_pod=1, link={3: "DOWN"})],
            [("hccn-super-pod-differs", "error", "s1")],
        ),
        (
            [result(0, ip=None, link="DOWN"), result(1, ip=None, link="DOWN", super_pod=1)],
            [("hccn-super-pod-differs", "error", "s1")],
        ),
        (
            [result(0, fabric="roce"), result(1, fabric="roce", super_pod=1)],
            [("hccn-super-pod-differs", "hint", "s1")],
        ),
        ([result(0), result(1, driver="25.2.0")], [("npu-driver-differs", "warning", "s1")]),
        ([result(0), result(1, fabric="roce")], [("hccn-fabric-differs", "error", "s1")]),
        ([result(0), result(1, server_index=0)], [("hccn-server-index-duplicate", "error", "s0, s1")]),
        # One index at two servers explains that all their SDIDs and vNIC addresses are equal.
        (
            [result(0), {**result(0), "chips": [{**c, "ip": None} for c in result(0)["chips"]]}],
            [("hccn-server-index-duplicate", "error", "s0, s1")],
        ),
        ([result(0), result(1, sdid={3: 5})], [("hccn-sdid-duplicate", "error", "s0, s1")]),
        ([result(0), result(1, super_pod=7, sdid={3: 5})], [("hccn-super-pod-differs", "warning", "s1")]),
        ([result(0), result(1, vnic={3: "192.168.0.9"})], [("hccn-vnic-duplicate", "error", "s0, s1")]),
        ([result(0), result(1, ip={3: "11.12.0.9"})], [("hccn-ip-duplicate", "hint", "s0, s1")]),
        (
            [result(0), result(1, tls={3: 1}, findings=[{"code": "hccn-tls-mixed"}])],
            [],
        ),
        # What nobody knows is not different.
        ([result(0), result(1, tls=None, super_pod=None, driver=None)], []),
    ],
)
def test_compare(results, expected) -> None:
    assert codes(b.compare(servers(*results))) == expected


def test_tls_finding_names_both_sides() -> None:
    (found,) = b.compare(servers(result(0), result(1), result(2, tls=1)))
    assert found.message == "s2: TLS switch differs from s0, s1"
    assert found.seen == "TLS switch 0 on s0, s1; TLS switch 1 on s2"
    assert found.chips == tuple(range(16))


def test_super_pods_that_roce_connects_are_to_be_pinged_over_it() -> None:
    (found,) = b.compare(servers(result(0), result(1, super_pod=1)))
    assert found.message == "s1: Super Pod ID differs from s0; traffic between them uses RoCE"
    assert "hccn_check_fabric=roce" in found.cure
    (found,) = b.compare(servers(result(0, link="DOWN"), result(1, super_pod=1)))
    assert found.message == "s1: Super Pod ID differs from s0"
    assert "give every chip a RoCE address" in found.cure


def test_not_checked() -> None:
    (found,) = b.not_checked(["s1"], {"s1": "module failed"})
    assert (found.code, found.host, found.seen) == ("hccn-not-checked", "s1", "module failed")
    assert found.cure == "ansible s1 -m ansible.builtin.ping --become"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Task failed: Missing sudo password", "sudo is refused: nothing could be checked"),
        ("sudo: a password is required", "sudo is refused: nothing could be checked"),
        ("deploy is not in the sudoers file", "sudo is refused: nothing could be checked"),
        (
            "Failed to connect to the host via ssh: Connection refused",
            "the server cannot be reached: nothing could be checked",
        ),
        ("root@s1: Permission denied (publickey).", "the server cannot be reached: nothing could be checked"),
        ("", "the server cannot be reached: nothing could be checked"),
        ("Module failed: No space left on device", "the server could not be checked"),
    ],
)
def test_how_a_server_refuses_is_told(reason: str, message: str) -> None:
    (found,) = b.not_checked(["s1"], {"s1": reason})
    assert found.message == message


# ---- The mesh


@given(
    count=st.integers(1, 9),
    chips=st.integers(1, 16),
    kind=st.sampled_from(["ring", "pairs", "full"]),
)
def test_mesh(count, chips, kind) -> None:
    mesh = b.mesh(servers(*(result(n, chips) for n in range(count))), kind)
    edges = Counter(
        ((name, t.chip), (t.peer, t.peer_chip)) for name, targets in mesh.items() for t in targets
    )
    assert all(number == 1 for number in edges.values()), "no ping twice"
    assert all(source[0] != target[0] for source, target in edges), "never to the own server"
    assert all((target, source) in edges for source, target in edges), "both directions"
    per_chip = {"ring": min(2, count - 1), "pairs": count - 1, "full": (count - 1) * chips}[kind]
    for name, targets in mesh.items():
        made = Counter(target.chip for target in targets)
        assert all(made[chip] == per_chip for chip in range(chips)), name


@pytest.mark.parametrize("kind", ["ring", "pairs", "full"])
def test_no_address_is_pinged_by_many_at_once(kind) -> None:
    mesh = b.mesh(servers(*(result(n) for n in range(4))), kind)
    per_chip: dict[tuple[str, int], list[str]] = {}
    for name, targets in mesh.items():
        for target in targets:
            per_chip.setdefault((name, target.chip), []).append(target.address)
    for step in zip(*per_chip.values(), strict=True):
        assert len(set(step)) == len(step)


def test_mesh_leaves_out_what_has_a_finding_already() -> None:
    mesh = b.mesh(
        servers(result(0), result(1, vnic_status={3: "DOWN"}), result(2, super_pod=1)),
        "pairs",
    )
    assert {t.peer for t in mesh["s0"]} == {"s1"}
    assert mesh["s2"] == []
    assert 3 not in {t.peer_chip for t in mesh["s0"]} | {t.chip for t in mesh["s1"]}


def test_mesh_over_roce_uses_the_addresses_of_the_ports() -> None:
    two = servers(result(0, fabric="roce", super_pod=None), result(1, fabric="roce", super_pod=None))
    assert {t.address for t in b.mesh(two, "pairs")["s0"]} == {f"11.12.1.{chip}" for chip in range(16)}
    assert b.ping_kind("roce") == "ping"


def test_mesh_of_instances_of_different_size() -> None:
    mesh = b.mesh(servers(result(0, 16), result(1, 8)), "pairs")
    assert [t.peer_chip for t in mesh["s0"]] == [*range(8), *range(8)]
    assert [t.peer_chip for t in mesh["s1"]] == [*range(8)]


def test_no_mesh() -> None:
    assert b.mesh(servers(result(0), result(1)), "none") == {"s0": [], "s1": []}


def failed(*pairs: tuple[int, str]) -> dict:
    return {"count": 16, "failed_pings": [{"chip": c, "address": a, "seen": "lost"} for c, a in pairs]}


def test_a_pair_that_fails_in_one_direction() -> None:
    two = servers(result(0), result(1))
    found = b.judge_mesh(
        b.mesh(two, "pairs"), {"s0": failed((3, "192.168.1.3")), "s1": failed()}, None, "hccs"
    )
    assert codes(found) == [("hccn-ping-failed", "error", "s0")]
    assert found[0].message == "s0 chip 3 → s1: 1 of 16 pings fail; the other direction works"
    assert found[0].cure == "hccn_tool -i 3 -hccs_ping -g address 192.168.1.3  # on s0"


def test_a_server_that_nobody_reaches_is_one_finding_a_pair() -> None:
    three = servers(result(0), result(1), result(2))
    lost = [(chip, f"192.168.2.{chip}") for chip in range(16)]
    results = {"s0": failed(*lost), "s1": failed(*lost)}
    found = b.judge_mesh(
        b.mesh(three, "pairs"), results, {"s0": ["s1"], "s1": ["s0", "s2"], "s2": []}, "hccs"
    )
    assert [(one.code, one.host) for one in found] == [
        ("hccn-ping-failed", "s1"),
        ("hccn-ping-optional", "s0"),
    ]
    assert found[0].message == "s1 16 chips (0-15) → s2: 16 of 16 pings fail"


def test_peers_hold_in_both_directions() -> None:
    two = servers(result(0), result(1))
    results = {"s0": failed((3, "192.168.1.3"))}
    found = b.judge_mesh(b.mesh(two, "pairs"), results, {"s1": ["s0"]}, "hccs")
    assert found[0].code == "hccn-ping-failed"


def test_pings_that_were_not_made_are_a_warning() -> None:
    two = servers(result(0), result(1))
    one = failed((3, "192.168.1.3"), (4, "192.168.1.4"), (5, "192.168.1.5"))
    for ping in one["failed_pings"][:2]:
        ping.update(seen="The device is occupied.", unknown=True)
    found = b.judge_mesh(b.mesh(two, "pairs"), {"s0": one, "s1": failed()}, None, "hccs")
    assert codes(found) == [
        ("hccn-ping-failed", "error", "s0"),
        ("hccn-ping-unknown", "warning", "s0"),
    ]
    assert (found[1].chips, found[1].seen) == ((3, 4), "The device is occupied.")


def test_where_both_networks_carry_traffic_roce_is_pinged() -> None:
    two = servers(result(0, fabric="both"), result(1, fabric="both", super_pod=1))
    assert {t.address for t in b.mesh(two, "pairs")["s0"]} == {f"11.12.1.{chip}" for chip in range(16)}
    assert b.ping_kind("both") == "ping"
    assert codes(b.compare(two)) == [("hccn-super-pod-differs", "hint", "s1")]


# ---- The report


def test_tls_on_gives_way_to_tls_differs() -> None:
    on = HCCN_CHECKS.finding("hccn-tls-on", "TLS is on", host="s2")
    differs = HCCN_CHECKS.finding("hccn-tls-differs", "TLS differs", host="s2")
    assert b.superseded([on, differs]) == [differs]
    assert b.superseded([on]) == [on]


def test_table() -> None:
    lines = b.table(servers(result(0), result(1, tls={3: 1}, vnic_status=None)))
    assert lines[1].split() == ["s0", "16", "UP", "UP", "0", "0", "0", "OK", "25.5.0"]
    assert "15×0 1×1" in lines[2]
    assert "?" in lines[2]


@pytest.mark.parametrize("count", [200])
def test_many_servers_take_no_time(count) -> None:
    many = servers(*(result(n) for n in range(count)))
    begin = time.process_time()
    assert b.compare(many) == []
    assert sum(len(targets) for targets in b.mesh(many, "ring").values()) == count * 16 * 2
    assert time.process_time() - begin < 5
