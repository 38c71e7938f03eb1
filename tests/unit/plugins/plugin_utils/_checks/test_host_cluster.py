# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the checks take from the plan, who tries which port, and what only shows between servers."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._host.requirements import (
    HostRequirements,
    PlannedFront,
    PlannedGuard,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import host_cluster as b


def row(host: str, first: int, last: int, purpose: str, instance: str | None, bound: bool = True) -> dict:
    return {
        "host": host,
        "first": first,
        "last": last,
        "purpose": purpose,
        "instance": instance,
        "bound": bound,
        "protocol": "tcp",
    }


def share(address: str, peers: list[str], ports: list[dict], proxy: dict | None = None) -> dict:
    engine = {
        "model_path": "/weights/model",
        "devices": ["/dev/davinci0", "/dev/davinci_manager"],
        "mounts": [
            {"source": source}
            for source in (
                "/usr/local/dcmi",
                "/etc/hccn.conf",
                "/weights/model",
                "/etc/pd_rollout/pd/prefiller.sh",
            )
        ],
        "shm_size": "1g",
        "env": {"VLLM_HOST_IP": address},
    }
    return {
        "address": address,
        "interface": None,
        "directory": "/etc/pd_rollout/pd",
        "chips": [0],
        "peers": peers,
        "ports": ports,
        "engines": [engine],
        "proxy": proxy,
        "routers": [proxy] if proxy else [],
        "front": None,
    }


PLAN = {
    "deployment": "pd",
    "image": "ascend/vllm-ascend:v0.13.0-a3",
    "instances": [
        {"name": "p", "role": "prefiller", "nodes": ["p1", "p2"]},
        {"name": "d", "role": "decoder", "nodes": ["d1"]},
    ],
    "hosts": {
        "p1": share(
            "10.0.0.11",
            ["p2", "d1"],
            [
                row("p1", 8004, 8004, "API", "p"),
                row("p1", 7001, 7001, "master", "p"),
                row("p1", 36100, 36101, "KV handshake", "p"),
                row("p1", 8005, 8005, "proxy", None),
                row("p1", 15000, 17000, "Mooncake RPC (random)", None, False),
            ],
            {"port": 8005},
        ),
        "p2": share("10.0.0.12", ["p1", "d1"], [row("p2", 36102, 36103, "KV handshake", "p")]),
        "d1": share("10.0.0.13", ["p1", "p2"], [row("d1", 8004, 8004, "API", "d")]),
    },
}


def result(listening: list[int], **facts) -> dict:
    return {"listening": listening, "facts": {"mtu": 1500, "firmware": ["7.8"], "firewall": [], **facts}}


RESULTS = {
    "p1": result([7001, 8004, 8005, 15000, 17000, 36100, 36101]),
    "p2": result([36102, 36103]),
    "d1": result([8004]),
}


def test_requirements() -> None:
    requirements = b.requirements(PLAN, PLAN["hosts"]["p1"], "p1", "25.5.0")
    # What hccn_check inspects, the weights, and what the collection itself writes are left out.
    assert requirements.paths == ("/usr/local/dcmi",)
    assert requirements.peers == {"p2": "10.0.0.12", "d1": "10.0.0.13"}
    assert requirements.shm == 2**30
    assert requirements.advertise == ("10.0.0.11",)
    assert "host" not in requirements.to_dict()["ports"][0]
    assert requirements.clients == ("d1", "p2")
    assert (requirements.driver, requirements.firmware) == ("25.5.0", None)
    assert b.requirements(PLAN, PLAN["hosts"]["p1"], "p1", "25.5.0", "7.8").firmware == "7.8"


@pytest.mark.parametrize(
    ("text", "size"), [("1g", 2**30), ("512m", 2**29), ("64KB", 65536), (100, 100), ("x", 0)]
)
def test_size(text: object, size: int) -> None:
    assert b.size(text) == size


