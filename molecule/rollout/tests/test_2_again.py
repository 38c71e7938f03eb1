# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Running it again: nothing changes, only what must is made anew, and what was broken is repaired.

In this order: what one test has changed the next changes back, and the last sees that nothing is left of it.
"""

from __future__ import annotations

import json
import re

import pytest

DEPLOY = "playbooks/deploy_1p1d.yml"
# The stage that a test is about, where the others have nothing to do with it.
ENGINES = (DEPLOY, "--tags", "engine")
# With one prefiller and one decoder every change of what serves is an outage.
CONSENT = ("-e", "deploy_accept_outage=true")


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


def test_an_outage_needs_consent(play, state, other_flag):
    before = state()
    done = play(DEPLOY, *other_flag)
    assert done.returncode != 0
    assert "change-outage" in done.stdout
    assert "there is no front" in done.stdout
    assert "-e deploy_accept_outage=true" in done.stdout
    # It ends before anything is provided or changed.
    assert "PLAY [Provide the Docker Engine and the image]" not in done.stdout
    assert changed(done) == set()
    assert state() == before


def test_one_changed_flag_of_the_decoder_recreates_the_decoder_alone(play, state, other_flag):
    before = state()
    sound(play(*ENGINES, *other_flag, *CONSENT))
    after = state()
    assert {key for key in after if after[key] != before[key]} == {("decode1", "pd-decoder")}


def test_a_changed_key_restarts_what_reads_it_and_is_not_shown(play, state, tmp_path):
    """The decoder has its flag of before again."""
    before = state()
    source = tmp_path / "key.yml"
    source.write_text("pd_api_key: molecule-another\n")
    done = sound(play(DEPLOY, "--diff", "-vvv", "-e", f"@{source}", *CONSENT))
    assert "molecule-another" not in done.stdout + done.stderr
    after = state()
    assert all(after[key] != before[key] for key in before)


def test_an_engine_that_crashes_at_start_fails_the_run_at_once_with_its_reason(play, server, sim):
    """While all others get the key of before again."""
    server("decode1").check_output("docker rm -f pd-decoder")
    sim("fault", "decode1", "engine_crash_start", "message=the memory of chip 3 is broken")
    try:
        done = play(*ENGINES)
    finally:
        sim("heal", "decode1")
    # First of all: the next tests want a sound deployment.
    sound(play(DEPLOY))
    assert done.returncode != 0
    # While a run has the lock, nobody starts it again.
    assert "decoder on decode1 failed: its container is exited, exit code 1" in done.stdout
    assert "the memory of chip 3 is broken" in done.stdout


def test_a_group_that_has_lost_a_node_is_repaired_by_the_first_run(play, state, server):
    """Its head crashed and stays dead, as its guards do. Somebody has started its other node again, which
    runs in vain."""
    before = state()
    for name in ("prefill1", "prefill2"):
        server(name).check_output("systemctl stop pd-guard")
    server("prefill1").check_output("kill -9 $(docker inspect --format {{.State.Pid}} pd-prefiller)")
    server("prefill2").check_output("docker restart -t 1 pd-prefiller")

    check = play("playbooks/check.yml")
    assert check.returncode != 0
    assert re.search(r"^error +host-deployed-stopped +prefill1 ", check.stdout, re.MULTILINE), check.stdout
    # It waits for its head, and gives up some time.
    other = r"^error +host-deployed-(apart|stopped) +prefill2 "
    assert re.search(other, check.stdout, re.MULTILINE), check.stdout
    assert re.search(r"^error +host-guard-stopped +prefill1, prefill2 ", check.stdout, re.MULTILINE)
    assert "decoder is not running" not in check.stdout

    part = play(*ENGINES, "--limit", "prefill2")
    assert part.returncode != 0
    assert "prefill1 is not in this run" in re.sub(r"\s+", " ", part.stdout)
    assert "TASK [ascend.pd_rollout.engine : Wait until the engines are ready]" not in part.stdout

    sound(play(DEPLOY))
    after = state()
    assert {key for key in after if after[key] != before[key]} == {
        ("prefill1", "pd-prefiller"),
        ("prefill2", "pd-prefiller"),
    }
    assert all(server(name).service("pd-guard").is_running for name in ("prefill1", "prefill2"))


def awaited(server, name, condition):
    """Wait until a command succeeds."""
    server(name).check_output(f"timeout 120 sh -c 'until {condition}; do sleep 0.2; done' 2>&1")


def healthy(server, name, url):
    """Wait until something answers there."""
    awaited(server, name, f"curl -fsS -m 2 -o /dev/null --noproxy '*' {url}/health")


def api_of(plan, name):
    """Where the engine of a server answers."""
    api = plan["hosts"][name]["engines"][0]["api"]
    return f"http://{api['host']}:{api['port']}"


def test_what_is_alone_comes_back_by_itself(plan, state, server, sim):
    """An engine that dies while it serves exits with 0, and so it does when the Docker Engine stops."""
    before = state()["decode1", "pd-decoder"]
    url = api_of(plan, "decode1")
    body = json.dumps({"model": plan["model"]["served_name"], "prompt": "a", "max_tokens": 2})
    head = "-H 'Content-Type: application/json' -H 'Authorization: Bearer molecule-8fb1c2d4e6a7'"
    again = "docker inspect --format {{.State.Running}}-{{.State.StartedAt}} pd-decoder"
    sim("fault", "decode1", "engine_crash_after", "requests=0")
    try:
        # Unless a request of the guard has come first.
        server("decode1").run(f"curl -sS -m 60 --noproxy '*' {head} -d '{body}' {url}/v1/completions")
    finally:
        sim("heal", "decode1")
    awaited(server, "decode1", f"{again} | grep true | grep -qv {before}")
    healthy(server, "decode1", url)
    server("decode1").check_output("systemctl restart docker >&2")
    healthy(server, "decode1", url)


def test_a_group_comes_back_by_itself_after_the_reboot_of_one_of_its_servers(play, plan, state, server, sim):
    before = state()
    sim("restart", "prefill1")
    healthy(server, "prefill1", api_of(plan, "prefill1"))
    after = state()
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] == before[key]} == {("decode1", "pd-decoder")}
    assert changed(sound(play(DEPLOY))) == set()


def test_an_interrupted_run_is_completed_by_the_next(play, plan, server):
    server("decode1").check_output("docker rm -f pd-decoder")
    server("prefill1").check_output("rm -f /etc/pd_rollout/pd/prefiller.sh")
    # Somebody has changed the list of the proxy: it runs, and is not as planned either.
    proxy, prefiller = plan["hosts"]["prefill1"]["proxy"], plan["proxy"]["prefillers"][0]
    url = f"http://{proxy['host']}:{proxy['port']}/remove_worker"
    backend = f"url=http://{prefiller['host']}:{prefiller['port']}"
    server("prefill1").check_output("curl -fsS --noproxy '*' -X POST %s", f"{url}?{backend}")
    done = sound(play(DEPLOY))
    assert "prefill1 proxy is restarted: its list of backends has been changed" in done.stdout
    assert changed(sound(play(DEPLOY))) == set()
