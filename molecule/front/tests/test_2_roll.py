# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Under load, engines are changed without a request that fails, is cut, is empty or wrong.

In this order: what one test has changed the next goes on from, and the last takes back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import yaml
from conftest import ROOT, arguments, changed, engines, steps
from test_2_interrupted import come_to, running, unlocked

ROLL = [
    ("make anew prefill_a, decode_a", "1 of 2", "1 of 2"),
    ("make anew prefill_b, decode_b", "1 of 2", "1 of 2"),
    ("list all", "2 of 2", "2 of 2"),
]
# Eight clients with this pause in seconds send about 20 requests a second.
PAUSE = 0.35
# The engines' number of sequences after the last roll.
LAST = 36
# A roll is killed when it comes to these tasks: the next run goes on from there, to the next one.
POINTS = [
    "Stop the engines that serve an API",
    "Run the containers of the plan",
    "Ask every pair of prefiller and decoder",
]


def failing(site, *arguments) -> str:
    """Deploy, which fails; return what was printed."""
    with running(site, "--skip-tags", "check", *arguments) as run:
        output = run.stdout.read()
        assert run.wait() != 0, output
    return output


def test_the_first_failure_stops_the_roll_and_the_service_goes_on(changing, under_load, sim):
    """An engine that dies at its start, then one whose answers are wrong. The next run completes it.

    With upstream's script as the router.
    """
    before = engines(changing)
    changing.set(pd_router="upstream", **arguments(changing, 44))
    with under_load(pause=PAUSE):
        sim(
            "fault",
            "server1",
            "engine_crash_start",
            "instance=decode_a",
            "message=the memory of chip 5 is broken",
        )
        died = failing(changing)
        sim("heal", "server1")
        sim("fault", "server1", "engine_garbage", "instance=decode_a")
        lied = failing(changing)
        sim("heal", "server1")
        # The other half has served alone, and is as before.
        kept = {key: value for key, value in engines(changing).items() if key[0] == "server2"}
        assert kept.items() <= before.items()
        output = changing.deploy("--skip-tags", "check")
    assert "the memory of chip 5 is broken" in died
    assert "change-stopped" in died
    assert "serving as before: prefill_b, decode_b" in died
    assert "canary-wrong" in lied or "canary-repeats" in lied
    assert "serving as before: prefill_b, decode_b" in lied
    assert steps(output)[-1] == ("list all", "2 of 2", "2 of 2")


def test_a_roll_that_is_killed_is_completed_by_the_next(changing, under_load):
    changing.set(pd_router="upstream", **arguments(changing, LAST))
    with under_load(pause=PAUSE) as load:
        for point in POINTS:
            with running(changing, "--skip-tags", "check") as run:
                come_to(run, point)
                os.killpg(run.pid, signal.SIGKILL)
            unlocked(changing)
            load.answered(8)
        changing.deploy("--skip-tags", "check")
    assert len(engines(changing)) == 4
    assert len(changing.routers()) == 2


def test_a_server_is_drained_for_maintenance_and_comes_back(changing, under_load, server):
    """Meanwhile a deployment leaves it out."""
    changing.set(pd_router="upstream", **arguments(changing, LAST))
    before = engines(changing)
    here = {key: value for key, value in before.items() if key[0] == "server1"}
    with under_load(pause=PAUSE):
        changing.run("playbooks/drain.yml", "-e", "server=server2", "-e", "drain_stop=true")
        assert engines(changing) == here
        output = changing.deploy("--check", "--skip-tags", "check")
        assert steps(output) == []
        assert changed(output) == {}
        changing.run("playbooks/undrain.yml", "-e", "server=server2")
    assert engines(changing) == before


def test_instances_come_and_go_and_the_others_stay(changing, under_load):
    """2P2D → 1P2D → 2P2D, the first group of its role."""
    changing.set(pd_router="upstream", **arguments(changing, LAST))
    before = engines(changing)
    changing.without("prefill_a", "prefiller")
    with under_load(pause=PAUSE):
        changing.deploy("--skip-tags", "check")
        gone = ("server1", "pd-prefill_a")
        assert engines(changing) == {key: value for key, value in before.items() if key != gone}
        changing.restore()
        changing.set(pd_router="upstream", **arguments(changing, LAST))
        changing.deploy("--skip-tags", "check")
    after = engines(changing)
    assert after.pop(gone) != before.pop(gone)
    assert after == before


def scripts(site) -> dict[tuple[str, str], str]:
    """Return the launch scripts of the engines on the servers."""
    return {
        (name, path): site.server(name).file(path).content_string
        for name in site.names
        for path in site.server(name)
        .check_output("ls /etc/pd_rollout/pd/decode_*.sh /etc/pd_rollout/pd/prefill_*.sh")
        .split()
    }


def revisions(site) -> dict[str, list[str]]:
    """Return the revisions on each server, and on the controller."""
    folder = site.inventory.parent / "plan" / "history"
    return {
        "the controller": sorted(path.name for path in folder.iterdir()),
        **{
            name: site.server(name).check_output("ls /etc/pd_rollout/pd/history").split()
            for name in site.names
        },
    }


def archive(tag: str) -> str:
    """The path of the simulated image of a tag, as `docker save` writes it; made if it does not exist."""
    program = (
        "import sys; from pdsim import images; images.ensure_engines([sys.argv[1]]); "
        "print(images.engine_archive(sys.argv[1]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, tag],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "simulator")},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.split()[-1]


def met(site) -> set[tuple[str, str]]:
    """The releases of engines that have served a request together."""
    lines = [
        json.loads(line)
        for name in site.names
        for line in site.server(name).check_output("cat /usr/local/dcmi/pd-sim/served.jsonl").splitlines()
    ]
    return {(line["engine"]["release"], line["peer"]["release"]) for line in lines}


def test_an_upgrade_and_the_way_back_never_pair_two_versions(changing, under_load):
    """By one command each; the next deployment goes on from there, with the router of the other kind."""
    before, kept = scripts(changing), revisions(changing)
    own = yaml.safe_load((changing.inventory / "group_vars" / "all.yml").read_text())["pd_image"]
    image = own.replace("v0.13.0", "v0.23.0")
    assert image != own
    changing.set(
        pd_release="v0.23.0",
        pd_image=image,
        pd_image_source="archive",
        pd_image_archive=archive(image.rpartition(":")[2]),
        pd_image_archive_remote_src=False,
    )
    with under_load(pause=PAUSE):
        assert steps(changing.deploy("--skip-tags", "check")) == ROLL
        output = changing.run("playbooks/rollback.yml", "--skip-tags", "check")
        assert steps(output) == ROLL
        assert "the next deploy.yml goes forward" in output
        assert scripts(changing) == before
        assert met(changing) == {("v0.13.0", "v0.13.0"), ("v0.23.0", "v0.23.0")}
        # What was deployed, and what it went back to; the newest ten.
        for name, numbers in revisions(changing).items():
            newest = int(kept[name][-1])
            assert numbers[-2:] == [f"{newest + 1:04d}", f"{newest + 2:04d}"]
            assert len(numbers) <= 10
        changing.restore()
        engines_before = engines(changing)
        assert steps(changing.deploy("--skip-tags", "check")) == ROLL
    assert not set(engines(changing).values()) & set(engines_before.values())
    assert len(changing.routers()) == 2
