# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The address that the fronts share: one of them has it, and another one as soon as that does not serve.

The seconds that a move takes are printed, and not judged: a busy machine may need more of them.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from conftest import changed
from load import Load
from test_3_failures import healthy, router, wait

CLIENTS = 4


@pytest.fixture(scope="module")
def address(servers):
    """A free one in the servers' network."""
    return servers["server1"]["address"].rpartition(".")[0] + ".99"


def holder(site, server, address) -> str | None:
    """The server that has the address; None while it moves."""
    found = [
        name
        for name in site.names
        if f" {address}/32 " in server(name).check_output("ip -4 -oneline address")
    ]
    return found[0] if len(found) == 1 else None


def moved(site, server, front, address, why: str) -> str:
    """Wait until the address has moved and is served; return where it is now."""
    begun, before = time.monotonic(), holder(site, server, address)
    server(before).check_output(why, router(site, before))
    wait(lambda: healthy(front, address) and holder(site, server, address) not in (None, before))
    print(f"moved from {before} after {time.monotonic() - begun:.1f} s: {why}")
    return str(holder(site, server, address))


def test_one_front_has_the_address_and_nobody_notices_that_it_comes(
    changing, server, front, address, under_load
):
    changing.set(pd_front_virtual_address=address)
    with under_load():
        changing.deploy()
    assert changed(changing.deploy()) == {}
    assert wait(lambda: holder(changing, server, address))
    assert healthy(front, address)
    # That of the package which was installed for it stays off; the site's own is left as it was.
    enabled = "systemctl is-enabled keepalived"
    assert server("server2").run(enabled).stdout.strip() == "disabled"
    assert server("server1").run(enabled).stdout.strip() == "enabled"


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize(
    ("why", "mend"),
    [
        # The command gets the router's name, which only the second one needs.
        ("systemctl stop pd-front # %s", "systemctl start pd-front # %s"),
        ("docker stop --time 0 %s", "docker start %s"),
    ],
    ids=["the front", "its router"],
)
def test_the_address_leaves_a_server_that_does_not_serve(site, server, servers, front, address, why, mend):
    before = holder(site, server, address)
    name = router(site, before)
    now = moved(site, server, front, address, why)
    # Clients that know this address only are all answered from now on, also when the other server is back.
    with Load(replace(front, addresses=[address]), CLIENTS) as load:
        load.answered(4 * CLIENTS)
        server(before).check_output(mend, name)
        wait(lambda: healthy(front, servers[before]["address"]))
        load.answered(4 * CLIENTS)
    assert not load.result.failed, load.result
    assert holder(site, server, address) == now, "an address that has moved stays where it is"


def server_address(site, name) -> str:
    return (
        site.server(name).check_output("ip -4 -oneline address show eth0 | head -1").split()[3].split("/")[0]
    )


def test_without_it_nothing_is_left_of_it(site, server, address, under_load):
    with under_load():
        output = site.deploy()
    # The front, and the revision that is kept of it.
    assert changed(output) == dict.fromkeys(site.names, 2)
    for name in site.names:
        host = server(name)
        assert f" {address}/32 " not in host.check_output("ip -4 -oneline address")
        assert not host.file("/etc/systemd/system/pd-address.service").exists
        assert not host.file("/etc/pd_rollout/pd/front/keepalived.conf").exists
