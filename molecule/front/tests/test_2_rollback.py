# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""What is kept of earlier deployments, and what a way back refuses."""

from __future__ import annotations

import re
import shutil
import subprocess

import yaml
from conftest import ROOT, SECRETS, engines

HISTORY = "/etc/pd_rollout/pd/history"


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
    lines = playbook(changing, "history").stdout.splitlines()
    listed = [line.split()[0] for line in lines if re.search(r" \dP\dD ", line)]
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
    before = engines(changing)
    done = playbook(changing, "rollback")
    assert done.returncode != 0
    assert "change-revision-servers" in done.stdout
    assert "server2 (" in done.stdout
    assert engines(changing) == before
