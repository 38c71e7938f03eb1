# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The engines of the plan run on their servers as the plan says, and the waits tell what is wrong."""

from __future__ import annotations

import json
import re

import pytest

# Nothing of the other parts of the deployment.
CONVERGE = ("molecule/serving/converge.yml", "--tags", "engine")

# Container of an instance on a server, with the chips that it has.
EXPECTED = {
    ("server1", "pd-prefill"): range(8),
    ("server2", "pd-prefill"): range(8),
    ("server2", "pd-decode"): range(8, 16),
}
PROXY = {"server1": {"pd-proxy"}, "server2": set()}


def names(host):
    return set(host.check_output("docker ps --format '{{.Names}}'").split())


def inspect(host, container):
    return json.loads(host.check_output("docker inspect %s", container))[0]


@pytest.fixture
def here(host):
    return {container for server, container in EXPECTED if server == host.backend.host.name}


def test_the_planned_containers_run(host, here):
    assert names(host) == here | PROXY[host.backend.host.name]


def test_a_container_has_its_chips_and_no_more_rights(host, here):
    for container in here:
        seen = inspect(host, container)["HostConfig"]
        devices = {device["PathOnHost"] for device in seen["Devices"]}
        chips = EXPECTED[(host.backend.host.name, container)]
        assert {d for d in devices if d.removeprefix("/dev/davinci").isdigit()} == {
            f"/dev/davinci{n}" for n in chips
        }
        assert {"/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"} <= devices
        assert not seen["Privileged"]
        assert seen["NetworkMode"] == "host"
        alone = container == "pd-decode"
        policy = "unless-stopped" if alone else "no"
        assert seen["RestartPolicy"] == {"Name": policy, "MaximumRetryCount": 0}
        assert seen["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "100m", "max-file": "5"}}


def test_the_images_entrypoint_stays_in_effect(host, here):
    image = json.loads(host.check_output("docker inspect ascend/vllm-ascend:v0.13.0-a3"))[0]
    for container in here:
        assert inspect(host, container)["Config"]["Entrypoint"] == image["Config"]["Entrypoint"]


def test_the_scripts_are_roots_alone(host, here):
    directory = host.file("/etc/pd_rollout/pd")
    assert (directory.user, directory.mode) == ("root", 0o700)
    for container in here:
        script = host.file(f"/etc/pd_rollout/pd/{container.removeprefix('pd-')}.sh")
        assert (script.user, script.mode) == ("root", 0o700)
        assert "exec vllm serve" in script.content_string


def test_what_is_not_planned_is_removed(server, play):
    host = server("server2")
    host.run_expect(
        [0],
        "docker run -d --name pd-old --label pd_rollout.deployment=pd --label pd_rollout.role=decoder"
        " --label pd_rollout.instance=old --restart no ascend/vllm-ascend:v0.13.0-a3 sleep 600",
    )
    host.run_expect([0], "docker run -d --name others ascend/vllm-ascend:v0.13.0-a3 sleep 600")
    done = play(*CONVERGE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert names(host) == {"pd-prefill", "pd-decode", "others"}
    host.run_expect([0], "docker rm -f others")


def test_the_group_starts_again_with_a_lost_node_and_the_decoder_is_left_alone(server, play):
    host, other = server("server1"), server("server2")
    before = {name: inspect(other, name)["State"]["StartedAt"] for name in ("pd-prefill", "pd-decode")}
    host.run_expect([0], "docker stop -t 1 pd-prefill")
    done = play(*CONVERGE)
    assert done.returncode == 0, done.stdout + done.stderr
    after = {name: inspect(other, name)["State"]["StartedAt"] for name in before}
    assert after["pd-prefill"] != before["pd-prefill"]
    assert after["pd-decode"] == before["pd-decode"]
    assert "server1 prefill rank 0: ready" in done.stdout
    assert "server2 prefill rank 1: ready" in done.stdout


def test_an_engine_that_crashes_at_start_is_stopped_at_once_with_its_reason(server, play, sim):
    host = server("server2")
    host.run_expect([0], "docker rm -f pd-decode")
    sim("fault", "server2", "engine_crash_start", "message=the memory of chip 3 is broken")
    try:
        done = play(*CONVERGE)
    finally:
        sim("heal", "server2")
    assert done.returncode != 0
    # At once: while it waits for its next attempt, or makes that. Seconds would measure the machine.
    at_once = (
        r"decode on server2 failed: (it ended and was restarted \(\d+ times?\)|its container is restarting)"
    )
    assert re.search(at_once, done.stdout), done.stdout
    assert "the memory of chip 3 is broken" in done.stdout
    # It is not left to be started without end.
    assert "and is stopped now" in done.stdout
    assert inspect(host, "pd-decode")["State"]["Status"] == "exited"


def test_a_group_that_does_not_form_is_told(server, play, sim, servers):
    host = server("server1")
    sim("fault", "server1", "network_cut", f"to={servers['server2']['address']}")
    try:
        host.run_expect([0], "docker stop -t 1 pd-prefill")
        done = play(*CONVERGE, "-e", "engine_ready_timeout=30")
    finally:
        sim("heal", "server1")
    assert done.returncode != 0
    assert "The group of prefill has not formed" in done.stdout
    done = play(*CONVERGE)
    assert done.returncode == 0, done.stdout + done.stderr
