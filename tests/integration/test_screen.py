"""The output of a callback that programs read stays what it is: JSON."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import BIN, ROOT, run


def test_the_json_callback_prints_json_and_the_tables_go_to_the_standard_error(tmp_path: Path) -> None:
    done = run(
        BIN / "ansible-playbook",
        *("-i", ROOT / "inventory" / "guide_1p1d", ROOT / "playbooks" / "plan.yml"),
        *("-e", f"pd_plan_dir={tmp_path / 'plan'}"),
        cwd=ROOT,
        env={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["plays"]
    assert "PD" in done.stderr
    assert "topology.md" in done.stderr
