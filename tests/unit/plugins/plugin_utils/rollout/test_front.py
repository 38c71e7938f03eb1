# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The front in the plan: HAProxy's configuration, the two routers behind it, their ports."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.front import filled
from planner_inventories import codes, findings, many, small

KEYS = {"alice": "sk-alice-0123456789", "bob": "sk-bob-0123456789"}
FRONT: dict[str, Any] = {
    "pd_front_port": 8443,
    "pd_front_certificate": "/certs/front.crt",
    "pd_front_certificate_key": "/certs/front.key",
    "pd_front_api_keys": KEYS,
}
LONG = {"alice": "sk-alice-0123456789-abcdef", "bob": "sk-bob-0123456789-abcdef"}
VLLM = {"pd_router": "vllm_router"}
LAYERWISE = {"pd_kv_connector": "MooncakeLayerwiseConnector"}


def front(**changes: Any) -> Any:
    """The guide's topology with a front, whose clients have good keys."""
    return small({**FRONT, "pd_front_api_keys": LONG, **changes})


def colocated(**changes: Any) -> Any:
    everywhere = {"pd_mode": "colocated", "pd_profile": "generic", **changes}
    sizes = {"pd_parallel": {"tensor": 16}}
    return many({"decoder": [("d", ["a"], sizes)]}, everywhere=everywhere, proxy=False)


# code, an inventory that breaks the rule, one that does not
CASES: list[tuple[str, Any, Any]] = [
    ("PD301", front(pd_proxy_port=8003), front(pd_proxy_port=8002)),
    ("PD301", front(pd_front_port=8006), small({"pd_router": "vllm_router"})),
    ("PD301", front(pd_front_metrics_port=8443), front(pd_front_metrics_port=8444)),
    (
        "PD301",
        front(pd_router="vllm_router", pd_router_metrics_port=8404),
        front(pd_router_metrics_port=8404),
    ),
    ("PD305", front(pd_proxy_port=65535), front(pd_proxy_port=65534)),
    ("PD614", small({"pd_api_key": "key-of-the-engines"}), front(pd_api_key="key-of-the-engines")),
    ("PD615", front(pd_front_certificate=...), front()),
    ("PD615", front(pd_front_certificate_key=""), front(pd_front_certificate_key=..., pd_front_tls=False)),
    (
        "PD623",
        front(pd_front_virtual_address="198.51.100.3"),
        front(pd_front_virtual_address="198.51.100.99"),
    ),
    (
        "PD624",
        front(pd_front_virtual_address="198.52.100.99"),
        front(pd_front_virtual_address="198.51.7.99"),
    ),
    (
        "PD625",
        front(pd_front_virtual_address="198.51.100.99"),
        small({**FRONT, "pd_front_virtual_address": "198.51.100.99"}, proxy=("p1", "d1")),
    ),
    ("PD616", front(pd_front_tls=False), front()),
    ("PD616", front(pd_front_tls=False), front(pd_front_tls=False, pd_front_api_keys={})),
    ("PD617", front(pd_front_api_keys={}), front()),
    ("PD617", front(pd_front_api_keys=...), small()),
    (
        "PD618",
        front(pd_front_api_keys={}, pd_front_requests_per_minute=9),
        front(pd_front_requests_per_minute=9),
    ),
    ("PD618", front(pd_front_tls=False), front(pd_front_ca="/certs/ca.crt")),
    ("PD618", front(pd_front_port=None), small({"pd_front_certificate": None, "pd_front_api_keys": {}})),
    ("PD618", small({"pd_front_name": "models.example.org"}), front(pd_front_name="models.example.org")),
    ("PD618", colocated(pd_front_port=8443), colocated()),
    ("PD619", front(pd_front_api_keys=KEYS), front()),
    ("PD620", front(pd_api_key=LONG["bob"]), front(pd_api_key="key-of-the-engines")),
    (
        "PD621",
        front(pd_router="vllm_router", pd_front_max_body="1g"),
        front(pd_router="vllm_router", pd_front_max_body="512m"),
    ),
    (
        "PD621",
        front(pd_router="vllm_router", pd_router_args={"max-payload-size": 2**20}),
        front(pd_router="vllm_router", pd_router_args={"max_payload_size": 2**26}),
    ),
    ("PD621", front(pd_router="vllm_router", pd_front_max_body="1g"), front(pd_front_max_body="1g")),
    ("PD622", front(), front(pd_front_api_keys={})),
    ("PD622", front(), small()),
]


