# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The oldest ansible-core that is supported deploys as well; the newest does so in the scenario airgap."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def deploy(inventory):
    """Deploys with the oldest ansible-core and this environment's collections; gives the changed hosts."""
    commands = subprocess.check_output([ROOT / "scripts" / "environments.py", "oldest"], text=True).strip()
    collections = f"{ROOT / '.collections'}:{sysconfig.get_paths()['purelib']}"

    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_NOCOLOR": "1",
    }
    # Molecule asks for colours, which would be in the recap.
    environment.pop("ANSIBLE_FORCE_COLOR", None)

    def run(*arguments):
        done = subprocess.run(
            [
                f"{commands}/ansible-playbook",
                "--inventory",
                inventory,
                "playbooks/deploy_1p1d.yml",
                *arguments,
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"^(\S+)\s+: ok=\d+\s+changed=[1-9]", done.stdout, re.MULTILINE))

    return run


def test_it_recreates_what_has_changed_and_changes_it_back(deploy, tmp_path):
    source = tmp_path / "other_flag.yml"
    source.write_text("decoder:\n  vars:\n    pd_engine_args:\n      max-num-seqs: 8\n")
    consent = ("-e", "deploy_accept_outage=true")
    # The proxy ends while the decoder loads.
    assert deploy("--inventory", str(source), *consent) == {"decode1", "prefill1"}
    assert deploy(*consent) == {"decode1", "prefill1"}
