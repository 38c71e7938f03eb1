# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Under load, every change is made without a request that fails, is cut, is empty or wrong.

In this order: what one test has changed the next changes back.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess

import pytest
from conftest import ALICE, BOB, ROOT, SECRETS, changed
from cryptography import x509
from load import Connection

CAROL = "sk-carol-of-this-test-0123456789"


def status(front, key):
    """What a new connection to each front answers to a request with this key."""

    async def ask():
        found = []
        for number in range(len(front.addresses)):
            connection = Connection(front, number)
            body = {"model": front.model, "prompt": "a", "max_tokens": 1}
            found.append((await connection.ask("/v1/completions", body, key)).status)
            connection.close()
        return found

    return asyncio.run(ask())


def serial(front, address):
    """The serial number of the certificate that a new connection sees."""
    pem = ssl.get_server_certificate((address, front.port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def other(colour):
    return "green" if colour == "blue" else "blue"


def test_keys_are_added_and_removed_at_once(changing, front, under_load):
    routers, workers = changing.routers(), changing.workers()
    assert status(front, BOB) == [200, 200]
    assert status(front, CAROL) == [401, 401]
    changing.set(pd_front_api_keys={"alice": ALICE, "carol": CAROL})
    with under_load():
        output = changing.deploy("--tags", "proxy", "-vvv", "--diff")
        assert status(front, BOB) == [401, 401]
        assert status(front, CAROL) == [200, 200]
    assert not [secret for secret in (*SECRETS, CAROL) if secret in output]
    # One task on each server; nothing was started or loaded anew.
    assert changed(output) == {"server1": 1, "server2": 1}
    assert changing.routers() == routers
    assert changing.workers() == workers


def test_a_renewed_certificate_is_seen_by_the_next_connection(changing, front, under_load):
    """And the keys are as before."""
    routers, before = changing.routers(), serial(front, front.addresses[0])
    program = ROOT / "molecule/front/files/certificates.py"
    python = str(ROOT / ".venv/bin/python")
    subprocess.run([python, str(program), str(changing.certificates)], check=True)
    with under_load():
        output = changing.deploy("--tags", "proxy")
        after = {serial(front, address) for address in front.addresses}
        assert len(after) == 1
        assert before not in after
    assert changed(output) == {"server1": 1, "server2": 1}
    assert changing.routers() == routers
    assert status(front, BOB) == [200, 200]


def test_ten_reloads_cut_nobody(site, server, under_load):
    with under_load() as load:
        for _ in range(10):
            for name in site.names:
                server(name).check_output("systemctl reload pd-front")
            load.answered(8)
    assert len(site.active()) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"pd_router_args": {"log-level": "debug"}},
        {"pd_router": "upstream"},
        {},
    ],
    ids=["other options", "the upstream script", "vllm-router again"],
)
def test_the_router_changes(changing, under_load, variables):
    before = changing.active()
    changing.set(**variables)
    with under_load():
        changing.deploy("--tags", "proxy")
        assert changing.active() == {other(*before)}
    assert len(changing.routers()) == 2
    # The one before is gone, with its launch script.
    for name in changing.names:
        scripts = changing.server(name).check_output("ls /etc/pd_rollout/pd")
        assert f"router-{next(iter(before))}.sh" not in scripts.split()
