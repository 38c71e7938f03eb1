# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""playbooks/bench.yml measures a deployment, tells what failed, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

testinfra_hosts = ["server1"]

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOK = "playbooks/bench.yml"


@pytest.fixture
def bench(play, tmp_path):
    """Run the playbook with results in a folder of this test; (finished process, newest summary or None)."""

    def run(*words, **variables):
        given = {"benchmark_results": str(tmp_path), **variables}
        done = play(PLAYBOOK, "-e", json.dumps(given), *words)
        found = sorted(tmp_path.glob("*/summary.json"))
        return done, json.loads(found[-1].read_text()) if found else None

    return run


def test_it_measures_and_compares(bench, host, tmp_path):
    done, first = bench(benchmark_concurrency=[1, 0], benchmark_repeats=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert "This is the first result of this cluster." in done.stdout
    assert [point["concurrency"] for point in first["points"]] == [1, 0]
    for point in first["points"]:
        assert (point["requests"], point["failed"]) == (12, 0)
        assert 0 < point["ttft"]["p50"] <= point["ttft"]["p90"] <= point["ttft"]["p99"]
        assert point["tpot"]["p50"] > 0
        assert point["itl"]["p99"] > 0
        assert point["output_throughput"] > 0
    time.sleep(1)
    done, second = bench()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Since {first['date']}, 1 at a time: TTFT" in done.stdout
    folder = tmp_path / second["date"]
    assert "| TTFT (s) |" in (folder / "report.md").read_text()
    assert (folder / "ttft.svg").read_text().startswith("<?xml")
    assert (folder / "ttft.png").read_bytes().startswith(b"\x89PNG")
    assert "pd-benchmark" not in host.check_output("docker ps -a --format '{{.Names}}'")
    # The key is in no command line and no result.
    log = host.file("/etc/pd_rollout/pd-benchmark/log").content_string
    assert "a-key-of-this-test" not in log + done.stdout


def test_a_check_run_sends_nothing(bench):
    done, summary = bench("--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary is None


def test_what_cannot_run_is_said_at_once(bench, host):
    done, _ = bench(benchmark_input_len=140000, benchmark_rate="0")
    assert done.returncode != 0
    assert "140000 tokens in and 8 out do not fit into --max-model-len" in done.stdout
    assert "Obtained non-positive request rate" in done.stdout
    assert not host.file("/run/pd_rollout_measurement.lock").exists


@pytest.fixture
def restarted(server):
    """Restart the decoder and wait until it answers."""

    def restart():
        host, name = server("server2"), "pd-decode"
        host.run_expect([0], f"docker restart -t 2 {name}")
        until = time.monotonic() + 180
        url = "http://$(hostname -I | cut -d' ' -f1):8104/health"
        while host.run(f"docker exec {name} curl -sf {url}").rc:
            assert time.monotonic() < until, f"{name} does not answer"
            time.sleep(1)

    return restart


@pytest.mark.parametrize("playbook", [PLAYBOOK, "playbooks/evaluate.yml"])
def test_a_proxy_that_is_down_is_said_at_once(play, host, servers, tmp_path, playbook):
    results = {"benchmark_results": str(tmp_path), "accuracy_results": str(tmp_path)}
    host.run_expect([0], "docker stop -t 2 pd-proxy")
    try:
        done = play(playbook, "-e", json.dumps(results))
    finally:
        host.run_expect([0], "docker start pd-proxy")
        health = f"http://{servers['server1']['address']}:8005/healthcheck"
        host.run_expect([0], f"timeout 180 sh -c 'until curl -sf {health} > /dev/null; do sleep 0.2; done'")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "/healthcheck does not answer with status 200 on server1" in said, said
    assert "Connection refused" in said
    assert not host.file("/run/pd_rollout_measurement.lock").exists
    assert list(tmp_path.iterdir()) == []


def test_requests_that_fail_are_counted(bench, sim, restarted):
    """The decoder dies under way; the proxy goes on saying 200."""
    sim("fault", "server2", "engine_crash_after", "requests=4", "role=decoder")
    try:
        # It counts from its start. The first two requests are the ready check and the warm-up.
        restarted()
        done, summary = bench()
    finally:
        sim("heal", "server2")
        restarted()
    assert done.returncode != 0
    assert "requests failed" in done.stdout, done.stdout
    assert summary["points"][0]["failed"] == 4
    assert sum(summary["points"][0]["failures"].values()) == summary["points"][0]["failed"]
    assert summary["points"][0]["requests"] == 6


def test_an_interrupted_run_leaves_no_container_and_a_second_one_waits(bench, host, inventory, tmp_path):
    """A controller that dies cannot clean up: the container ends by itself."""
    words = {
        "benchmark_prompts": 4000,
        "measurement_lease": 30,
        "benchmark_results": str(tmp_path / "killed"),
    }
    command = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        "-i",
        str(inventory),
        PLAYBOOK,
        "-e",
        json.dumps(words),
    ]
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while "pd-benchmark" not in host.check_output("docker ps --format '{{.Names}}'"):
            assert time.monotonic() < until, "the container did not start"
            time.sleep(0.5)
        done, _ = bench()
        assert done.returncode != 0
        assert "Another measurement (benchmark) is running on server1" in done.stdout, done.stdout
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    until = time.monotonic() + 180
    while "pd-benchmark" in host.check_output("docker ps -a --format '{{.Names}}'"):
        assert time.monotonic() < until, "the container was left behind"
        time.sleep(1)
    done, summary = bench()
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary["points"][0]["failed"] == 0
