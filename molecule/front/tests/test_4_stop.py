# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Only root can read the secrets; stop.yml removes the front, and leaves the site's own HAProxy alone."""

from __future__ import annotations

import hashlib
import re

import openai
import pytest
from conftest import ALICE, BOB, SECRETS, changed

FRONT = "/etc/pd_rollout/pd/front"


def test_a_key_s_limit_is_an_error_that_clients_understand(changing, client):
    changing.set(pd_front_requests_per_minute=20)
    changing.deploy("--tags", "proxy")
    with pytest.raises(openai.RateLimitError, match="may send 20 requests in a minute") as seen:
        for _ in range(25):
            client(BOB).models.list()
    assert seen.value.code == "rate_limit_exceeded"
    assert int(seen.value.response.headers["retry-after"]) > 0
    # Another key has a limit of its own.
    assert client().models.list().data


def test_a_second_run_changes_nothing_and_shows_no_secret(site):
    # Without the limit.
    site.deploy("--skip-tags", "check")
    output = site.deploy("-vvv", "--diff")
    assert changed(output) == {}
    assert not [secret for secret in SECRETS if secret in output]


@pytest.mark.parametrize("name", ["server1", "server2"])
def test_secrets_are_root_s_alone(name, server):
    host = server(name)
    shown = {
        "the journal": host.check_output("journalctl --no-pager --all"),
        "ps": host.check_output("ps -eww -o args"),
        "Docker": host.check_output("docker inspect $(docker ps -aq)"),
        "the routers' logs": host.check_output("for one in $(docker ps -aq); do docker logs $one 2>&1; done"),
        "HAProxy's environment": host.check_output(
            "cat $(printf '/proc/%s/environ ' $(pgrep haproxy)) | tr '\\0' ' '"
        ),
        "HAProxy's configuration": host.check_output(
            f"cat {FRONT}/haproxy.cfg {FRONT}/keys.map {FRONT}/router.map"
        ),
    }
    assert not [(where, secret) for where, text in shown.items() for secret in SECRETS if secret in text]
    # What clients ask is nobody's business either.
    assert "asks the same again" not in shown["the journal"]
    keys = dict(line.split() for line in host.check_output(f"cat {FRONT}/keys.map").splitlines())
    assert keys == {
        hashlib.sha256(key.encode()).hexdigest(): who for key, who in ((ALICE, "alice"), (BOB, "bob"))
    }
    modes = host.check_output(f"find {FRONT} -printf '%u %m\\n' | sort -u").splitlines()
    assert modes == ["root 600", "root 700"]


def test_the_site_s_own_haproxy_has_run_untouched(server, servers):
    host = server("server1")
    properties = host.check_output("systemctl show haproxy --timestamp=unix")
    since = int(re.search(r"^ActiveEnterTimestamp=@(\d+)", properties, re.MULTILINE)[1])
    first = float(host.check_output("journalctl -u pd-front --no-pager -o short-unix | head -n 1").split()[0])
    assert since < first
    assert host.run("journalctl -u haproxy --no-pager | grep -i reload").stdout == ""
    assert host.service("haproxy").is_enabled
    address = servers["server1"]["address"]
    assert host.check_output(f"curl -fsS --noproxy '*' http://{address}:8080/") == "the site"


def test_the_package_s_service_is_off_where_the_front_has_installed_it(server):
    assert not server("server2").service("haproxy").is_running
    assert not server("server2").service("haproxy").is_enabled


def test_stop_removes_front_unit_and_routers_and_nothing_else(play, server, servers):
    done = play("playbooks/stop.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("server1", "server2"):
        host = server(name)
        # With the revisions.
        assert not host.file("/etc/pd_rollout/pd").exists
        assert not host.file("/etc/systemd/system/pd-front.service").exists
        assert not host.file("/run/pd-front").exists
        assert host.check_output("docker ps -aq --filter label=pd_rollout.deployment") == ""
        assert not host.socket(f"tcp://{servers[name]['address']}:8443").is_listening
    assert server("server2").run("pgrep haproxy").stdout == ""
    address = servers["server1"]["address"]
    assert server("server1").check_output(f"curl -fsS --noproxy '*' http://{address}:8080/") == "the site"
    assert changed(play("playbooks/stop.yml").stdout) == {}
