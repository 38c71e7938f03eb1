# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Engines that fail under load are out of the list within seconds, and back without a hand.

Only requests that were sent before an engine has left the list may fail. Nothing here bounds the time: what
was seen is printed, and `scripts/bench guard` measures it.
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from conftest import ROOT, changed, engines
from load import Load
from test_3_failures import wait

CLIENTS, PAUSE = 8, 0.35
# Seconds in which anything here happens, however slow the machine is.
LATEST = 240.0
KILL = "kill -9 $(docker inspect --format {{.State.Pid}} %s)"


class Guards:
    """What the guards of all servers say."""

    def __init__(self, site, server) -> None:
        self.names, self.server = site.names, server

    def status(self, name: str) -> dict:
        said = self.server(name).run("pd-guard status --json")
        return json.loads(said.stdout)[0] if said.rc in (0, 1) else {}

    def well(self) -> bool:
        """Whether every engine serves, is listed everywhere, and no rollout runs."""
        return all(self.server(name).run("pd-guard status").rc == 0 for name in self.names) and not any(
            self.status(name)["locked"] for name in self.names
        )

    def since(self, begin: float) -> list[tuple[str, float, str]]:
        """What has happened since a time: (server, seconds, what)."""
        return [
            (name, event["at"] - begin, event["what"])
            for name in self.names
            for event in self.status(name)["events"]
            if event["at"] >= begin
        ]

    def when(self, begin: float, what: str) -> list[float]:
        """After how many seconds something has happened, on each server where it has."""
        return [after for _, after, event in self.since(begin) if event.startswith(what)]


@pytest.fixture(scope="module", autouse=True)
def restored(site):
    """The inventory is afterwards as before; what was deployed, stays."""
    yield
    site.restore()


@pytest.fixture
def guards(site, server):
    found = Guards(site, server)
    wait(found.well, LATEST)
    yield found
    wait(found.well, LATEST)


@pytest.fixture
def falling(front, guards, capsys):
    """`falling(fault, name)`: an engine fails under load, and is back. Returns the events."""

    def run(fault, name, heal=lambda: None, elsewhere=False):
        with Load(front, CLIENTS, pause=PAUSE, elsewhere=elsewhere) as load:
            load.answered(2 * CLIENTS)
            begin = time.time()
            fault()
            wait(lambda: len(guards.when(begin, f"{name} is out of the list")) == 2, LATEST)
            heal()
            wait(lambda: len(guards.when(begin, f"{name} is in the list again")) >= 2, LATEST)
            wait(guards.well, LATEST)
            load.answered(4 * CLIENTS)
        out, back = (
            guards.when(begin, f"{name} is out of"),
            guards.when(begin, f"{name} is in the list again"),
        )
        lost = [sent - begin for sent in load.result.sent]
        with capsys.disabled():
            last = f"{max(lost):.1f}" if lost else "-"
            print(
                f"\n{name}: {len(lost)} requests lost, the last sent after {last} s; "
                f"out after {max(out):.1f} s, back after {max(back):.1f} s"
            )
        # None was sent to it once it was out of the list.
        assert all(sent <= max(out) for sent in lost), (load.result, guards.since(begin))
        return guards.since(begin)

    return run


def test_an_engine_that_answers_garbage(sim, falling):
    """With vllm-router, whose own checks find nothing wrong with it."""
    falling(
        lambda: sim("fault", "server1", "engine_garbage", "instance=decode_a"),
        "decode_a",
        lambda: sim("heal", "server1"),
    )


def test_the_docker_engine_is_restarted(server, falling):
    falling(lambda: server("server1").check_output("systemctl restart docker"), "decode_a", elsewhere=True)


def test_a_server_loses_its_power(front, servers, sim, guards, capsys):
    """Its front and its router go with it."""
    with Load(front, CLIENTS, pause=PAUSE, elsewhere=True) as load:
        load.answered(2 * CLIENTS)
        begin = time.time()
        subprocess.run(["docker", "kill", servers["server2"]["container"]], check=True, capture_output=True)
        wait(lambda: "decode_b" in guards.status("server1")["lists"]["out"], LATEST)
        out = time.time()
        load.answered(2 * CLIENTS)
        sim("start", "server2")
        wait(guards.well, LATEST)
        load.answered(4 * CLIENTS)
    lost = [sent - begin for sent in load.result.sent]
    with capsys.disabled():
        print(f"\na server: {len(lost)} requests lost, the last sent after {max(lost, default=0):.1f} s")
    # Clients that had a connection to it notice its end when it has started again.
    assert all(sent <= out - begin for sent in lost), (load.result, guards.since(begin))