@pytest.mark.parametrize(
    ("code", "broken", "kept"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_rule_from_both_sides(code: str, broken: Any, kept: Any) -> None:
    assert code in codes(broken)
    assert code not in codes(kept)


def test_a_front_as_it_is_recommended_has_hints_only() -> None:
    assert not [found for found in findings(front()) if found.severity != "hint"]


def test_no_finding_shows_a_key() -> None:
    for case in CASES:
        text = str(findings(case[1]))
        assert not any(key in text for key in (*KEYS.values(), *LONG.values(), "key-of-the-engines"))


def test_a_short_key_is_named_not_shown() -> None:
    (found,) = [one for one in findings(front(pd_front_api_keys=KEYS)) if one.code == "PD619"]
    assert found.seen == "less than 20 characters: alice, bob"


def test_a_port_that_cannot_be_read_is_the_only_finding() -> None:
    found = codes(front(pd_front_port="none"))
    assert "PD102" in found and "PD618" not in found


def test_a_certificate_that_cannot_be_read_is_the_only_finding() -> None:
    found = codes(front(pd_front_certificate="two\nlines"))
    assert "PD102" in found and "PD615" not in found


@pytest.mark.parametrize(
    "before", ["Certificate:\n    Data:\n", "Bag Attributes\n    friendlyName: a\n", "\n"]
)
def test_text_before_the_first_block_is_part_of_pem(before: str) -> None:
    text = f"{before}-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
    assert not [one for one in findings(front(pd_front_certificate=text)) if one.severity == "error"]


def test_the_firewall_closes_what_engines_and_guards_listen_on() -> None:
    hints = {one.host: one for one in findings(front()) if one.code == "PD622"}
    assert "tcp dport { 7001, 8004, 8406, 36100-36115 }" in hints["p1"].cure
    assert "tcp dport { 8004, 8406 }" in hints["d1"].cure
    assert "ip saddr != { 127.0.0.1, 198.51.100.1, 198.51.100.2, 198.51.100.3 } drop" in hints["d1"].cure


def share(**changes: Any) -> Any:
    sizes = {"pd_parallel": {"tensor": 16}}
    one_each = {"prefiller": [("p", ["p1"], sizes)], "decoder": [("d", ["d1"], sizes)]}
    return planner.make(many(one_each, everywhere={**FRONT, **changes})).to_dict()["hosts"]["p1"]


def config(**changes: Any) -> str:
    return str(share(**changes)["front"]["config"])


def test_without_a_port_there_is_no_front_and_one_router() -> None:
    plain = planner.make(small()).to_dict()["hosts"]["p1"]
    assert plain["front"] is None
    assert [router["container"] for router in plain["routers"]] == ["pd-proxy"]
    assert plain["routers"][0]["colour"] is None
    assert plain["entry"]["scheme"] == "http" and plain["entry"]["port"] == 8005


@pytest.mark.parametrize(
    ("changes", "host"), [({}, "127.0.0.1"), (VLLM, "127.0.0.1"), (LAYERWISE, "10.1.0.1")]
)
def test_the_routers_are_a_pair_on_the_loopback_unless_decoders_ask_them(
    changes: dict[str, Any], host: str
) -> None:
    routers = share(**changes)["routers"]
    assert [(r["colour"], r["host"], r["port"]) for r in routers] == [
        ("blue", host, 8005),
        ("green", host, 8006),
    ]
    assert [r["container"] for r in routers] == ["pd-router-blue", "pd-router-green"]
    for router in routers:
        at = router["argv"].index("--host")
        assert router["argv"][at + 1] == host
    assert f"server blue {host}:8005 check" in config(**changes)


def test_each_port_of_the_pair_is_planned() -> None:
    rows = {(row["purpose"], row["first"]) for row in share(**VLLM)["ports"]}
    assert {
        ("blue router", 8005),
        ("green router", 8006),
        ("blue router's metrics", 8055),
        ("green router's metrics", 8056),
        ("front", 8443),
        ("front's metrics", 8405),
    } <= rows


def test_clients_enter_at_the_front() -> None:
    assert share()["entry"]["scheme"] == "https"
    assert share()["entry"]["port"] == 8443
    assert share(pd_front_tls=False)["entry"]["scheme"] == "http"
    assert " ssl " not in config(pd_front_tls=False)


def test_no_key_is_in_the_plan() -> None:
    text = str(planner.make(small({**FRONT, "pd_api_key": "engine-key"})).to_dict())
    assert not any(key in text for key in (*KEYS.values(), "engine-key"))


def test_another_key_changes_nothing_in_the_configuration() -> None:
    assert config() == config(pd_front_api_keys={"carol": "sk-carol-0123456789"})


def test_without_keys_requests_are_passed_on() -> None:
    assert "401" in config() and "keys.map" in config()
    assert "401" not in config(pd_front_api_keys={})


def test_a_rate_limit_is_one_of_each_key() -> None:
    assert "http_req_rate(0)" not in config()
    assert "sc_http_req_rate(0) gt 120" in config(pd_front_requests_per_minute=120)


def test_a_closed_front_answers_503_to_requests_for_an_answer_alone() -> None:
    lines = [line.strip() for line in config().splitlines()]
    (closed,) = [line for line in lines if line.endswith(" if generate closed")]
    assert closed.startswith("http-request return status 503 ") and "retry-after 5" in closed
    assert "The model is not available at the moment: %[var(txn.closed)]." in closed
    # Who has no key learns nothing of it.
    assert lines.index(closed) > next(n for n, line in enumerate(lines) if "return status 401" in line)
    assert lines.index(closed) < next(n for n, line in enumerate(lines) if line.startswith("use_backend"))


def test_a_closed_front_is_unhealthy_for_balancers_and_keeps_its_shared_address() -> None:
    for_balancers, for_keepalived = [
        line for line in config().splitlines() if "return status 200" in line and "path /health" in line
    ]
    assert "!closed" in for_balancers and "closed" not in for_keepalived


def test_a_refusal_in_plain_text_becomes_json_with_the_same_status() -> None:
    refusals = [line for line in config().splitlines() if "%[var(txn.said)]" in line]
    assert refusals and all("type" in line and "lf-string" in line for line in refusals)
    for line in refusals:
        status = line.split("return status ")[1][:3]
        assert f"if {{ status {status} }}" in line


def test_engines_are_asked_for_the_models() -> None:
    for text in (config(), config(**VLLM)):
        assert "    server engine0 10.1.0.2:8004 check\n    server engine1 10.1.0.1:8004 check\n" in text


def test_each_router_has_its_own_check() -> None:
    assert "GET /healthcheck" in config() and "GET /readiness" not in config()
    assert "GET /readiness" in config(**VLLM)


def test_connections_are_kept_only_to_a_router_that_does_not_close_them() -> None:
    def backends(text: str) -> dict[str, bool]:
        return {part.split()[0]: "option http-server-close" in part for part in text.split("\nbackend ")[1:4]}

    upstream = backends(config(pd_router="upstream"))
    assert upstream == {"router_blue": True, "router_green": True, "models": True}
    kept = backends(config(pd_router="vllm_router"))
    assert kept == {"router_blue": False, "router_green": False, "models": True}
    assert "http-server-close" not in config().split("\nfrontend ")[0]


def test_the_engines_key_is_read_from_a_map() -> None:
    assert "engines.map" not in config()
    assert share()["front"]["engine_key"] is False
    assert "engines.map" in config(pd_api_key="engine-key")
    assert share(pd_api_key="engine-key", **VLLM)["front"]["engine_key"] is True


def test_sessions_are_never_shut_down_with_a_check() -> None:
    lines = [line for line in config().splitlines() if not line.lstrip().startswith("#")]
    assert not any("shutdown-sessions" in line for line in lines)
    assert "    option idle-close-on-response" in lines


@pytest.mark.parametrize(
    "line",
    [
        # A busy router answers its check late.
        "timeout check 10s",
        # The engine is not to go on for a client that has given up.
        "option abortonclose",
        # One plain value: another could forge parts of the log.
        "req.fhdr_cnt(x-request-id) eq 1",
        # Large headers would leave no room for the body that the limit of chunked requests counts.
        "req.hdrs_bin,length gt 32768",
        "http-request del-header upgrade",
    ],
)
def test_the_configuration_has(line: str) -> None:
    assert line in config()


def test_workers_of_an_earlier_configuration_may_finish_the_longest_answer() -> None:
    assert "hard-stop-after 86400s" in config()


def test_units_never_give_up() -> None:
    front = share(pd_front_virtual_address="10.1.0.99")["front"]
    for unit in (front["service"], front["shared"]["service"]):
        assert "StartLimitIntervalSec=0" in unit.split("[Service]")[0]


def test_times_and_sizes_are_variables() -> None:
    text = config(
        pd_front_answer_timeout=7200,
        pd_front_request_timeout=9,
        pd_front_idle_timeout=11,
        pd_front_max_body="8m",
        pd_front_connections=100,
    )
    for line in (
        "timeout server 7200s",
        "timeout http-request 9s",
        "timeout http-keep-alive 11s",
        "gt 8388608 }",
        "maxconn 100",
    ):
        assert line in text


def test_a_client_that_does_nothing_does_not_hold_a_connection_as_long_as_an_answer_may_take() -> None:
    assert "    timeout client 120s" in config(pd_front_answer_timeout=86400).splitlines()


def test_the_configuration_is_one_of_the_plans_files() -> None:
    plan = planner.make(small(FRONT)).to_dict()
    front = plan["hosts"]["p1"]["front"]
    files = render.files(plan)
    assert front is not None and files["p1/haproxy.cfg"] == front["config"]
    assert {"p1/router-blue.sh", "p1/router-green.sh"} <= files.keys()


SHARED = {"pd_front_virtual_address": "10.1.0.99"}


def test_fronts_share_an_address_if_there_is_one() -> None:
    assert share()["front"]["shared"] is None
    assert share()["front"]["packages"] == ["haproxy"]
    front = share(**SHARED)["front"]
    assert front["packages"] == ["haproxy", "keepalived"]
    assert front["shared"]["unit"] == "pd-address"
    for line in (
        "virtual_router_id 99",
        "10.1.0.99/32 dev @NIC@",
        "/etc/pd_rollout/pd/front/serves.py 10.1.0.1 8405",
    ):
        assert line in front["shared"]["config"]
    assert "    bind 10.1.0.99:8443 ssl" in front["config"] and " transparent" in front["config"]


def test_the_others_are_told_one_by_one() -> None:
    hosts = planner.make(small({**FRONT, **SHARED}, proxy=("p1", "p2", "d1"))).to_dict()["hosts"]
    front = hosts["p2"]["front"]
    assert front is not None and front["shared"] is not None
    assert "    unicast_src_ip 198.51.100.2\n" in front["shared"]["config"]
    assert (
        "    unicast_peer {\n        198.51.100.1\n        198.51.100.3\n    }" in front["shared"]["config"]
    )


def test_a_front_alone_tells_nobody_and_its_address_is_read() -> None:
    assert "unicast" not in share(**SHARED)["front"]["shared"]["config"]
    assert share(pd_front_virtual_address=" 10.1.0.99 ")["front"]["shared"]["address"] == "10.1.0.99"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "stands for every address"),
        ("127.0.0.7", "a loopback address"),
        ("224.0.0.18", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("10.1.0", "an invalid value"),
        ("::1", "an invalid value"),
        (167837795, "an invalid value"),
    ],
)
def test_what_no_server_can_have_is_no_shared_address(address: Any, why: str) -> None:
    (found,) = [one for one in findings(front(pd_front_virtual_address=address)) if one.severity == "error"]
    assert found.code == "PD102" and why in found.message


