# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""What stands on the servers after one run of deploy_1p1d is the plan, and no more."""

from __future__ import annotations

import json

import pytest

KEY = "molecule-8fb1c2d4e6a7"


@pytest.fixture
def slice_(plan, host):
    return plan["hosts"][host.backend.host.name]


@pytest.fixture
def containers(slice_):
    return [*slice_["engines"], *([slice_["proxy"]] if slice_["proxy"] else [])]


def inspect(host, container):
    return json.loads(host.check_output("docker inspect %s", container))[0]


def test_the_planned_containers_run_and_have_not_been_restarted(host, containers):
    assert set(host.check_output("docker ps -a --format '{{.Names}}'").split()) == {
        c["container"] for c in containers
    }
    for container in containers:
        seen = inspect(host, container["container"])
        assert seen["State"]["Running"], host.run("docker logs --tail 20 %s", container["container"]).stdout
        assert seen["RestartCount"] == 0
        assert container["labels"].items() <= seen["Config"]["Labels"].items()
        assert not seen["HostConfig"]["Privileged"]


def test_an_engine_has_the_planned_devices_and_mounts(host, slice_):
    for engine in slice_["engines"]:
        seen = inspect(host, engine["container"])
        assert {d["PathOnHost"] for d in seen["HostConfig"]["Devices"]} == set(engine["devices"])
        assert {(m["Source"], not m["RW"]) for m in seen["Mounts"]} == {
            (m["source"], m["read_only"]) for m in engine["mounts"]
        }


def listeners(host):
    """(address, port) pairs; `ss` shows any address as 0.0.0.0 or *."""
    lines = host.check_output("ss -Hltn").splitlines()
    pairs = [line.split()[3].rsplit(":", 1) for line in lines]
    return {(address.strip("[]").replace("*", "0.0.0.0"), int(port)) for address, port in pairs}


def test_listeners_are_where_the_plan_says(host, slice_):
    found = listeners(host)
    ports = {port for _address, port in found}
    for row in slice_["ports"]:
        wanted = set(range(row["first"], row["last"] + 1))
        if row["bound"]:
            assert wanted <= ports, row
    for engine in slice_["engines"]:
        # On the address that the connector tells its peers, and not on any other.
        assert {address for address, port in found if port in engine["handshake_ports"]} <= {
            slice_["address"]
        }
    if slice_["proxy"]:
        assert (slice_["proxy"]["host"], slice_["proxy"]["port"]) in found


def test_only_producers_listen_for_the_handshake(plan, server):
    for name, slice_ in plan["hosts"].items():
        ports = {port for _address, port in listeners(server(name))}
        for engine in slice_["engines"]:
            if engine["kv_role"] == "kv_producer":
                assert set(engine["handshake_ports"]) <= ports
                assert len(engine["handshake_ports"]) == engine["local_world_size"]
            else:
                assert engine["kv_port"] not in ports


def test_the_api_is_served_by_heads_alone(host, slice_):
    ports = {port for _address, port in listeners(host)}
    for engine in slice_["engines"]:
        assert (8004 in ports) is not engine["headless"]


def test_the_files_are_roots_alone(host, slice_, containers):
    directory = host.file(slice_["directory"])
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o700)
    for container in containers:
        script = host.file(container["script_path"])
        assert (script.user, script.mode) == ("root", 0o700)
        assert script.content_string == container["script"]
        secret = host.file(container["secret_path"])
        assert (secret.user, secret.mode) == ("root", 0o600)
        assert secret.content_string == KEY


def test_the_key_is_in_its_file_and_nowhere_else(host, plan, containers):
    assert KEY not in json.dumps(plan)
    assert KEY not in host.check_output("ps -eo args")
    for container in containers:
        name = container["container"]
        assert KEY not in host.check_output("docker inspect %s", name)
        assert KEY not in host.check_output("docker logs %s 2>&1", name)
        assert KEY not in host.file(container["script_path"]).content_string


def ask(host, slice_, path, body):
    url = f"http://{slice_['address']}:{slice_['proxy']['port']}{path}"
    return host.check_output(
        "curl -fsS --noproxy '*' -H 'Content-Type: application/json' -d %s %s", json.dumps(body), url
    )


def test_the_proxy_answers_with_a_text(plan, server):
    name, slice_ = next((name, s) for name, s in plan["hosts"].items() if s["proxy"])
    body = {
        "model": plan["model"]["served_name"],
        "prompt": "The capital of France is",
        "max_tokens": 16,
        "temperature": 0,
    }
    answer = json.loads(ask(server(name), slice_, "/v1/completions", body))
    text = answer["choices"][0]["text"]
    assert len(set(text.split())) > 3, text


def test_the_router_has_its_modules_and_its_metrics(plan, server):
    """From wheels that the controller brought: the image lacks one of them."""
    name, slice_ = next((name, s) for name, s in plan["hosts"].items() if s["proxy"])
    router, host = slice_["proxy"], server(name)
    assert router["router"] == "vllm_router"
    modules = host.file(router["runtime"]["path"])
    assert (modules.is_directory, modules.user, modules.mode) == (True, "root", 0o700)
    image = router["image"]
    missing = host.run("docker run --rm --entrypoint python %s -c 'import orjson'", image)
    assert "No module named 'orjson'" in missing.stderr
    url = f"http://{router['host']}:{router['metrics_port']}/metrics"
    metrics = host.check_output("curl -fsS --noproxy '*' %s", url)
    for backend in (*router["expected"]["prefill"], *router["expected"]["decode"]):
        assert f'vllm_router_worker_health{{worker="{backend}"}} 1' in metrics


def test_without_the_key_the_engines_refuse(plan, server):
    name, slice_ = next((n, s) for n, s in plan["hosts"].items() if s["engines"][0]["role"] == "decoder")
    url = f"http://{slice_['address']}:8004/v1/models"
    code = server(name).check_output("curl -s -o /dev/null -w %s --noproxy '*' %s", "%{http_code}", url)
    assert code == "401"
