# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Running it again: nothing changes, only what must is made anew, and what was broken is repaired.

Each test leaves the deployment as it was: sound.
"""

from __future__ import annotations

import json
import re

import pytest

DEPLOY = "playbooks/deploy_1p1d.yml"


@pytest.fixture
def state(plan, server):
    """What of the deployment runs since when: (server, container) → time of the start."""

    def look():
        return {
            (name, container): json.loads(server(name).check_output("docker inspect %s", container))[0][
                "State"
            ]["StartedAt"]
            for name in plan["hosts"]
            for container in server(name).check_output("docker ps --format '{{.Names}}'").split()
        }

    return look


def changed(done):
    """The hosts for which a play has changed something."""
    return {m[1] for m in re.finditer(r"^(\S+)\s+: ok=\d+\s+changed=([1-9]\d*)", done.stdout, re.MULTILINE)}


def sound(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def other_flag(tmp_path):
    """A second inventory beside the first, that changes one flag of the decoder."""
    source = tmp_path / "other_flag.yml"
    source.write_text("decoder:\n  vars:\n    pd_engine_args:\n      max-num-seqs: 8\n")
    return ("--inventory", str(source))


def test_nothing_changes(play, state):
    before = state()
    assert changed(sound(play(DEPLOY))) == set()
    assert state() == before


def test_check_mode_shows_what_would_change(play, state, other_flag):
    before = state()
    assert changed(sound(play(DEPLOY, "--check", "--diff"))) == set()
    done = sound(play(DEPLOY, "--check", "--diff", *other_flag))
    assert changed(done) == {"decode1"}
    assert re.search(r"^-\s+--max-num-seqs 4", done.stdout, re.MULTILINE)
    assert re.search(r"^\+\s+--max-num-seqs 8", done.stdout, re.MULTILINE)
    assert state() == before


def test_one_changed_flag_of_the_decoder_recreates_the_decoder_alone(play, state, other_flag):
    before = state()
    sound(play(DEPLOY, *other_flag))
    after = state()
    assert {key for key in after if after[key] != before[key]} == {("decode1", "pd-decoder")}
    sound(play(DEPLOY))


def test_a_container_stopped_by_hand_is_repaired_with_its_group(play, state, server):
    before = state()
    server("prefill2").check_output("docker stop -t 1 pd-prefiller")
    sound(play(DEPLOY))
    after = state()
    assert {key for key in after if after[key] != before[key]} == {
        ("prefill1", "pd-prefiller"),
        ("prefill2", "pd-prefiller"),
    }


def test_a_rebooted_server_is_repaired(play, state, sim):
    before = state()
    sim("restart", "prefill1")
    sound(play(DEPLOY))
    after = state()
    assert after.keys() == before.keys()
    assert after[("decode1", "pd-decoder")] == before[("decode1", "pd-decoder")]
    assert changed(sound(play(DEPLOY))) == set()


def test_a_changed_key_restarts_what_reads_it_and_is_not_shown(play, state, tmp_path):
    before = state()
    source = tmp_path / "key.yml"
    source.write_text("pd_api_key: molecule-another\n")
    done = sound(play(DEPLOY, "--diff", "-vvv", "-e", f"@{source}"))
    assert "molecule-another" not in done.stdout + done.stderr
    after = state()
    assert all(after[key] != before[key] for key in before)
    sound(play(DEPLOY))


def test_an_engine_that_crashes_at_start_fails_the_run_at_once_with_its_reason(play, server, sim):
    server("decode1").check_output("docker rm -f pd-decoder")
    sim("fault", "decode1", "engine_crash_start", "message=the memory of chip 3 is broken")
    try:
        done = play(DEPLOY)
    finally:
        sim("heal", "decode1")
    assert done.returncode != 0
    # At once: while it waits for its next attempt, or makes that. Seconds would measure the machine.
    at_once = (
        r"decoder on decode1 failed: (it ended and was restarted \(1 time\)|its container is restarting)"
    )
    assert re.search(at_once, done.stdout), done.stdout
    assert "the memory of chip 3 is broken" in done.stdout
    sound(play(DEPLOY))


def test_an_interrupted_run_is_completed_by_the_next(play, server):
    server("decode1").check_output("docker rm -f pd-decoder")
    server("prefill1").check_output("rm -f /etc/pd_rollout/pd/prefiller.sh")
    sound(play(DEPLOY))
    assert changed(sound(play(DEPLOY))) == set()
