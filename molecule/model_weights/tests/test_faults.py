"""Weights that are not whole: the run ends with exactly the findings, and is clean again after the cure.

The faults one by one are rows of molecule/faults/faults.yml.
"""

from __future__ import annotations

import json
import re

import pytest

testinfra_hosts = ["weights1"]

CONVERGE = "molecule/model_weights/converge.yml"
MODEL = "/root/.cache/DeepSeek-V3.1_w8a8mix_mtp"


@pytest.fixture
def run(play):
    """Run the role on the first server; gives whether it went well, and what was said."""

    def run_role(*arguments: str, **variables) -> tuple[bool, str]:
        done = play(CONVERGE, "--limit", "weights1", "--extra-vars", json.dumps(variables), *arguments)
        return done.returncode == 0, done.stdout + done.stderr

    return run_role


def findings(output: str) -> list[str]:
    return re.findall(r"^[ -]*code: ([\w-]+)$", output, re.MULTILINE)


def test_several_faults_are_found_at_once(host, run, sim):
    sim("fault", "weights1", "weights_missing_shard", "number=7")
    sim("fault", "weights1", "weights_truncated_shard", "number=8")
    host.check_output(f"touch {MODEL}/model.safetensors.lock")
    try:
        good, output = run()
    finally:
        host.check_output(f"rm {MODEL}/model.safetensors.lock")
        sim("heal", "weights1")
    assert not good
    assert findings(output) == ["weights-download-lock", "weights-shard-missing", "weights-shard-truncated"]
    assert "cure:" in output
    assert "1 of 163 shards missing: quant_model_weight_w8a8_dynamic-00007-of-00163" in output


def test_the_cured_server_is_converged(run):
    good, output = run("--check", "--diff")
    assert good, output
    assert re.search(r"weights1\s+: ok=\d+\s+changed=0 ", output), output


def test_weights_that_were_copied_anew_are_patched_again(host, run, sim):
    sim("fault", "weights1", "weights_wrong_dtype")
    good, output = run("--check", "--diff")
    assert good, output
    assert re.search(r'^-.*"torch_dtype": "float16"', output, re.MULTILINE), output
    assert re.search(r'^\+.*"torch_dtype": "bfloat16"', output, re.MULTILINE), output
    good, output = run()
    assert good, output
    assert json.loads(host.file(f"{MODEL}/config.json").content_string)["torch_dtype"] == "bfloat16"
    assert not host.file(f"{MODEL}/config.json.orig.1").exists
    sim("heal", "weights1")


def test_another_dtype_is_no_matter_of_patching(host, run, sim):
    sim("fault", "weights1", "weights_wrong_dtype", "value=float32")
    before = host.file(f"{MODEL}/config.json").content_string
    try:
        good, output = run()
        after = host.file(f"{MODEL}/config.json").content_string
    finally:
        sim("heal", "weights1")
    assert not good
    assert findings(output) == ["weights-dtype-unexpected"], output
    assert after == before
