# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""stop.yml refuses what would lead root beyond the deployment, before it asks a server for anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def stop(*arguments: str, playbook: str = "playbooks/stop.yml") -> subprocess.CompletedProcess[str]:
    """Nothing answers at the servers' addresses, so what goes on is told by the connection."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/guide_1p1d"]
    command += [playbook, "--limit", "decode1", "-e", "ansible_host=127.0.0.1 ansible_port=1"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ('{"pd_deployment": "../../root/x"}', "seen '../../root/x' expected letters"),
        ('{"pd_deployment": ""}', "seen '' expected letters"),
        (
            '{"pd_host_dir": "/"}',
            "seen '//pd' expected a directory",
        ),
    ],
)
def test_what_leads_elsewhere_is_refused_without_a_server(extra: str, told: str) -> None:
    done = stop("-e", extra)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert told in text.replace("\\\\", "")
    assert "nothing was changed or removed" in text
    assert "nreachable" not in text.replace("unreachable=0", "")


def test_a_name_as_people_give_it_goes_on_to_the_server() -> None:
    done = stop("-e", '{"pd_deployment": "Chat-v3.1_b", "pd_host_dir": "/opt/our serving"}')
    assert "unreachable=1" in done.stdout + done.stderr


ROLE = """
- hosts: decoder
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: ascend.pd_rollout._container
        tasks_from: {tasks}
      vars:
        container_deployment: pd
        container_directory: "{directory}"
"""


@pytest.mark.parametrize("tasks", ["remove", "main"])
def test_the_role_by_itself_refuses_too(tmp_path: Path, tasks: str) -> None:
    playbook = tmp_path / "play.yml"
    for directory, goes_on in (("/etc/pd_rollout/..", False), ("/root", False), ("/opt/serving/pd", True)):
        playbook.write_text(ROLE.format(tasks=tasks, directory=directory), encoding="utf-8")
        done = stop(playbook=str(playbook))
        text = " ".join((done.stdout + done.stderr).split())
        assert ("unreachable=1" in text) == goes_on, text
        assert ("container_directory (pd_host_dir and pd_deployment) is" in text) != goes_on, text
