"""A rollout from the bundle alone: nothing outside can be reached from here."""

from __future__ import annotations

import json
import re

testinfra_hosts = ["control"]

BUNDLE = "/srv/bundle"
# An address for documentation (RFC 5737): on the way there is nobody but the default route.
OUTSIDE = "192.0.2.1"


def recap(log: str) -> dict[str, dict[str, int]]:
    """Counts by server of the last play recap."""
    lines = re.findall(r"^(\S+) +: (ok=.*)$", log.rpartition("PLAY RECAP")[2], re.MULTILINE)
    return {
        host: {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", told)}
        for host, told in lines
        if host != "localhost"
    }


def test_the_network_is_off(server):
    for name in ("control", "prefill1", "decode1"):
        tried = server(name).run(f"curl --silent --show-error --max-time 20 http://{OUTSIDE}/")
        assert tried.rc == 7, tried.stderr
        assert server(name).run("curl --silent --max-time 20 http://registry.example/").rc == 6


def test_all_came_from_the_bundle(host):
    assert host.run(f"cd {BUNDLE} && sha256sum --check --quiet SHA256SUMS").rc == 0
    galaxy = f"{BUNDLE}/venv/bin/ansible-galaxy collection list ascend.pd_rollout --format json"
    listed = json.loads(host.check_output(f"ANSIBLE_COLLECTIONS_PATH={BUNDLE}/collections {galaxy}"))
    assert list(listed) == [f"{BUNDLE}/collections/ansible_collections"]


def test_the_deployment_came_up_and_answered(host, servers):
    log = host.file(f"{BUNDLE}/steps.log").content_string
    counts = recap(log)
    assert set(counts) == {"prefill1", "decode1"}
    assert all(told["failed"] == told["unreachable"] == 0 for told in counts.values()), log[-3000:]
    assert "TASK [ascend.pd_rollout.smoke_test" in log
    url = f"http://{servers['prefill1']['address']}:8005/v1/completions"
    question = json.dumps({"model": "deepseek_v3", "prompt": "The capital of France is", "max_tokens": 4})
    header = "Content-Type: application/json"
    asked = host.check_output("curl --silent --fail --header %s --data %s %s", header, question, url)
    assert json.loads(asked)["choices"][0]["text"]


def test_image_and_weights_went_to_one_server_and_from_there_to_the_other(host, server):
    log = host.file(f"{BUNDLE}/steps.log").content_string
    assert re.search(r"^decode1 image: there after \d+ s, from prefill1", log, re.MULTILINE), log
    assert re.search(r"^prefill1 image: there after \d+ s, from the controller", log, re.MULTILINE), log
    assert re.search(r"^decode1 weights: .*complete", log, re.MULTILINE), log
    for name in ("prefill1", "decode1"):
        assert server(name).run("docker image inspect ascend/vllm-ascend:v0.13.0-a3").rc == 0


def test_a_second_run_changes_nothing(host):
    steps = [line for line in host.file(f"{BUNDLE}/steps.sh").content_string.splitlines() if line]
    again = [line for line in steps if line.startswith(("set", "cd", "export")) or "ansible-playbook" in line]
    assert len(again) == 4
    done = host.run("bash -c %s", "\n".join(again))
    assert done.rc == 0, done.stdout + done.stderr
    assert [told["changed"] for told in recap(done.stdout).values()] == [0, 0]