@pytest.mark.parametrize("purpose", ["front", "front's metrics", "green router's metrics", "green router"])
def test_only_those_outside_of_the_plan_connect_to_a_front(purpose: str) -> None:
    assert b.clients(PLAN, row("p1", 8443, 8443, purpose, None)) == []


def test_the_server_knows_which_router_must_run() -> None:
    routers = [
        {"container": f"pd-router-{colour}", "colour": colour, "script_path": "/x", "health_url": "http://x"}
        for colour in ("blue", "green")
    ]
    shared = {"unit": "pd-address"}
    packages = ["haproxy", "keepalived"]
    front = {
        "unit": "pd-front",
        "directory": "/etc/pd_rollout/pd/front",
        "shared": shared,
        "packages": packages,
    }
    own = {**PLAN["hosts"]["p1"], "routers": routers, "front": front}
    found = b.requirements(PLAN, own, "p1", None)
    assert [one.colour for one in found.serving if one.colour] == ["blue", "green"]
    assert found.front == PlannedFront(
        "/etc/pd_rollout/pd/front", ("pd-front", "pd-address"), tuple(packages)
    )
    alone = b.requirements(PLAN, {**own, "front": {**front, "shared": None}}, "p1", None)
    assert alone.front is not None and alone.front.units == ("pd-front",)
    assert HostRequirements.from_dict(found.to_dict()) == found


def test_what_a_guard_needs_of_its_server() -> None:
    own = {**PLAN["hosts"]["p1"], "guard": {"unit": "pd-guard", "run": "/run/pd-guard", "config": {}}}
    assert b.requirements(PLAN, own, "p1", None).guard == PlannedGuard("pd-guard", "/run/pd-guard")
    for without in ({**own, "guard": None}, PLAN["hosts"]["p1"]):
        assert b.requirements(PLAN, without, "p1", None).guard is None


def test_on_a_server_that_was_left_one_is_told_to_stop_its_guard_first() -> None:
    entry = {"address": "10.0.0.9", "containers": ["pd-d"], "directory": "/etc/pd_rollout/pd"}
    (finding,) = b.outside({"outside": {"d9": entry}, "directory": "plans/x"})
    assert "systemctl disable --now pd-guard; docker rm -f pd-d;" in finding.cure


def test_decoders_that_listen_for_the_cache_call_the_proxy() -> None:
    proxy = row("p1", 8005, 8005, "proxy", None)
    assert b.clients(PLAN, proxy) == []
    decoder = share(
        "10.0.0.13",
        ["p1", "p2"],
        [row("d1", 8004, 8004, "API", "d"), row("d1", 36300, 36301, "KV handshake", "d")],
    )
    assert b.clients({**PLAN, "hosts": {**PLAN["hosts"], "d1": decoder}}, proxy) == ["d1"]


def test_only_who_will_use_a_port_tries_it() -> None:
    tried = {
        (client, target["server"], target["port"])
        for client, targets in b.targets(PLAN, RESULTS).items()
        for target in targets
    }
    assert tried == {
        ("p2", "p1", 7001),
        *((client, "p1", port) for client in ("p2", "d1") for port in (15000, 17000)),
        *(("d1", "p1", port) for port in (36100, 36101)),
        *(("d1", "p2", port) for port in (36102, 36103)),
        ("p1", "d1", 8004),
    }


def test_a_server_without_a_result_is_left_out() -> None:
    targets = b.targets(PLAN, {"p1": RESULTS["p1"], "d1": RESULTS["d1"]})
    assert "p2" not in targets
    assert {target["server"] for found in targets.values() for target in found} == {"p1", "d1"}


def failed(server: str, *ports: int, problem: str = "timeout", seen: str = "no answer within 3 s") -> dict:
    address = PLAN["hosts"][server]["address"]
    return {
        "count": 9,
        "unreachable_ports": [
            {"server": server, "address": address, "port": port, "problem": problem, "seen": seen}
            for port in ports
        ],
    }


