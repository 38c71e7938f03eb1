"""What the fan-out leaves on every server, and what it costs the first one."""

from __future__ import annotations

import json

MODEL = "/srv/models/deepseek"
BYTES = 12 * 2_000_000


def sums(host) -> str:
    return host.check_output(f"cd {MODEL} && find . -type f | sort | xargs sha256sum")


def test_every_server_has_the_same_files(host, server):
    assert sums(host) == sums(server("fan1"))
    assert host.check_output(f"ls {MODEL} | grep -c safetensors$") == "12"


def test_the_dtype_is_set_and_the_original_kept(host):
    assert json.loads(host.file(f"{MODEL}/config.json").content_string)["torch_dtype"] == "bfloat16"
    assert json.loads(host.file(f"{MODEL}/config.json.orig").content_string)["torch_dtype"] == "float16"


def test_nothing_else_is_left(host):
    assert host.check_output("find /srv/models -name '.*'") == ""
    assert not host.file("/run/pd_rollout").exists or host.check_output("ls /run/pd_rollout") == ""
    assert host.run("pgrep -x rsync").stdout == ""


def test_the_source_sends_the_weights_once(server, lacking, run):
    lacking("fan2", "fan3")
    counter = "cat /sys/class/net/eth0/statistics/tx_bytes"
    before = int(server("fan1").check_output(counter))
    outcome = run()
    sent = int(server("fan1").check_output(counter)) - before
    assert outcome.good, outcome.output
    # Packets and Ansible's own traffic come on top; a second copy would be twice as much.
    assert BYTES < sent < 1.2 * BYTES


def test_a_shared_file_system_is_written_once(server, lacking, run):
    lacking("fan3")
    outcome = run()
    assert outcome.good, outcome.output
    assert "fan3 weights: 100 %, 24.0 of 24.0 MB, complete" in outcome.output
    assert "fan4 weights:" not in outcome.output
    shard = f"{MODEL}/model-00012-of-00012.safetensors"
    inode = {name: server(name).check_output(f"stat --format %d:%i {shard}") for name in ("fan3", "fan4")}
    assert inode["fan3"] == inode["fan4"]
