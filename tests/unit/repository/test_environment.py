# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The environment of a download goes through a file, whatever its values hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19
    trust_as_template = str

ROLE = Path(__file__).resolve().parents[3] / "roles" / "model_weights"


@pytest.mark.parametrize("value", ["http://user:it's $HOME `id`@proxy:1", "", "a b", 3], ids=repr)
def test_a_value_comes_as_it_is(tmp_path: Path, value: str | int) -> None:
    given = {"ansible_managed": "by Ansible", "model_weights_environment": {"https_proxy": value}}
    text = (ROLE / "templates" / "environment.j2").read_text(encoding="utf-8")
    # As the module template reads it.
    text = text.replace("%}\n", "%}")
    file = tmp_path / "environment"
    file.write_text(Templar(loader=DataLoader(), variables=given).template(trust_as_template(text)) + "\n")
    script = f'set -euo pipefail\n. {file}\nprintf "%s" "$(printenv https_proxy)"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == str(value)


def test_nothing_else_shows_it() -> None:
    tasks = yaml.safe_load((ROLE / "tasks" / "download.yml").read_text(encoding="utf-8"))
    speaking = [task["name"] for task in tasks if "model_weights_environment" in str(task)]
    assert speaking == []
    (write,) = [task for task in tasks if "environment.j2" in str(task)]
    assert (write["no_log"], write["diff"]) == (True, False)
    for script in ("huggingface.sh.j2", "modelscope.sh.j2"):
        assert ". /run/pd_rollout/environment\n" in (ROLE / "templates" / script).read_text(encoding="utf-8")
