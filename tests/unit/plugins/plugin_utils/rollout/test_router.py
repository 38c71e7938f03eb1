# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The router in front of the engines: what is planned for either kind, and what pd_router_args may say."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import launch
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.inventory import RawInventory
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.launch.router import (
    DEFAULTS,
    VLLM_ROUTER_COMPUTED,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.routers import vllm_router
from planner_inventories import ROOT, codes, findings, many, small

TP16 = {"pd_parallel": {"tensor": 16}}
LAYERWISE = {"pd_kv_connector": "MooncakeLayerwiseConnector"}
# A layerwise connector inside another one.
INSIDE = {
    "pd_kv_connector": "MultiConnector",
    "pd_kv_extra_config": {"connectors": [{"kv_connector": "MooncakeLayerwiseConnector"}]},
}
RECOMPUTED = {"pd_engine_args": {"additional-config": {"recompute_scheduler_enable": True}}}


def fast(everywhere: dict[str, Any] | None = None, **options: Any) -> RawInventory:
    """The guide's topology behind vllm-router, with options by name with underscores."""
    args = {name.replace("_", "-"): value for name, value in options.items()}
    return small({"pd_router": "vllm_router", "pd_router_args": args, **(everywhere or {})})


def upstream(release: str = "v0.13.0", **options: Any) -> RawInventory:
    args = {name.replace("_", "-"): value for name, value in options.items()}
    return small({"pd_router_args": args, "pd_release": release})


def several(**options: Any) -> RawInventory:
    """Two prefillers and a decoder behind vllm-router."""
    args = {name.replace("_", "-"): value for name, value in options.items()}
    return many(
        {"prefiller": [("pa", ["a"], TP16), ("pb", ["b"], TP16)], "decoder": [("d", ["c"], TP16)]},
        everywhere={"pd_router": "vllm_router", "pd_router_args": args},
    )


def colocated(**changes: Any) -> RawInventory:
    everywhere = {"pd_mode": "colocated", "pd_profile": "generic", **changes}
    return many({"decoder": [("d", ["a"], TP16)]}, everywhere=everywhere, proxy=False)


# code, an inventory that breaks the rule, one that does not
CASES: list[tuple[str, RawInventory, RawInventory]] = [
    ("PD542", fast(LAYERWISE), fast({"pd_kv_connector": "MooncakeConnectorV1"})),
    ("PD542", fast(INSIDE), small(INSIDE)),
    ("PD543", fast(RECOMPUTED), small(RECOMPUTED)),
    ("PD543", fast({"pd_release": "v0.23.0"}), fast({"pd_release": "v0.18.0"})),
    ("PD452", fast(max_payload_bytes=1), fast(max_payload_size=1)),
    ("PD452", fast(eviction=1, e=1), fast(eviction_interval=60)),
    ("PD452", upstream(policy="random"), fast(policy="random")),
    ("PD452", upstream(workers=4), upstream("v0.23.0", workers=4)),
    ("PD453", fast(port=8006), fast(log_dir="/tmp/router")),
    ("PD453", fast(prefill=["http://198.51.100.9:8004"]), fast(prefill_policy="random")),
    ("PD453", fast(mini_lb=True), fast(mini_lb=None)),
    ("PD453", upstream(prefiller_hosts=["198.51.100.9"]), upstream(max_retries=1)),
    ("PD454", fast(policy="least_loaded"), fast(policy="sticky_least_loaded")),
    ("PD454", fast(disable_retries="yes"), fast(disable_retries=False)),
    ("PD454", fast(queue_size="many"), fast(queue_size="200")),
    ("PD454", fast(queue_size=-1), fast(queue_size=0)),
    ("PD454", fast(retry_max_retries=0), fast(retry_max_retries=1)),
    ("PD454", fast(retry_jitter_factor=1.5), fast(retry_jitter_factor=1)),
    ("PD454", fast(request_id_headers={"a": 1}), fast(request_id_headers=["x-a", "x-b"])),
    ("PD454", upstream(retry_delay="short"), upstream(retry_delay=0.1)),
    ("PD454", upstream("v0.23.0", log_level="debug"), upstream("v0.23.0", log_level="DEBUG")),
    ("PD455", several(decode_policy="power_of_two"), several(prefill_policy="power_of_two")),
    # As the policy of both it is accepted, whatever their number.
    ("PD455", fast(prefill_policy="power_of_two"), fast(policy="power_of_two")),
    ("PD456", fast(api_key="a1b2c3d4"), fast({"pd_api_key": "a1b2c3d4"})),
    ("PD457", colocated(pd_router="vllm_router"), colocated()),
    ("PD457", colocated(pd_router_args={"nothing": 1}), colocated(pd_router_metrics_port=9000)),
    ("PD614", small({"pd_api_key": "a1b2c3d4"}), small()),
    ("PD614", fast({"pd_api_key": "a1b2c3d4"}), colocated(pd_api_key="a1b2c3d4")),
    # The port of the metrics is checked as all ports are.
    ("PD301", fast({"pd_router_metrics_port": 8004}), small({"pd_router_metrics_port": 8004})),
    ("PD302", fast({"pd_router_metrics_port": 29000}), small({"pd_router_metrics_port": 29000})),
]


@pytest.mark.parametrize(
    ("code", "broken", "kept"),
    CASES,
    ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)],
)
def test_a_rule_finds_what_breaks_it_and_nothing_else(
    code: str, broken: RawInventory, kept: RawInventory
) -> None:
    assert code in codes(broken)
    assert code not in codes(kept)