def test_all_decoders_die_at_once(front, server, guards):
    """They stay listed, and clients are told 503, instead of routers that answer 200 and nothing."""
    with Load(front, CLIENTS, pause=PAUSE) as load:
        load.answered(2 * CLIENTS)
        begin = time.time()
        for name, engine in (("server1", "pd-decode_a"), ("server2", "pd-decode_b")):
            server(name).check_output(KILL, engine)
        wait(lambda: guards.when(begin, "the front serves again"), LATEST)
        wait(guards.well, LATEST)
        load.answered(4 * CLIENTS)
    assert any("no decoder answers" in what for what in load.result.wrong), load.result
    assert not any("empty" in what for what in load.result.wrong), load.result
    assert guards.when(begin, "the front answers 503: no decoder answers")


def test_an_engine_is_killed(site, server, falling):
    """With upstream's script as the router, which answers 200 and nothing for a decoder that is dead."""
    site.set(pd_router="upstream")
    site.deploy("--skip-tags", "check")
    before = engines(site)
    events = falling(lambda: server("server1").check_output(KILL, "pd-decode_a"), "decode_a")
    assert any("decode_a is started anew (1): it ended with status 137" in what for _, _, what in events)
    # The same container, and no other one.
    assert engines(site) == before


def test_an_engine_whose_core_has_died_ends_with_0_and_is_started(sim, falling):
    events = falling(
        lambda: sim("fault", "server2", "engine_core_killed", "instance=prefill_b"),
        "prefill_b",
        lambda: sim("heal", "server2"),
    )
    assert any("it ended with status 0" in what for _, _, what in events)


def test_an_engine_that_hangs_is_healthy_and_is_started_anew(sim, falling):
    events = falling(
        lambda: sim("fault", "server2", "engine_hang", "instance=decode_b"),
        "decode_b",
        lambda: sim("heal", "server2"),
    )
    assert any("made no progress" in what and "started anew" in what for _, _, what in events)


def test_all_servers_are_switched_on_again(sim, guards, front, site):
    """What has run serves again, without a hand."""
    before = engines(site)
    for name in site.names:
        sim("stop", name)
    for name in site.names:
        sim("start", name)
    wait(guards.well, LATEST)
    assert engines(site) == before
    with Load(front, CLIENTS) as load:
        load.answered(4 * CLIENTS)
    assert not load.result.failed, load.result
    # What the guards have started and listed is as a rollout would have it.
    assert changed(site.deploy("--skip-tags", "check")) == {}


def test_what_was_drained_and_stopped_stays_so_over_a_reboot(site, sim, guards):
    site.run("playbooks/drain.yml", "-e", "server=server2", "-e", "drain_stop=true")
    sim("restart", "server2")
    # Since the reboot it has decided to leave them.
    wait(lambda: guards.status("server2").get("drained") == "stopped", LATEST)
    assert {node["state"] for node in guards.status("server2")["nodes"].values()} == {"down"}
    assert not guards.when(0, "pd-decode_b is started")
    site.run("playbooks/undrain.yml", "-e", "server=server2")


def test_an_instance_that_does_not_stay_up_is_given_up_until_the_next_deployment(site, server, sim, guards):
    sim("fault", "server1", "engine_crash_start", "instance=prefill_a", "message=chip 2 is broken")
    server("server1").check_output(KILL, "pd-prefill_a")
    wait(lambda: guards.status("server1")["nodes"]["prefill_a"]["given_up"], LATEST)
    assert "prefill_a" in guards.status("server1")["lists"]["out"]
    assert "it was started 4 times in a row" in server("server1").run("pd-guard status").stdout
    checked = subprocess.run(
        site.command(playbook="playbooks/check.yml"),
        capture_output=True,
        text=True,
        check=False,
        env=site.environment(),
        cwd=ROOT,
    )
    assert "host-guard-gave-up" in checked.stdout
    sim("heal", "server1")
    site.deploy("--skip-tags", "check")
    wait(guards.well, LATEST)


def test_a_guard_that_is_stopped_is_missed_and_started_by_the_next_deployment(site, server, guards):
    server("server2").check_output("systemctl stop pd-guard")
    output = site.deploy()
    assert "host-guard-stopped" in output
    assert set(changed(output)) == {"server2"}
    assert server("server2").service("pd-guard").is_running
