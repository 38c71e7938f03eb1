# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""External data parallel: one API server for each rank, as launch_online_dp.py starts them by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from planner_inventories import codes, many

EXTERNAL = {
    "pd_profile": "generic",
    "pd_dp_mode": "external",
    "pd_api_port": 7100,
    "pd_interface": "eth0",
    "pd_dp_rpc_port": 12321,
}
PREFILL = {**EXTERNAL, "pd_parallel": {"tensor": 8, "data": 2}}
DECODE = {**EXTERNAL, "pd_parallel": {"tensor": 1, "data": 32}}


def cluster(prefill: dict[str, Any] = PREFILL, decode: dict[str, Any] = DECODE) -> Any:
    """Two prefillers of one server each, one decoder of two."""
    return many(
        {
            "prefiller": [("p1", ["a"], prefill), ("p2", ["b"], prefill)],
            "decoder": [("d", ["c", "e"], decode)],
        }
    )


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    return planner.make(cluster()).to_dict()


def engine(plan: dict[str, Any], host: str) -> dict[str, Any]:
    (only,) = plan["hosts"][host]["engines"]
    return only


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(f"--{name}") + 1]


def test_ranks_cover_the_instance_once(plan: dict[str, Any]) -> None:
    ranks = [rank for host in ("c", "e") for rank in engine(plan, host)["ranks"]]
    assert [rank["rank"] for rank in ranks] == list(range(32))
    assert [rank["chips"] for rank in ranks] == [[chip] for chip in [*range(16), *range(16)]]
    assert [rank["api"]["port"] for rank in ranks] == [*range(7100, 7116), *range(7100, 7116)]
    assert {rank["api"]["host"] for rank in ranks[16:]} == {plan["hosts"]["e"]["address"]}


def test_a_rank_is_told_its_place(plan: dict[str, Any]) -> None:
    rank = engine(plan, "e")["ranks"][3]
    assert option(rank["argv"], "data-parallel-rank") == "19"
    assert option(rank["argv"], "data-parallel-size") == "32"
    assert option(rank["argv"], "data-parallel-address") == plan["hosts"]["c"]["address"]
    assert option(rank["argv"], "data-parallel-rpc-port") == "12321"
    assert option(rank["argv"], "port") == "7103"
    assert rank["env"]["ASCEND_RT_VISIBLE_DEVICES"] == "3"
    # With a rank, vLLM's local size is 1 and need not be said (V@0.13.0:vllm/engine/arg_utils.py:1457).
    assert not {"--data-parallel-size-local", "--data-parallel-start-rank", "--headless"} & set(rank["argv"])


def test_engine_ids_are_the_instances(plan: dict[str, Any]) -> None:
    assert [instance["engine_ids"] for instance in plan["instances"]] == [["p1-0"], ["p2-0"], ["d-0", "d-0"]]


def test_handshake_ports_follow_the_global_rank(plan: dict[str, Any]) -> None:
    first, second = engine(plan, "b")["ranks"]
    assert first["kv_port"] == 36100
    assert first["handshake_ports"] == list(range(36100, 36108))
    assert second["handshake_ports"] == list(range(36108, 36116))
    assert engine(plan, "b")["handshake_ports"] == first["handshake_ports"] + second["handshake_ports"]
    assert engine(plan, "c")["handshake_ports"] == []


def test_the_consumer_listens_with_the_layerwise_connector() -> None:
    layerwise = {"pd_kv_connector": "MooncakeLayerwiseConnector"}
    made = planner.make(cluster({**PREFILL, **layerwise}, {**DECODE, **layerwise})).to_dict()
    assert engine(made, "e")["ranks"][0]["handshake_ports"] == [36116]
    assert engine(made, "a")["ranks"][0]["handshake_ports"] == []


def test_the_proxy_gets_every_api_port_and_only_those(plan: dict[str, Any]) -> None:
    ports = [(backend["host"], backend["port"]) for backend in plan["proxy"]["decoders"]]
    address = {host: share["address"] for host, share in plan["hosts"].items()}
    assert ports == [(address[host], port) for host in ("c", "e") for port in range(7100, 7116)]
    assert len(plan["proxy"]["prefillers"]) == 4
    assert plan["hosts"]["a"]["proxy"]["expected"] == {"prefill_instances": 4, "decode_instances": 32}