def test_everything_is_reached() -> None:
    assert b.judge_reach(PLAN, RESULTS, {"d1": failed("p1")}) == []


def test_ports_that_are_not_reached_name_the_firewall() -> None:
    results = {
        **RESULTS,
        "p1": result(
            RESULTS["p1"]["listening"],
            firewall=[
                "iptables: -A INPUT -p tcp --dport 36100 -j DROP",
                "iptables: -A INPUT --dport 22 -j DROP",
            ],
        ),
    }
    (finding,) = b.judge_reach(PLAN, results, {"d1": failed("p1", 36100), "p2": failed("p1", 36100)})
    assert finding.code == "host-port-unreachable"
    assert finding.host == "p1"
    assert finding.message == "port 36100 of p1 cannot be reached from d1, p2"
    assert finding.seen == (
        "no answer within 3 s; firewall on p1: iptables: -A INPUT -p tcp --dport 36100 -j DROP"
    )


def test_no_port_of_a_server_is_reached() -> None:
    (finding,) = b.judge_reach(PLAN, RESULTS, {"d1": failed("p2", 36102, 36103)})
    assert finding.message == "no port of p2 can be reached from d1"


def test_another_server_answers() -> None:
    (finding,) = b.judge_reach(PLAN, RESULTS, {"d1": failed("p2", 36102, problem="other", seen="x9 answers")})
    assert finding.code == "host-port-other-server"
    assert "arping -D -I NIC 10.0.0.12" in finding.cure


def test_compare() -> None:
    assert b.compare(RESULTS) == []
    (mtu,) = b.compare({**RESULTS, "d1": result([], mtu=9000)})
    assert (mtu.code, mtu.host) == ("host-mtu-differs", "d1")
    assert mtu.cure == "ip link set NIC mtu 1500"
    (firmware,) = b.compare({**RESULTS, "p2": result([], firmware=["7.7"])})
    assert (firmware.code, firmware.host) == ("host-firmware-differs", "p2")
    (mixed,) = b.compare({"p1": result([], firmware=["7.7", "7.8"])})
    assert mixed.host == "p1"
    assert b.compare({**RESULTS, "p2": result([], firmware=[], mtu=None)}) == []


def test_clocks() -> None:
    clean = {"p1": {"clocks": {"d1": [0.4, 0.5]}}, "d1": {"clocks": {"p1": [-3.0, 2.5]}}}
    assert b.judge_clocks(clean, 2.0) == []
    off = {
        "p1": {"clocks": {"d1": [-60.0, 0.1], "p2": [0.0, 0.1]}},
        "p2": {"clocks": {"d1": [-60.0, 0.1], "p1": [0.0, 0.1]}},
        "d1": {"clocks": {"p1": [60.0, 0.1], "p2": [60.1, 0.1]}},
    }
    (finding,) = b.judge_clocks(off, 2.0)
    assert (finding.code, finding.host) == ("host-clock-differs", "d1")
    assert "the clock of d1 is 60.1 s behind p2's" in finding.message


def test_weights() -> None:
    good = {"findings": [], "fingerprint": "a" * 64}
    assert b.weights({"p1": good, "d1": good}, "/w") == []
    (finding,) = b.weights({"p1": good, "p2": good, "d1": {"findings": [], "fingerprint": "b" * 64}}, "/w")
    assert (finding.code, finding.host) == ("host-weights-differ", "d1")
    shard = dict.fromkeys(("message", "seen", "expected", "cure", "source"), "x")
    bad = {"findings": [{**shard, "code": "weights-shard-missing", "severity": "error"}], "fingerprint": "b"}
    (finding,) = b.weights({"p1": good, "d1": bad}, "/w")
    assert (finding.code, finding.host, finding.chips) == ("weights-shard-missing", "d1", ())


GOOD_WEIGHTS = {"findings": [], "fingerprint": "a" * 64}


