# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""playbooks/evaluate.yml installs AISBench (here its stand-in) from wheels, runs it, and judges."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

testinfra_hosts = ["server1"]

ROOT = Path(__file__).resolve().parents[3]
RECORDED = ROOT / "tests" / "unit" / "plugins" / "plugin_utils" / "_benchmark" / "recorded"
PLAYBOOK = "playbooks/evaluate.yml"
PORT = 8950


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    script = ROOT / "simulator" / "aisbench" / "build_wheel.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return folder


@pytest.fixture
def evaluate(play, tmp_path):
    """Run the playbook with results in a folder of this test; (finished process, verdicts or None)."""

    def run(*words, **variables):
        given = {"accuracy_results": str(tmp_path), **variables}
        done = play(PLAYBOOK, "-e", json.dumps(given), *words)
        found = sorted(tmp_path.glob("*/accuracy.json"))
        return done, json.loads(found[-1].read_text())["datasets"] if found else None

    return run


def test_without_aisbench_it_says_what_is_missing(evaluate, host):
    host.run_expect([0], "rm -rf /var/lib/pd_rollout/aisbench")
    done, verdicts = evaluate()
    assert done.returncode != 0
    assert "MISSING: AISBench." in done.stdout
    assert "pip wheel --wheel-dir wheels ais_bench_benchmark" in " ".join(done.stdout.split())
    assert verdicts is None


def test_it_installs_evaluates_and_judges(evaluate, host, wheels):
    given = {"accuracy_wheels_local": str(wheels)}
    done, verdicts = evaluate(**given)
    assert done.returncode != 0
    assert "the data set is neither in" in done.stdout
    given["accuracy_data_local"] = str(ROOT / "molecule" / "serving" / "files" / "datasets")
    low = {"name": "aime2024", "reference": 66.67}
    done, verdicts = evaluate(accuracy_datasets=[low], **given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts[0]["score"] == 66.67
    assert (verdicts[0]["failed"], verdicts[0]["total"]) == (0, 3)
    assert "pd-accuracy" not in host.check_output("docker ps -a --format '{{.Names}}'")
    assert "a-key-of-this-test" not in done.stdout
    # Against the guide's 86.67 it is too low, and nothing is installed again.
    before = host.file("/var/lib/pd_rollout/aisbench/installed").mtime
    done, verdicts = evaluate(**given)
    assert done.returncode != 0
    assert "aime2024: 66.67 is below 83.27 (reference 86.67, tolerance 3.4)" in done.stdout
    assert "changed=0" in done.stdout
    assert host.file("/var/lib/pd_rollout/aisbench/installed").mtime == before


@pytest.fixture
def files(host, wheels):
    """A web server on the proxy's server: a package index with the stand-in, and a data set as an archive."""
    index = "/srv/files/simple/ais-bench-benchmark"
    host.run_expect(
        [0], f"rm -rf /var/lib/pd_rollout/aisbench /srv/files && mkdir -p {index} /srv/files/gsm8k"
    )
    for wheel in wheels.iterdir():
        content = base64.b64encode(wheel.read_bytes()).decode()
        host.run_expect([0], f"echo {content} | base64 -d > '{index}/{wheel.name}'")
    asked = [("What is 6 * 7?", "42"), ("What is 8 + 1?", "10")]
    lines = "".join(json.dumps({"origin_prompt": one, "gold_answer": two}) + "\n" for one, two in asked)
    host.run_expect([0], f"printf '%s' '{lines}' > /srv/files/gsm8k/test.jsonl")
    host.run_expect([0], "tar czf /srv/files/gsm8k.tar.gz -C /srv/files gsm8k && rm -r /srv/files/gsm8k")
    serve = f"setsid python3 -m http.server {PORT} --bind 127.0.0.1"
    host.run_expect([0], f"cd /srv/files; {serve} < /dev/null > /tmp/web 2>&1 & echo $! > /tmp/pid")
    host.run_expect(
        [0], f"timeout 180 sh -c 'until curl -sf http://127.0.0.1:{PORT}/ > /tmp/root; do sleep 0.2; done'"
    )
    yield f"http://127.0.0.1:{PORT}"
    host.run_expect([0], "kill $(cat /tmp/pid)")


def test_aisbench_from_an_index_and_a_data_set_from_an_address(evaluate, host, files):
    given = {
        "accuracy_index": f"{files}/simple/",
        "accuracy_source": "ais_bench_benchmark==0+simulated",
        "accuracy_data_local": str(ROOT / "molecule" / "serving" / "files" / "datasets"),
        "accuracy_datasets": [
            {"name": "aime2024", "reference": 66.67},
            {"name": "gsm8k", "reference": 50, "tolerance": 0, "url": f"{files}/gsm8k.tar.gz"},
        ],
    }
    done, verdicts = evaluate(**given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(one["dataset"], one["score"]) for one in verdicts] == [("aime2024", 66.67), ("gsm8k", 50.0)]
    assert host.file("/var/lib/pd_rollout/aisbench/datasets/gsm8k/test.jsonl").exists
    # What is there is not fetched again.
    requests = host.file("/tmp/web").content_string.count("GET")
    done, _ = evaluate(**given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.file("/tmp/web").content_string.count("GET") == requests
    # An address that leads nowhere is named.
    missing = {"name": "math500", "url": f"{files}/nowhere.tar.gz"}
    done, _ = evaluate(**{**given, "accuracy_datasets": [missing]})
    assert done.returncode != 0
    assert "nowhere.tar.gz" in done.stdout
    assert "404" in done.stdout


def test_a_recorded_run_is_judged_without_running(evaluate, tmp_path):
    recorded = tmp_path / "nobody_answered"
    shutil.copytree(RECORDED / "nobody_answered", recorded)
    done, _ = evaluate(accuracy_recorded=str(recorded))
    assert done.returncode != 0
    assert "aime2024: AISBench has no score" in done.stdout


def test_unknown_data_sets_are_named(evaluate):
    done, _ = evaluate(accuracy_datasets=["aime2042"])
    assert done.returncode != 0
    assert "aime2042 is not known" in done.stdout
