# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""What fails takes with it what is in flight there; everything else is answered, and it comes back by itself.

Clients know both fronts: they go to the other one if a connection is refused or a front has no router (503).
"""

from __future__ import annotations

import asyncio
import json
import re
import time

import openai
import pytest
from conftest import changed, logs
from load import ANSWER_TIMEOUT, Connection, Load

CLIENTS = 8


def wait(until, seconds=ANSWER_TIMEOUT):
    """Wait until something is the case, however slow the machine is."""
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)
    return found


def healthy(front, address) -> bool:
    """What a balancer hears of a front."""

    async def ask() -> bool:
        reader, writer = await asyncio.open_connection(
            address, front.port, ssl=front.context(), server_hostname=front.name
        )
        writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        return said.startswith(b"HTTP/1.1 200 ")

    try:
        return asyncio.run(asyncio.wait_for(ask(), 5))
    except OSError:
        return False


def router(site, name):
    """The container of the router that serves on a server."""
    return next(container for host, container in site.routers() if host == name)


def kill_router(site, server):
    name = router(site, "server1")
    server("server1").check_output("kill -9 $(docker inspect --format {{.State.Pid}} %s)", name)


def kill_front(site, server):
    """Master and worker at once."""
    server("server1").check_output(
        "systemctl kill --kill-whom=all --signal=KILL pd-front 2>&1 || systemctl kill --signal=KILL pd-front"
    )


@pytest.mark.parametrize("kill", [kill_router, kill_front])
def test_one_of_two_is_killed_and_comes_back(site, server, front, kill):
    """At most one request of each client was in flight there."""
    with Load(front, CLIENTS, elsewhere=True) as load:
        load.answered(4 * CLIENTS)
        kill(site, server)
        load.answered(10 * CLIENTS)
        lost = load.result.failed
        wait(lambda: healthy(front, front.addresses[0]))
        load.answered(10 * CLIENTS)
    # Half of the clients were there.
    assert lost <= CLIENTS // 2, f"{load.result}\n{logs(site)}"
    assert load.result.failed == lost, f"{load.result}\n{logs(site)}"
    assert all("an empty answer" not in what for what in load.result.wrong), load.result


@pytest.mark.usefixtures("unguarded")
def test_a_dead_decoder_gets_no_more_requests_and_is_served_again(site, server, front, servers):
    """Until the routers know, each request for it is an error; none is an empty answer."""
    api = f"http://{servers['server2']['address']}:8004"

    def known(healthy: bool) -> bool:
        """Whether both routers know what has become of it."""
        for name in site.names:
            port = {"blue": 8005, "green": 8006}[router(site, name).rpartition("-")[2]]
            said = server(name).check_output(f"curl -fsS --noproxy '*' http://127.0.0.1:{port}/workers")
            worker = next(one for one in json.loads(said)["workers"] if one["url"] == api)
            if worker["is_healthy"] != healthy:
                return False
        return True

    with Load(front, CLIENTS) as load:
        load.answered(4 * CLIENTS)
        server("server2").check_output("docker kill pd-decode_b")
        wait(lambda: known(False))
        # What was sent to it before is over.
        load.answered(2 * CLIENTS)
        lost = load.result.failed
        load.answered(10 * CLIENTS)
        assert load.result.failed == lost, f"{load.result}\n{logs(site)}"
        server("server2").check_output("docker start pd-decode_b")
        wait(lambda: known(True))
        load.answered(10 * CLIENTS)
    assert load.result.failed == lost, f"{load.result}\n{logs(site)}"
    honest = r'ValueError: 5\d\d b.\{"error":|Broken: within an answer with status 200'
    assert all(re.match(honest, what) for what in load.result.wrong), load.result


@pytest.mark.usefixtures("unguarded")
def test_without_a_router_the_front_says_so(site, server, front, client):
    name = router(site, "server1")
    server("server1").check_output("docker stop -t 2 %s", name)

    async def ask():
        connection = Connection(front)
        body = {"model": front.model, "prompt": "a", "max_tokens": 1}
        found = await connection.ask("/v1/completions", body)
        connection.close()
        return found

    try:
        wait(lambda: not healthy(front, front.addresses[0]))
        answer = asyncio.run(ask())
        with pytest.raises(openai.InternalServerError, match="not available at the moment") as seen:
            client().completions.create(model=front.model, prompt="a", max_tokens=1)
    finally:
        server("server1").check_output("docker start %s", name)
    assert seen.value.status_code == answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["code"] == "service_unavailable"
    wait(lambda: healthy(front, front.addresses[0]))


def test_a_rebooted_server_serves_again_by_itself(site, server, sim, front):
    sim("restart", "server2")
    wait(lambda: healthy(front, front.addresses[1]), 3 * ANSWER_TIMEOUT)
    # The routers list its engines again.
    well = "pd-guard status"
    wait(lambda: all(server(name).run(well).rc == 0 for name in site.names), 3 * ANSWER_TIMEOUT)
    assert changed(site.deploy("--skip-tags", "check")) == {}
