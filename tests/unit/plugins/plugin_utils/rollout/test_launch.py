# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The launch scripts do what the plan says: they are run here, against a vllm that notes what it got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import load_release
from planner_inventories import ROOT, many, small

RECORDER = """#!{python}
import json, os, sys
got = {{"argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "env": dict(os.environ)}}
json.dump(got, open({out!r}, "w"))
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a script with vllm, python and python3 from a directory of our own."""

    def runner(script: str, record: str = "vllm") -> dict[str, Any]:
        out = tmp_path / "out.json"
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        recorder = programs / record
        recorder.write_text(RECORDER.format(python=sys.executable, out=str(out)), encoding="utf-8")
        recorder.chmod(0o755)
        if record != "python3":
            (programs / "python3").unlink(missing_ok=True)
            (programs / "python3").symlink_to(sys.executable)
        path = tmp_path / "launch.sh"
        path.write_text(script, encoding="utf-8")
        environment = {"PATH": f"{programs}:{os.defpath}"}
        done = subprocess.run(
            ["bash", str(path)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"failed": done.stderr}
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result

    return runner


@pytest.mark.parametrize("host", ["prefill1", "prefill2", "decode1"])
def test_script_gives_argv_and_env_of_the_plan(
    run: Callable[..., dict[str, Any]], shipped_plan: Callable[[str], dict[str, Any]], host: str
) -> None:
    (engine,) = shipped_plan("guide_1p1d")["hosts"][host]["engines"]
    got = run(engine["script"])
    assert got["argv"] == engine["argv"]
    assert {name: got["env"].get(name) for name in engine["env"]} == engine["env"]


def test_nothing_in_the_inventory_is_run_by_the_shell(run: Callable[..., dict[str, Any]]) -> None:
    nasty = "$(touch x) `id` 'q' \"d\" \\ ; # ü"
    raw = small(
        {
            "pd_interface": "lo",
            # There a $ and a ` would be the shell's, and are refused where no \\ stands before them.
            "pd_engine_env": {"NASTY": nasty.replace("$", "\\$").replace("`", "\\`")},
            "pd_engine_args": {"chat-template": nasty, "hf-overrides": {nasty: nasty}},
        }
    )
    for share in planner.make(raw).to_dict()["hosts"].values():
        for engine in share["engines"]:
            got = run(engine["script"])
            assert got["argv"] == engine["argv"]
            assert got["env"]["NASTY"] == nasty


def test_interface_is_found_by_its_address(run: Callable[..., dict[str, Any]]) -> None:
    (engine,) = planner.make(small()).to_dict()["hosts"]["d1"]["engines"]
    assert engine["env"]["HCCL_SOCKET_IFNAME"] == "$nic_name"
    here = engine["script"].replace("local_ip=198.51.100.3", "local_ip=127.0.0.1")
    assert run(here)["env"]["HCCL_SOCKET_IFNAME"] == "lo"
    assert (
        "no network interface of this server has the address 198.51.100.3" in run(engine["script"])["failed"]
    )


def test_libraries_are_added_to_what_is_there(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (engine,) = planner.make(small({"pd_interface": "lo"})).to_dict()["hosts"]["d1"]["engines"]
    got = run(engine["script"])
    assert got["env"]["LD_LIBRARY_PATH"] == "/usr/local/lib:/usr/local/lib64"
    library = tmp_path / "libjemalloc.so.2"
    script = engine["script"].replace("/usr/lib64/libjemalloc.so.2", str(library))
    assert '"$library" ]; then export LD_PRELOAD' in script


def test_api_key_comes_from_its_file(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    plan = planner.make(small({"pd_api_key": "s3cret", "pd_interface": "lo"})).to_dict()
    assert plan["api_key"] is True
    assert "s3cret" not in json.dumps(plan)
    secret = tmp_path / "key"
    secret.write_text("s3cret", encoding="utf-8")
    share = plan["hosts"]["p1"]
    (engine,) = share["engines"]
    assert {
        "source": "/etc/pd_rollout/pd/api_key",
        "target": "/run/secrets/pd_api_key",
        "read_only": True,
    } in engine["mounts"]
    got = run(engine["script"].replace("/run/secrets/pd_api_key", str(secret)))
    assert got["env"]["VLLM_API_KEY"] == "s3cret"
    assert "s3cret" not in " ".join(got["argv"])
    proxy = share["proxy"]["script"].replace("/run/secrets/pd_api_key", str(secret))
    got = run(proxy.replace("cd /vllm-workspace", f"cd {tmp_path} #"), record="python")
    assert got["env"]["OPENAI_API_KEY"] == "s3cret"
    assert got["argv"] == share["proxy"]["argv"]


def test_vllm_router_gets_its_modules_and_the_key(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    plan = planner.make(small({"pd_api_key": "s3cret", "pd_router": "vllm_router"})).to_dict()
    proxy = plan["hosts"]["p1"]["proxy"]
    assert proxy is not None and proxy["runtime"] is not None
    secret = tmp_path / "key"
    secret.write_text("s3cret", encoding="utf-8")
    script = proxy["script"].replace("/run/secrets/pd_api_key", str(secret))
    # What the image sets.
    image = "export PYTHONPATH=/image http_proxy=http://proxy.example:3128"
    got = run(f"{image}\n{script}", record="python")
    assert got["argv"] == proxy["argv"]
    assert got["env"]["OPENAI_API_KEY"] == "s3cret"
    assert got["env"]["PYTHONPATH"] == f"{proxy['runtime']['path']}:/image"
    assert got["env"]["no_proxy"] == "*"


def test_container_has_what_the_engine_needs() -> None:
    (engine,) = planner.make(small()).to_dict()["hosts"]["p2"]["engines"]
    assert engine["devices"][:2] == ["/dev/davinci0", "/dev/davinci1"]
    assert engine["devices"][15:] == [
        "/dev/davinci15",
        "/dev/davinci_manager",
        "/dev/devmm_svm",
        "/dev/hisi_hdc",
    ]
    sources = [mount["source"] for mount in engine["mounts"]]
    assert "/etc/hccn.conf" in sources
    assert "/weights/model" in sources
    assert engine["script_path"] in sources
    assert engine["container"] == "pd-prefiller"
    assert all(isinstance(value, str) for value in {**engine["env"], **engine["labels"]}.values())


def test_one_flag_changes_one_hash() -> None:
    before = planner.make(small()).to_dict()["hosts"]
    after = planner.make(small(decoder={"pd_engine_args": {"max-num-seqs": 3}})).to_dict()["hosts"]

    def hashes(hosts: dict[str, Any]) -> dict[str, str]:
        return {h: s["engines"][0]["labels"]["pd_rollout.hash"] for h, s in hosts.items()}

    assert {h for h in before if hashes(before)[h] != hashes(after)[h]} == {"d1"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"async-scheduling": True}, ["--async-scheduling"]),
        ({"async-scheduling": False}, ["--no-async-scheduling"]),
        ({"disable-log-stats": True}, ["--disable-log-stats"]),
        ({"additional-config": {"a": [1, True]}}, ["--additional-config", '{"a": [1, true]}']),
        ({"cudagraph-capture-sizes": [1, 2]}, ["--cudagraph-capture-sizes", "1", "2"]),
        ({"gpu_memory_utilization": 0.5}, ["--gpu-memory-utilization", "0.5"]),
        ({"swap-space": 4}, ["--swap-space", "4"]),
    ],
)
def test_flags_are_written(given: dict[str, Any], words: list[str]) -> None:
    (engine,) = planner.make(small({"pd_engine_args": given})).to_dict()["hosts"]["d1"]["engines"]
    argv = engine["argv"]
    at = argv.index(words[0])
    assert argv[at : at + len(words)] == words
    assert argv.count(words[0]) == 1


def test_flags_can_be_taken_away() -> None:
    (engine,) = planner.make(small({"pd_engine_args": {"seed": None, "disable-log-stats": False}})).to_dict()[
        "hosts"
    ]["d1"]["engines"]
    assert "--seed" not in engine["argv"]
    assert not [word for word in engine["argv"] if "log-stats" in word]


def test_data_parallel_over_two_nodes() -> None:
    plan = planner.make(
        many(
            {
                "prefiller": [("p", ["a"], {"pd_parallel": {"tensor": 8, "data": 2}})],
                "decoder": [("d", ["b", "c"], {"pd_parallel": {"tensor": 4, "data": 8}})],
            },
            everywhere={"pd_profile": "generic"},
        )
    ).to_dict()
    (engine,) = plan["hosts"]["c"]["engines"]
    argv = " ".join(engine["argv"])
    address = plan["hosts"]["b"]["address"]
    assert (
        "--data-parallel-size 8 --data-parallel-size-local 4 --data-parallel-start-rank 4 "
        f"--data-parallel-address {address}" in argv
    )
    assert "--headless" in engine["argv"]
    assert "--nnodes" not in engine["argv"]
    assert engine["data_parallel_rank"] == 4
    (row,) = [row for row in plan["ports"] if row["purpose"] == "DP RPC"]
    assert (row["host"], row["first"], row["bound"]) == ("b", 5980, True)


def test_layerwise_connector_listens_at_the_decoder() -> None:
    plan = planner.make(
        small({"pd_kv_connector": "MooncakeLayerwiseConnector", "pd_parallel": {"tensor": 16}})
    ).to_dict()
    assert plan["hosts"]["p1"]["engines"][0]["handshake_ports"] == []
    assert len(plan["hosts"]["d1"]["engines"][0]["handshake_ports"]) == 16
    assert "load_balance_proxy_layerwise_server_example.py" in plan["hosts"]["p1"]["proxy"]["argv"]


def test_options_are_those_of_the_real_parser() -> None:
    """The simulator's list comes from vLLM's own parser; the planner's must be the same."""
    data = next((ROOT / "simulator" / "engine").rglob("vllm_serve_0.13.0.json"))
    names: dict[str, set[str]] = {"switches": set(), "flags": set(), "values": set()}
    for option in json.loads(data.read_text(encoding="utf-8"))["options"]:
        long = {flag[2:] for flag in option["flags"] if flag.startswith("--")}
        if any(f"no-{name}" in long for name in long):
            names["switches"] |= {name for name in long if f"no-{name}" in long}
        elif option["action"] == "store_true":
            names["flags"] |= long
        else:
            names["values"] |= long
    release = load_release("v0.13.0")
    assert names["switches"] == release.switch_options
    assert names["flags"] == release.flag_options
    assert names["values"] - {"help"} == release.value_options
