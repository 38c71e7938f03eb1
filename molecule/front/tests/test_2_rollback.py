# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Under load, a deployment goes back to an earlier revision without a request that fails or is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import yaml
from conftest import ROOT, SECRETS, arguments

HISTORY = "/etc/pd_rollout/pd/history"


def scripts(site):
    """The launch scripts of the engines on the servers."""
    found = {}
    for name in site.names:
        host = site.server(name)
        for path in host.check_output(
            "ls /etc/pd_rollout/pd/decode_*.sh /etc/pd_rollout/pd/prefill_*.sh"
        ).split():
            found[name, Path(path).name] = host.file(path).content_string
    return found


def mounted(site):
    """What the engines that run have been started with: (server, container) → hash of the plan's part."""
    form = '{{.Names}} {{.Label "pd_rollout.hash"}}'
    return {
        (name, line.split()[0]): line.split()[1]
        for name in site.names
        for line in site.server(name)
        .check_output(f"docker ps --filter name=pd-prefill --filter name=pd-decode --format '{form}'")
        .splitlines()
    }


def numbers(site):
    """The revisions on each server, and on the controller."""
    own = sorted(path.name for path in (plan_folder(site) / "history").iterdir())
    return {
        "controller": own,
        **{name: site.server(name).check_output(f"ls {HISTORY}").split() for name in site.names},
    }


def plan_folder(site):
    return site.inventory.parent / "plan"


def playbook(site, name, *options):
    return subprocess.run(
        site.command(*options, playbook=f"playbooks/{name}.yml"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=site.environment(),
    )


def test_back_under_load(changing, under_load):
    changing.deploy("--skip-tags", "check")
    before, engines, kept = scripts(changing), mounted(changing), numbers(changing)
    changing.set(**arguments(changing, 40))
    changing.deploy("--skip-tags", "check")
    assert not set(mounted(changing).values()) & set(engines.values())
    with under_load():
        done = playbook(changing, "rollback", "--skip-tags", "check")
        assert done.returncode == 0, done.stdout + done.stderr
    assert scripts(changing) == before
    assert mounted(changing) == engines
    assert "the next deploy.yml goes forward" in done.stdout
    after = numbers(changing)
    # The change, and the way back.
    newest = int(kept["controller"][-1])
    for revisions in after.values():
        assert revisions[-2:] == [f"{newest + 1:04d}", f"{newest + 2:04d}"]
    # The plan's files are those of the revision.
    plans = [
        json.loads((plan_folder(changing) / name).read_text())["hash"]
        for name in ("plan.json", f"history/{newest:04d}/plan.json", f"history/{newest + 2:04d}/plan.json")
    ]
    assert len(set(plans)) == 1


def test_only_root_can_read_the_revisions(site, server):
    for name in site.names:
        modes = server(name).check_output(f"find {HISTORY} -printf '%u %m\\n' | sort -u").splitlines()
        assert modes == ["root 600", "root 700"]


def test_a_controller_without_revisions_reads_the_servers(changing):
    """And says what there is."""
    shutil.rmtree(plan_folder(changing) / "history", ignore_errors=True)
    done = playbook(changing, "rollback", "-e", "revision=9999")
    assert done.returncode != 0
    assert "there is no revision 9999; nothing was changed" in done.stdout
    listed = [
        line.split()[0] for line in playbook(changing, "history").stdout.splitlines() if " 2P2D " in line
    ]
    kept = changing.server("server1").check_output(f"ls {HISTORY}").split()
    assert listed == [str(int(name)) for name in reversed(kept)]
    # To the change that was undone, which only the servers know.
    done = playbook(changing, "rollback", "--check", "-vvv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "make anew prefill_a, decode_a" in done.stdout
    assert not [secret for secret in SECRETS if secret in done.stdout]


def test_a_server_of_the_revision_is_not_there(changing):
    path = changing.inventory / "hosts.yml"
    hosts = yaml.safe_load(path.read_text())
    for role, group in (("prefiller", "prefill_b"), ("decoder", "decode_b")):
        del hosts[role]["children"][group]
    del hosts["proxy"]["hosts"]["server2"]
    path.write_text(yaml.safe_dump(hosts))
    before = mounted(changing)
    done = playbook(changing, "rollback")
    assert done.returncode != 0
    assert "change-revision-servers" in done.stdout
    assert "server2 (" in done.stdout
    assert mounted(changing) == before
