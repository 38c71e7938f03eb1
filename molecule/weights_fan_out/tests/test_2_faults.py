"""Faults in the middle of the fan-out: what is said, what stays, and that the next run goes on with it."""

from __future__ import annotations

import hashlib
import re

MODEL = "/srv/models/deepseek"
STAGING = "/srv/models/.deepseek.incoming"
SHARD = f"{MODEL}/model-00012-of-00012.safetensors"
BYTES = 12 * 2_000_000


def sent_by(host) -> int:
    return int(host.check_output("cat /sys/class/net/eth0/statistics/tx_bytes"))


def test_a_transfer_cut_at_60_percent_is_gone_on_with(server, servers, lacking, during, run):
    lacking("fan2")
    first, second = server("fan1"), server("fan2")
    cut = f"INPUT --source {servers['fan1']['address']} -j DROP"
    try:
        outcome = during(second, 0.6 * BYTES / 1e6, lambda: second.check_output(f"iptables -I {cut}"))
    finally:
        second.check_output(f"iptables -D {cut}")
    assert not outcome.good
    assert outcome.codes == ["weights-source-lost"], outcome.output
    assert "run again: the transfer resumes" in " ".join(outcome.output.split())
    rates = [float(rate) for rate in re.findall(r"([\d.]+) MB/s", outcome.output)]
    assert rates, outcome.output
    # The limit of `during` is 1 MB/s; without one it is a hundred.
    assert max(rates) < 3, outcome.output
    assert not second.file(MODEL).exists
    before = sent_by(first)
    again = run()
    assert again.good, again.output
    assert sent_by(first) - before < 0.5 * BYTES
    assert second.file(SHARD).exists


def test_when_a_source_dies_the_next_takes_from_the_one_before(server, lacking, during, run):
    lacking("fan2", "fan3")
    second, third = server("fan2"), server("fan3")
    kill = (
        "python3 -c 'import glob, json, os; "
        '[os.kill(json.load(open(name))["pid"], 9) for name in glob.glob("/run/pd_rollout/*/process.json")]\''
    )
    outcome = during(third, 5, lambda: second.check_output(kill))
    assert not outcome.good
    assert "weights-transfer-gone" in outcome.codes
    assert third.file(SHARD).exists, outcome.output
    assert not second.file(MODEL).exists
    assert second.run("pgrep -x rsync").stdout == ""
    again = run()
    assert again.good, again.output
    assert second.file(SHARD).exists


def test_a_disk_that_fills_up_loses_nothing(server, lacking, during, run):
    lacking("fan3")
    third = server("fan3")
    third.check_output("mount -t tmpfs -o size=40m tmpfs /srv/models")
    try:
        outcome = during(third, 10, lambda: third.run("dd if=/dev/zero of=/srv/models/other bs=1M"))
        assert not outcome.good
        assert outcome.codes == ["weights-disk-full"], outcome.output
        assert re.search(r"seen: .*GB free", outcome.output)
        assert int(third.check_output(f"du -sb {STAGING} | cut -f1")) > 8e6
        # Looked at before anything is copied, too.
        assert run().codes == ["weights-disk-full"]
        third.check_output("rm /srv/models/other")
        again = run()
        assert again.good, again.output
        assert third.file(SHARD).exists
    finally:
        third.check_output("umount /srv/models")


def test_weights_that_change_under_way_get_no_name(server, lacking, during, run):
    lacking("fan2", "fan3")
    first = server("fan1")
    outcome = during(server("fan3"), 4, lambda: first.check_output(f"touch {SHARD}"))
    assert not outcome.good
    assert outcome.codes == ["weights-changed"] * 2, outcome.output
    for name in ("fan2", "fan3"):
        assert not server(name).file(MODEL).exists
    again = run()
    assert again.good, again.output


def test_a_source_that_cannot_be_read_is_a_finding(server, lacking, run):
    lacking("fan2", "fan3")
    first = server("fan1")
    first.check_output(f"mv {SHARD} {SHARD}.away && ln -s /mnt/nowhere {SHARD}")
    try:
        outcome = run()
    finally:
        first.check_output(f"mv {SHARD}.away {SHARD}")
    assert not outcome.good
    assert outcome.codes[:2] == ["weights-shard-unreadable", "weights-no-source"], outcome.output
    assert not server("fan2").file(STAGING).exists
    assert run().good


def test_a_damaged_server_gets_only_what_is_damaged(server, run):
    """What a killed run has left goes on all servers, also where the weights are whole."""
    first, second, third = server("fan1"), server("fan2"), server("fan3")
    left = f"/run/pd_rollout/weights-{hashlib.sha256(MODEL.encode()).hexdigest()[:12]}"
    sign = "/srv/models/.pd_rollout-probe-0123456789ab-fan3"
    third.check_output(f"mkdir -p -m 700 {left} && touch {left}/secrets {sign}")
    second.check_output(f"truncate -s 1000000 {SHARD}")
    second.check_output(f"rm {MODEL}/model-00003-of-00012.safetensors")
    before = sent_by(first)
    outcome = run()
    assert outcome.good, outcome.output
    assert sent_by(first) - before < 0.3 * BYTES
    assert not third.file(left).exists
    assert not third.file(sign).exists
    assert first.check_output(f"sha256sum {SHARD}") == second.check_output(f"sha256sum {SHARD}")


def test_two_different_models_are_a_finding(server, run):
    second = server("fan2")
    other = f"{MODEL}/tokenizer.json"
    second.check_output(f"cp -p {other} /tmp/kept && echo '{{}}' > {other}")
    try:
        outcome = run()
    finally:
        second.check_output(f"mv /tmp/kept {other}")
    assert not outcome.good
    assert outcome.codes == ["weights-differ"], outcome.output