def test_both_of_the_heads_ports_are_in_the_table(plan: dict[str, Any]) -> None:
    rows = {(row["host"], row["purpose"]): (row["first"], row["last"]) for row in plan["ports"]}
    assert rows["a", "API"] == (7100, 7101)
    assert rows["e", "API"] == (7100, 7115)
    # Rank 0 waits for the others there, on one server too.
    assert rows["a", "DP RPC"] == rows["c", "DP RPC"] == (12321, 12321)
    assert ("e", "DP RPC") not in rows


def test_chips_in_the_container_count_from_0() -> None:
    made = planner.make(
        many(
            {
                "prefiller": [
                    ("p", ["a"], {**PREFILL, "pd_parallel": {"tensor": 4, "data": 2}, "pd_chips": "0-7"})
                ],
                "decoder": [
                    (
                        "d",
                        ["a"],
                        {
                            **DECODE,
                            "pd_parallel": {"tensor": 4, "data": 2},
                            "pd_chips": "8-15",
                            "pd_api_port": 7200,
                            "pd_dp_rpc_port": 12322,
                        },
                    )
                ],
            }
        )
    ).to_dict()
    rank = made["hosts"]["a"]["engines"][1]["ranks"][1]
    assert rank["chips"] == [12, 13, 14, 15]
    assert rank["env"]["ASCEND_RT_VISIBLE_DEVICES"] == "4,5,6,7"
    assert made["hosts"]["a"]["engines"][1]["devices"][0] == "/dev/davinci8"


def test_one_rank_is_one_server() -> None:
    made = planner.make(cluster({**PREFILL, "pd_parallel": {"tensor": 16}}, DECODE)).to_dict()
    assert engine(made, "a")["ranks"] == []
    assert option(engine(made, "a")["argv"], "port") == "7100"


def test_the_ranks_of_two_instances_do_not_share_a_port() -> None:
    beside = {**PREFILL, "pd_parallel": {"tensor": 4, "data": 2}, "pd_dp_rpc_port": 12322}
    raw = many(
        {
            "prefiller": [
                ("p1", ["a"], {**PREFILL, "pd_parallel": {"tensor": 4, "data": 2}, "pd_chips": "0-7"}),
                ("p2", ["a"], {**beside, "pd_chips": "8-15", "pd_api_port": 7101}),
            ],
            "decoder": [("d", ["c", "e"], DECODE)],
        }
    )
    assert "PD301" in codes(raw)


@pytest.mark.parametrize("mode", ["extern", True, 1, None, ["external"]])
def test_a_mode_that_is_none_is_a_finding(mode: object) -> None:
    assert "PD102" in codes(cluster({**PREFILL, "pd_dp_mode": mode}))


FAKE_VLLM = """\
#!/usr/bin/env bash
trap 'echo bye; exit 0' TERM
echo "serving on $ASCEND_RT_VISIBLE_DEVICES"
[ "$ASCEND_RT_VISIBLE_DEVICES" != "${FAILS:-}" ] || { sleep 1; exit "${CODE:-3}"; }
for _ in $(seq 600); do sleep 0.05; done
"""


@pytest.fixture
def launched(plan: dict[str, Any], tmp_path: Path) -> Any:
    """Runs the decoder's script with a vllm that only waits; gives the process."""
    fake = tmp_path / "bin" / "vllm"
    fake.parent.mkdir()
    fake.write_text(FAKE_VLLM, encoding="utf-8")
    fake.chmod(0o755)

    def start(**environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", engine(plan, "e")["script"]],
            env={"PATH": f"{fake.parent}:{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize(("code", "expected"), [("3", 3), ("0", 1)], ids=["failed", "ended without a word"])
def test_one_rank_takes_the_others_with_it(launched: Any, code: str, expected: int) -> None:
    process = launched(FAILS="5", CODE=code)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == expected
    assert "[rank 21] serving on 5" in output
    assert f"Rank 21 has ended with exit code {code}" in output
    assert "bye" in output


def test_a_request_to_stop_reaches_every_rank(launched: Any) -> None:
    process = launched()
    seen = ""
    deadline = time.monotonic() + 20
    while seen.count("serving on") < 16 and time.monotonic() < deadline:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output.count("bye") == 16