def test_the_configuration_of_the_address_is_one_of_the_plans_files() -> None:
    assert "p1/keepalived.conf" in render.files(planner.make(small({**FRONT, **SHARED})).to_dict())


def test_every_place_is_filled() -> None:
    for text in (config(), config(**VLLM), share()["front"]["service"]):
        assert "@" not in text.replace("%@", "")


def test_a_place_of_its_own_takes_all_lines_or_goes() -> None:
    assert filled("a\n  @X@\nb @Y@\n", {"X": "1\n2", "Y": "3"}) == "a\n  1\n  2\nb 3\n"
    assert filled("a\n  @X@\nb\n", {"X": ""}) == "a\nb\n"


def test_the_picture_and_the_tables_show_what_clients_ask() -> None:
    files = render.files(planner.make(front(**VLLM, pd_front_name="models.example.org")).to_dict())
    picture, tables = files["topology.svg"], files["topology.md"]
    for text in ("clients, https", "Front (HAProxy)", "Router (vllm-router)", "blue :8005 or green :8006"):
        assert f">{text}<" in picture
    for row in (
        "- p1: `https://198.51.100.1:8443`",
        "front with API keys, as models.example.org | 198.51.100.1:8443 | `http://198.51.100.1:8405/metrics`",
        "blue router | 127.0.0.1:8005 | `http://127.0.0.1:8055/metrics`",
    ):
        assert row in tables
    without = render.files(planner.make(small()).to_dict())
    assert "clients" not in without["topology.svg"] and "Front" not in without["topology.md"]
