# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The real proxy of the image runs with the plan's backends."""

from __future__ import annotations

import json

testinfra_hosts = ["server1"]

CONVERGE = ("molecule/serving/converge.yml", "--tags", "proxy")


def inspect(host):
    return json.loads(host.check_output("docker inspect pd-proxy"))[0]


def test_the_health_check_reports_the_planned_backends(host, servers):
    url = f"http://{servers['server1']['address']}:8005/healthcheck"
    answer = json.loads(host.check_output("curl -fsS --noproxy '*' %s", url))
    assert (answer["prefill_instances"], answer["decode_instances"]) == (1, 1)


def test_it_is_the_script_of_the_image(host):
    assert "load_balance_proxy_server_example.py" in host.check_output("docker top pd-proxy")
    assert host.file("/etc/pd_rollout/pd/proxy.sh").mode == 0o700


def test_it_has_no_device_and_no_more_rights(host):
    seen = inspect(host)["HostConfig"]
    assert not seen["Devices"]
    assert not seen["Privileged"]


def test_a_stopped_proxy_is_started_again(host, play):
    host.run_expect([0], "docker stop -t 1 pd-proxy")
    assert play(*CONVERGE).returncode == 0
    assert inspect(host)["State"]["Running"]


def test_a_proxy_that_cannot_start_fails_the_run_with_its_reason(host, play, sim, servers):
    host.run_expect([0], "docker rm -f pd-proxy")
    address = servers["server1"]["address"]
    sim("fault", "server1", "port_taken", "port=8005", f"address={address}")
    try:
        done = play(*CONVERGE)
    finally:
        sim("heal", "server1")
    assert done.returncode != 0
    assert "proxy on server1 failed" in done.stdout
    assert "address already in use" in done.stdout
    assert play(*CONVERGE).returncode == 0