def bad_weights(*codes: str) -> dict:
    words = dict.fromkeys(("message", "seen", "expected", "cure", "source"), "x")
    return {"findings": [{**words, "code": code, "severity": "error"} for code in codes], "fingerprint": ""}


@pytest.mark.parametrize(
    ("source", "results", "severities"),
    [
        pytest.param("present", {"d1": bad_weights("weights-path-missing")}, ["error"], id="must be there"),
        pytest.param("modelscope", {"d1": bad_weights("weights-path-missing")}, ["warning"], id="downloaded"),
        pytest.param(
            "server",
            {"p1": GOOD_WEIGHTS, "d1": bad_weights("weights-shard-missing")},
            ["warning"],
            id="another server has them",
        ),
        pytest.param("server", {"d1": bad_weights("weights-absent")}, ["error"], id="no server has them"),
        pytest.param(
            "controller",
            {"d1": bad_weights("weights-shard-missing", "weights-shard-unreadable")},
            ["error", "error"],
            id="a copy would not cure it",
        ),
    ],
)
def test_weights_that_deployment_brings_are_no_error(source: str, results: dict, severities: list) -> None:
    found = b.weights(results, "/w", source)
    assert [finding.severity for finding in found] == severities
    assert all(("deploy.yml" in finding.cure) is (finding.severity == "warning") for finding in found)


@pytest.mark.parametrize(
    ("source", "facts", "found"),
    [
        pytest.param("registry", {"p1": True, "d1": True}, [], id="there"),
        pytest.param("none", {"p1": None}, [], id="no engine to ask"),
        pytest.param("registry", {"p1": False}, [("p1", "hint", "from the registry")], id="pulled"),
        pytest.param("pull", {"p1": False}, [("p1", "hint", "from the registry")], id="pulled by each"),
        pytest.param(
            "none", {"p1": True, "d1": False}, [("d1", "hint", "from another server")], id="handed on"
        ),
        pytest.param("none", {"d1": False}, [("d1", "error", "no server has it")], id="from nowhere"),
    ],
)
def test_the_image(source: str, facts: dict, found: list[tuple[str, str, str]]) -> None:
    results = {name: {"facts": {"image": there}} for name, there in facts.items()}
    findings = b.images(results, "ascend/vllm-ascend:v0.13.0-a3", source)
    assert [(finding.code, finding.host, finding.severity) for finding in findings] == [
        ("host-image-absent", host, severity) for host, severity, _words in found
    ]
    assert all(
        words in finding.message for finding, (_host, _severity, words) in zip(findings, found, strict=True)
    )


@pytest.mark.parametrize(
    ("path", "there", "severity"),
    [("/i.tar", [True, False], "hint"), ("/i.tar", [False, False], "error"), ("", [None, None], "hint")],
)
def test_the_archive_of_the_image(path: str, there: list, severity: str) -> None:
    results = {
        name: {"facts": {"image": False, "image_archive": has_archive}}
        for name, has_archive in zip(("p1", "d1"), there, strict=True)
    }
    findings = b.images(results, "x:1", "archive", path)
    assert [finding.severity for finding in findings] == [severity, severity]


def test_weights_with_hashes_name_the_files() -> None:
    good = {"findings": [], "fingerprint": "a" * 64, "hashes": {"a.safetensors": "1", "config.json": "2"}}
    other = {"findings": [], "fingerprint": "b" * 64, "hashes": {"a.safetensors": "9", "config.json": "2"}}
    (finding,) = b.weights({"p1": good, "p2": good, "d1": other}, "/w")
    assert finding.seen == f"{'a' * 12} on p1, p2; {'b' * 12} on d1; a.safetensors"


def test_not_checked() -> None:
    (finding,) = b.not_checked(["d1"], {"d1": "Failed to connect\n to the host via ssh"})
    assert (finding.code, finding.host, finding.seen) == (
        "host-not-checked",
        "d1",
        "Failed to connect to the host via ssh",
    )