def proxy_of(raw: RawInventory, host: str = "p1") -> dict[str, Any]:
    found = planner.make(raw).to_dict()["hosts"][host]["proxy"]
    assert found is not None
    return dict(found)


def test_vllm_router_gets_every_backend_and_the_settings_for_long_streams() -> None:
    proxy = proxy_of(fast())
    assert proxy["argv"] == [
        *("python", "-m", "vllm_router.launch_router"),
        *("--vllm-pd-disaggregation", "--kv-connector", "nixl"),
        # A prefiller on two nodes has one API.
        *("--prefill", "http://198.51.100.1:8004"),
        *("--decode", "http://198.51.100.3:8004"),
        *("--host", "198.51.100.1", "--port", "8005"),
        *("--prometheus-host", "198.51.100.1", "--prometheus-port", "8055"),
        *("--policy", "round_robin"),
        *("--health-check-interval-secs", "1", "--health-failure-threshold", "2"),
        *("--worker-startup-check-interval", "1"),
        *("--request-timeout-secs", "86400", "--max-concurrent-requests", "1000000"),
        *("--disable-retries", "--disable-circuit-breaker"),
    ]
    assert proxy["health_url"] == "http://198.51.100.1:8005/workers"
    assert proxy["expected"] == {
        "prefill": ["http://198.51.100.1:8004"],
        "decode": ["http://198.51.100.3:8004"],
    }
    assert "OPENAI_API_KEY" not in proxy["script"]


def test_every_rank_of_external_data_parallel_is_a_backend() -> None:
    ranks = {"pd_parallel": {"tensor": 4, "data": 4}, "pd_dp_mode": "external"}
    raw = many(
        {"prefiller": [("p", ["a"], TP16)], "decoder": [("d", ["b"], ranks)]},
        everywhere={"pd_router": "vllm_router", "pd_profile": "generic"},
    )
    assert proxy_of(raw, "a")["expected"]["decode"] == [
        f"http://10.1.0.2:{port}" for port in range(8004, 8008)
    ]


def test_the_key_is_read_from_its_file_and_is_nowhere_in_the_plan() -> None:
    proxy = proxy_of(fast({"pd_api_key": "s3cret-of-mine"}))
    assert 'export OPENAI_API_KEY="$(cat /run/secrets/pd_api_key)"' in proxy["script"]
    assert "s3cret-of-mine" not in str(proxy)
    assert "/run/secrets/pd_api_key" in [mount["target"] for mount in proxy["mounts"]]


def test_its_modules_come_from_a_directory_named_after_the_wheels() -> None:
    proxy = proxy_of(fast())
    runtime = proxy["runtime"]
    assert runtime["path"].startswith("/etc/pd_rollout/pd/vllm-router-0.1.17-")
    assert {"source": runtime["path"], "target": runtime["path"], "read_only": True} in proxy["mounts"]
    assert f"export PYTHONPATH={runtime['path']}" in proxy["script"]
    assert set(runtime["wheels"]) == {"x86_64", "aarch64"}
    for machine, wheels in runtime["wheels"].items():
        assert all(machine in name and len(pin) == 64 for name, pin in wheels.items())
        # The router for any Python, orjson for each Python of the images.
        assert sorted(name.split("-")[2] for name in wheels) == ["cp311", "cp312", "cp38"]


