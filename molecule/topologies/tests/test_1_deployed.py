# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Each deployment, rolled out by a run of its own, is what its plan says, and answers."""

from __future__ import annotations

import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import DEPLOYMENTS

DEPLOY = "playbooks/deploy.yml"
ASK = "ascend.pd_rollout.smoke_test : Send a completion and a chat completion"
PROMPTS = [f"Once upon a time there were {count} dragons, and" for count in range(6)]


def test_a_run_for_all_of_them_says_how_to_choose_one(play, plans, running):
    done = play(DEPLOY)
    assert done.returncode != 0
    for name, plan in plans.items():
        assert f"--limit {','.join(plan['hosts'])}   # {name}" in done.stdout
        assert running(name) == {}


def test_a_run_deploys_and_asks_at_every_entry(play, plan, planned, running):
    done = play(DEPLOY, "--limit", plan["deployment"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(running(plan["deployment"])) == planned(plan)
    asked = re.search(rf"TASK \[{ASK}\].*?\n(.*?)\n\n", done.stdout, re.DOTALL)
    entries = {host for host, share in plan["hosts"].items() if share["entry"]}
    assert set(re.findall(r"^ok: \[(\S+)\]", asked[1], re.MULTILINE)) == entries
    assert len(entries) == {"single": 1, "ranks": 2, "layers": 1, "alone": 1}[plan["deployment"]]


def test_simulated_engines_note_with_whom_they_served(plan, server):
    """The record by which an upgrade is tested: nobody served with another version than its own."""
    said = "cat /usr/local/dcmi/pd-sim/served.jsonl 2> /dev/null || true"
    served = [
        json.loads(line) for host in plan["hosts"] for line in server(host).check_output(said).splitlines()
    ]
    roles = set() if plan["deployment"] == "alone" else {"prefiller", "decoder"}
    assert {line["engine"]["role"] for line in served} == roles
    for line in served:
        assert line["engine"]["release"] == plan["release"]["name"]
        for key in ("release", "image", "model", "generation"):
            assert line["engine"][key] == line["peer"][key], line


def test_containers_have_the_planned_chips_and_share_none(plan, server):
    for host, share in plan["hosts"].items():
        taken = []
        for engine in share["engines"]:
            seen = json.loads(server(host).check_output("docker inspect %s", engine["container"]))[0]
            assert seen["RestartCount"] == 0
            assert seen["Config"]["Image"] == engine["image"] == plan["image"]
            assert engine["labels"].items() <= seen["Config"]["Labels"].items()
            devices = [device["PathOnHost"] for device in seen["HostConfig"]["Devices"]]
            assert set(devices) == set(engine["devices"])
            taken += [device for device in devices if re.search(r"davinci\d+$", device)]
        assert len(taken) == len(set(taken)) == len(share["chips"])


def listeners(host):
    return {int(line.split()[3].rsplit(":", 1)[1]) for line in host.check_output("ss -Hltn").splitlines()}


def test_listeners_are_where_the_plan_says(plan, server):
    for host, share in plan["hosts"].items():
        found = listeners(server(host))
        for row in share["ports"]:
            if row["bound"]:
                assert set(range(row["first"], row["last"] + 1)) <= found, (host, row)
        for engine in share["engines"]:
            # Whoever does not listen for the hand-over has not a single port of it.
            if not engine["handshake_ports"]:
                own = range(engine["kv_port"], engine["kv_port"] + engine["local_world_size"])
                others = {port for other in share["engines"] for port in other["handshake_ports"]}
                assert not (set(own) - others) & found, (host, engine["instance"])


def apis(plan, role):
    """Every API of a role, as the engines have them, not as the proxy is told."""
    engines = [e for share in plan["hosts"].values() for e in share["engines"] if e["role"] == role]
    heads = [rank["api"] for engine in engines for rank in engine["ranks"]] + [
        engine["api"] for engine in engines if not engine["ranks"] and engine["api"]
    ]
    return [f"{api['host']}:{api['port']}" for api in heads]


def words_after(flag, arguments):
    rest = arguments[arguments.index(flag) + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]


def test_a_proxy_knows_every_api_and_no_other(plan, server):
    for host, share in plan["hosts"].items():
        if share["proxy"]:
            top = server(host).check_output("docker top %s -o pid,args", share["proxy"]["container"])
            (line,) = [line for line in top.splitlines() if "--prefiller-hosts" in line]
            arguments = line.split()
            script = "layerwise" if plan["deployment"] == "layers" else "load_balance_proxy_server"
            assert script in line
            for role in ("prefiller", "decoder"):
                hosts = words_after(f"--{role}-hosts", arguments)
                ports = words_after(f"--{role}-ports", arguments)
                told = [f"{address}:{port}" for address, port in zip(hosts, ports, strict=True)]
                assert sorted(told) == sorted(apis(plan, role))
                assert len(set(told)) == len(told)


def complete(api, plan, prompt):
    body = {
        "model": plan["model"]["served_name"],
        "prompt": prompt,
        "max_tokens": 16,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"http://{api}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as response:
        return json.load(response)["choices"][0]["text"]


def test_every_entry_answers_as_a_decoder_that_computes_the_prompt_itself(plan):
    entries = [
        f"{share['entry']['host']}:{share['entry']['port']}"
        for share in plan["hosts"].values()
        if share["entry"]
    ]
    decoders = apis(plan, "decoder")
    for number, prompt in enumerate(PROMPTS):
        own = complete(decoders[number % len(decoders)], plan, prompt)
        assert len(set(own.split())) > 3, own
        # At once, so that a proxy has to choose among its backends.
        with ThreadPoolExecutor(len(entries)) as pool:
            answers = list(pool.map(lambda entry, text=prompt: complete(entry, plan, text), entries))
        assert answers == [own] * len(entries)


CANARY = "playbooks/canary.yml"


def told(done):
    """The rows of the canary's table: (pair, good or bad, share, seconds)."""
    return re.findall(r"^(\S.*?)  +(good|bad) +(\S+(?: %)?|-) +([\d.]+)$", done.stdout, re.MULTILINE)


def test_a_canary_asks_every_pair_and_changes_nothing(play, plan):
    done = play(CANARY, "--limit", plan["deployment"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
    names = {
        role: [i["name"] for i in plan["instances"] if i["role"] == role] for role in ("prefiller", "decoder")
    }
    pairs = [f"{p} → {d}" for p in names["prefiller"] for d in names["decoder"]] or names["decoder"]
    share = "100%" if names["prefiller"] else "-"
    assert [row[:2] for row in told(done)] == [(pair, "good") for pair in pairs], done.stdout
    assert {row[2] for row in told(done)} <= {share, "99%"}, done.stdout
    assert "canary-" not in done.stdout


@pytest.fixture
def spoiled(plans, server, sim):
    """`with spoiled("ranks", "ranks_prefill_b", "engine_empty")`: one engine fails."""

    @contextmanager
    def spoil(deployment, instance, fault):
        plan = plans[deployment]
        (host,) = next(one["nodes"] for one in plan["instances"] if one["name"] == instance)
        engines = plan["hosts"][host]["engines"]
        (container,) = [engine["container"] for engine in engines if engine["instance"] == instance]
        if fault == "pause":
            server(host).run_expect([0], "docker pause %s", container)
        else:
            sim("fault", host, fault, f"instance={instance}")
        try:
            yield
        finally:
            if fault == "pause":
                server(host).run_expect([0], "docker unpause %s", container)
            else:
                sim("heal", host)

    return spoil


@pytest.mark.parametrize(
    ("deployment", "instance", "fault", "code"),
    [
        ("ranks", "ranks_prefill_b", "engine_garbage", "canary-repeats"),
        ("ranks", "ranks_prefill_b", "engine_empty", "canary-no-kv-params"),
        ("single", "single_decode", "engine_garbage", "canary-repeats"),
        ("layers", "layers_prefill", "pause", "canary-no-answer"),
    ],
)
def test_a_canary_names_the_engine_that_fails(play, plans, spoiled, deployment, instance, fault, code):
    with spoiled(deployment, instance, fault):
        done = play(CANARY, "--limit", deployment, "-e", "canary_timeout=8")
    assert done.returncode != 0
    bad = {pair: good == "bad" for pair, good, *_ in told(done)}
    assert {pair for pair in bad if bad[pair]} == {pair for pair in bad if instance in pair.split(" → ")}
    assert set(re.findall(r"ERROR (canary-\S+)", done.stdout)) == {code}
    assert f"no good one: {instance}." in done.stdout


def test_the_deployments_differ_in_what_this_is_about(plans, server):
    assert set(plans) == set(DEPLOYMENTS)
    assert [plan["release"]["name"] for plan in plans.values()] == [
        "v0.13.0",
        "v0.23.0",
        "v0.13.0",
        "v0.23.0",
    ]
    assert [plan["topology"] for plan in plans.values()] == ["1P1D", "2P1D", "1P1D", "colocated"]
    # An Atlas A2 server: eight chips, the image that has no -a3, its own npu-smi.
    layers = server("server4")
    assert plans["layers"]["image"].endswith(":v0.13.0")
    assert len(layers.check_output("ls -d /dev/davinci[0-9]*").split()) == 8
    assert "910B3" in layers.check_output("npu-smi info")
    # One engine for both: no proxy, and nobody is told of a transfer.
    alone = plans["alone"]["hosts"]["server5"]
    assert alone["proxy"] is None
    assert (
        "kv-transfer-config" not in server("server5").file(alone["engines"][0]["script_path"]).content_string
    )
