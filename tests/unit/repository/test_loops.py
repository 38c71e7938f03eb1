# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible prints the items of a loop with -v and on failure: those of the roles are names, and no scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19
    trust_as_template = str

ROLES = Path(__file__).resolve().parents[3] / "roles"
SECRET = "pd-s3cret"

ENGINE = {
    "container": "pd-decode1",
    "script_path": "/etc/pd_rollout/pd/decode1.sh",
    "secret_path": None,
    "api": {"host": "192.0.0.3", "port": 8004},
    "env": {"HTTPS_PROXY": SECRET},
    "script": f"export HTTPS_PROXY={SECRET}",
}
VARIABLES: dict[str, Any] = {
    "smoke_test_plan": {
        "hosts": {
            "decode1": {"engines": [ENGINE, {**ENGINE, "container": "pd-rank1", "api": None}]},
            "proxy1": {"engines": []},
        }
    },
    "container_slices": [ENGINE],
    "container_found": {"outdated": [ENGINE["script_path"]], "nodes": []},
    "container_groups": {"stop": {"decode1": ["pd-decode1"]}},
    "inventory_hostname": "decode1",
    "__measurement_files": {"run.sh": "true"},
    "measurement_files": {"install.sh": f"index={SECRET}"},
    "measurement_client_key": SECRET,
    "measurement_ca": SECRET,
}


def loops(role: str, tasks: str, about: str) -> Any:
    """The items of the loop of a role that speaks of something."""
    given = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text(encoding="utf-8"))
    own = {name: trust_as_template(text) for name, text in given.items() if isinstance(text, str)}
    (loop,) = [
        task["loop"]
        for task in yaml.safe_load((ROLES / role / "tasks" / tasks).read_text(encoding="utf-8"))
        if about in str(task.get("loop"))
    ]
    templar = Templar(loader=DataLoader(), variables={**own, **VARIABLES})
    return templar.template(trust_as_template(loop))


@pytest.mark.parametrize(
    ("role", "tasks", "about", "items"),
    [
        ("smoke_test", "report.yml", "heads", [["decode1", "pd-decode1"]]),
        ("_measurement", "run.yml", "all_files", ["run.sh", "install.sh", "client.key", "ca.pem"]),
        ("_container", "files.yml", "script_path", ["/etc/pd_rollout/pd/decode1.sh"]),
        ("_container", "run.yml", "slices", ["pd-decode1"]),
        ("_container", "clear.yml", "slices", ["pd-decode1"]),
    ],
)
def test_items_are_names(role: str, tasks: str, about: str, items: list[Any]) -> None:
    found = loops(role, tasks, about)
    assert [list(item) if isinstance(item, tuple) else item for item in found] == items
    assert SECRET not in str(found)