@pytest.mark.parametrize("release", release_names())
def test_every_images_python_has_its_wheel(release: str) -> None:
    python = "cp" + load_release(release).python.replace(".", "")
    for wheels in vllm_router().wheels.values():
        assert any(name.startswith("orjson-") and f"-{python}-" in name for name in wheels)


def test_the_upstream_script_stays_as_it_was() -> None:
    proxy = proxy_of(small())
    assert proxy["argv"][2:] == [
        *("--port", "8005", "--host", "198.51.100.1"),
        *("--prefiller-hosts", "198.51.100.1", "--prefiller-ports", "8004"),
        *("--decoder-hosts", "198.51.100.3", "--decoder-ports", "8004"),
    ]
    assert proxy["runtime"] is None
    assert proxy["metrics_port"] is None
    assert proxy["health_url"].endswith("/healthcheck")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "cache_aware"}, ["--policy", "cache_aware"]),
        # An abbreviation, and underscores, are the option that they mean.
        ({"request-timeout": 60}, ["--request-timeout-secs", "60"]),
        ({"queue_size": 5}, ["--queue-size", "5"]),
        (
            {"cors-allowed-origins": ["http://a", "http://b"]},
            ["--cors-allowed-origins", "http://a", "http://b"],
        ),
        ({"pd-kv-events": ["u=a", "v=b"]}, ["--pd-kv-events", "u=a", "--pd-kv-events", "v=b"]),
        ({"log-dir": "-here"}, ["--log-dir=-here"]),
    ],
    ids=["changed", "abbreviated", "underscores", "words", "repeated", "dash"],
)
def test_options_are_written_as_the_parser_reads_them(options: dict[str, Any], words: list[str]) -> None:
    argv = proxy_of(small({"pd_router": "vllm_router", "pd_router_args": options}))["argv"]
    begin = argv.index(words[0])
    assert argv[begin : begin + len(words)] == words


@pytest.mark.parametrize("value", [None, False])
def test_a_default_can_be_removed(value: object) -> None:
    assert "--disable-retries" not in proxy_of(fast(disable_retries=value))["argv"]


def test_options_of_the_upstream_script_follow_the_backends() -> None:
    argv = proxy_of(upstream(max_retries=1, retry_delay=0.5))["argv"]
    assert argv[-4:] == ["--max-retries", "1", "--retry-delay", "0.5"]


def test_two_routers_of_one_host_can_be_planned() -> None:
    """Each with its address, its ports and its name."""
    cluster = planner.make(fast()).cluster
    (which,) = cluster.proxies
    other = launch.proxy(
        cluster, replace(which, address="127.0.0.1", port=9001, metrics_port=9002, name="proxy-green")
    )
    assert other["container"] == "pd-proxy-green"
    assert other["script_path"].endswith("/proxy-green.sh")
    assert other["health_url"] == "http://127.0.0.1:9001/workers"
    assert other["argv"][other["argv"].index("--prometheus-port") + 1] == "9002"


def test_what_the_plan_writes_exists_in_the_router() -> None:
    options = vllm_router().options
    assert set(DEFAULTS) | set(VLLM_ROUTER_COMPUTED) <= set(options)
    assert set(vllm_router().at_least) | set(vllm_router().at_most) <= set(options)


def test_a_secret_among_the_options_is_shown_nowhere() -> None:
    raw = fast(api_key="sk-a1b2c3d4e5f6", port="sk-a1b2c3d4e5f6")
    assert "a1b2c3d4e5f6" not in str([finding.to_dict() for finding in findings(raw)])
    assert proxy_of(fast(api_key="sk-a1b2c3d4e5f6"))["secrets"] is True


def test_the_warning_about_the_key_says_what_each_router_does() -> None:
    """The upstream script also gives it away; that of the layerwise connector has no such path."""
    key = {"pd_api_key": "a1b2c3d4"}

    def message(raw: RawInventory) -> str:
        return next(finding.message for finding in findings(raw) if finding.code == "PD614")

    assert "/instances/add" in message(small(key))
    assert "/instances/add" not in message(fast(key))
    assert "/instances/add" not in message(small({**key, **LAYERWISE}))


def generator() -> Any:
    path = ROOT / "scripts" / "gen_router_args.py"
    spec = importlib.util.spec_from_file_location("gen_router_args", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_generator_refuses_another_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm_router.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="sha256"):
        generator().load(wheel, tmp_path)
