# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The certificate of the front as the playbooks read it: variables of an inventory, files beside it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import key_text, made

ROOT = Path(__file__).resolve().parents[4]
PASSWORD = "vault-password"
KEY = "sk-alice-0123456789"
VARIABLES: dict[str, Any] = {
    "pd_image": "registry.example/vllm-ascend:v0.13.0-a3",
    "pd_model_path": "/weights/model",
    "pd_served_model_name": "model",
    "pd_parallel": {"tensor": 16},
    "pd_front_port": 8443,
    "pd_front_certificate": "certs/front.crt",
    "pd_front_certificate_key": "certs/front.key",
    "pd_front_api_keys": {"alice": "{{ vault_key }}"},
    "vault_key": KEY,
}
HOSTS: dict[str, Any] = {
    "prefiller": {"hosts": {"p1": {"ansible_host": "10.1.0.1"}}},
    "decoder": {"hosts": {"d1": {"ansible_host": "10.1.0.2"}}},
    "proxy": {"hosts": {"p1": None}},
}
# What the plays that follow use, from the host on which the tasks did not run.
WRITES = """
- import_playbook: {root}/playbooks/_plan.yml
- import_playbook: {root}/playbooks/_certificate.yml
- hosts: d1
  gather_facts: false
  tasks:
    - copy:
        content: "{{{{ front_certificate | to_json }}}}"
        dest: "{result}"
        mode: "0600"
      delegate_to: localhost
      no_log: true
    - ascend.pd_rollout.check_report:
        plan: "{{{{ pd_plan }}}}"
        servers: [p1]
        result: none
        certificate: front_certificate
        dest: "{result}.d"
        fail: false
      run_once: true
"""


def run(tmp_path: Path, certificate: str, variables: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Write an inventory with its certificate; return the registered result and the whole output."""
    inventory = tmp_path / "cluster"
    certs = inventory / "certs"
    (inventory / "group_vars").mkdir(parents=True)
    certs.mkdir()
    (inventory / "hosts.yml").write_text(yaml.safe_dump(HOSTS), encoding="utf-8")
    (inventory / "group_vars" / "all.yml").write_text(
        yaml.safe_dump({**VARIABLES, **variables}), encoding="utf-8"
    )
    (certs / "front.crt").write_text(certificate, encoding="ascii")
    (certs / "front.key").write_text(key_text(), encoding="ascii")
    (tmp_path / "password").write_text(PASSWORD, encoding="ascii")
    beside = Path(sys.executable).with_name
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password"),
    }
    encrypt = [str(beside("ansible-vault")), "encrypt", str(certs / "front.key")]
    subprocess.run(encrypt, check=True, capture_output=True, env=environment, cwd=ROOT)
    playbook, result = tmp_path / "play.yml", tmp_path / "result.json"
    playbook.write_text(WRITES.format(root=ROOT, result=result), encoding="utf-8")
    play = [str(beside("ansible-playbook")), "-vvv", "-i", str(inventory), str(playbook)]
    done = subprocess.run(play, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return json.loads(result.read_text(encoding="utf-8")), output


def test_files_beside_the_inventory_are_read_and_nothing_secret_is_shown(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    certificate = made(now=now)
    found, output = run(tmp_path, certificate, {})
    assert found["findings"] == []
    assert found["pem"] == certificate + key_text()
    assert found["ca"] == certificate
    assert found["names"] == {"p1": "10.1.0.1"}
    assert found["api_keys"] == {"alice": hashlib.sha256(KEY.encode()).hexdigest()}
    assert KEY not in output
    assert key_text().splitlines()[1] not in output


def test_what_is_wrong_is_returned(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    found, _ = run(
        tmp_path, made(now=now, days=-1, begins=-9), {"pd_front_name": "other", "pd_front_ca": "nowhere.crt"}
    )
    assert [finding["code"] for finding in found["findings"]] == ["front-certificate-missing"]
    report = json.loads((tmp_path / "result.json.d" / "check.json").read_text(encoding="utf-8"))
    assert "front-certificate-missing" in [finding["code"] for finding in report["findings"]]
    assert "nowhere.crt: no such file" in found["findings"][0]["seen"]


@pytest.mark.parametrize("variables", [{"pd_front_port": None}, {"pd_front_tls": False}], ids=str)
def test_without_tls_no_file_is_read(tmp_path: Path, variables: dict[str, Any]) -> None:
    found, _ = run(tmp_path, "nothing", variables)
    assert not found["findings"] and not found["pem"]
    assert bool(found["api_keys"]) == bool(found["names"]) == ("pd_front_tls" in variables)
