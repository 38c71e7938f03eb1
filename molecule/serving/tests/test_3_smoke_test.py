# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The smoke test says what is wrong with a deployment; that it passes on a sound one, converge has shown.

Each case mends what it has broken.
"""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["server2"]

CONVERGE = "molecule/serving/converge.yml"


@pytest.fixture
def restarted(server):
    """Start the engines anew, as they read some things only then."""

    def restart():
        server("server1").run_expect([0], "docker rm -f pd-prefill")
        server("server2").run_expect([0], "docker rm -f pd-prefill pd-decode")

    return restart


def test_without_hccn_conf_the_text_gives_it_away(host, play, sim, restarted):
    restarted()
    # An empty file: the container starts, and the engine finds no device address in it.
    host.run_expect([0], "cp -a /etc/hccn.conf /root/hccn.conf && : > /etc/hccn.conf")
    try:
        done = play(CONVERGE)
    finally:
        host.run_expect([0], "cat /root/hccn.conf > /etc/hccn.conf")
    assert done.returncode != 0
    assert "The decoder reads a wrong KV cache" in done.stdout
    assert "/etc/hccn.conf" in done.stdout
    assert "Last log lines of pd-decode on server2" in done.stdout
    restarted()
    done = play(CONVERGE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_decoder_that_fails_is_told_although_the_proxy_says_200(host, play):
    host.run_expect([0], "docker pause pd-decode && docker unpause pd-decode && docker stop -t 1 pd-decode")
    done = play(CONVERGE, "--tags", "all", "--skip-tags", "engine")
    assert done.returncode != 0
    assert (
        "is answered with status 200, but the body is empty" in done.stdout
        or "has no complete answer" in done.stdout
    )
    assert "Asked directly, the prefiller" in done.stdout
    assert "gives no complete answer" in done.stdout
    assert "Check whether the engine at" in done.stdout
    done = play(CONVERGE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unexpected_answer_fails_and_a_request_too_long_is_told_by_the_prefiller(play, tmp_path):
    """Upstream's proxy says 500 for the second."""
    variables = {"smoke_test_expect": "^nothing.like.this$", "smoke_test_chat_prompt": "word " * 150_000}
    (tmp_path / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
    done = play(CONVERGE, "-e", f"@{tmp_path / 'vars.json'}")
    assert done.returncode != 0
    assert "does not match" in done.stdout
    assert "fails with HTTP 500" in done.stdout
    assert "gives HTTP 400" in done.stdout
    assert "Correct the request" in done.stdout
